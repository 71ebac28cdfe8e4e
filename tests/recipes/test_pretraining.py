"""The real command line on a tiny model: two phases, resume, ranks, signals and bad input."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from recipes.conftest import ROOT, launch, logged, pretraining_flags, run  # pyright: ignore[reportMissingImports]

import run_pretraining
from bert.checkpoint import load
from bert.config import parse_args
from bert.errors import UsageError
from bert.optim.schedules import learning_rate


def pretrain(*args, **changes) -> None:
    """Run in this process: the same `main`, without the seconds that a new interpreter takes."""
    run_pretraining.main(parse_args(run_pretraining.Config, pretraining_flags(*args, **changes)))


def assert_same(a: dict, b: dict, tolerance: float | None = None) -> None:
    """Compare two nested states; without a tolerance bit by bit."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            assert_same(value, b[key], tolerance)
        elif isinstance(value, torch.Tensor) and tolerance is not None:
            torch.testing.assert_close(value, b[key], rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}")
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key
        else:
            assert value == b[key], key


def rates(path: Path) -> dict[int, float]:
    """Return {step: learning rate} of a log."""
    return {
        e["step"][1]: e["data"]["learning_rate"]
        for e in logged(path)
        if "learning_rate" in e["data"] and len(e["step"]) == 2
    }


def test_two_phases_chain_through_the_checkpoint(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path, max_steps=4)
    first = load(tmp_path / "ckpt_4.pt")
    pretrain(
        corpus, tmp_path, 64, max_steps=3, phase2=True, resume_from_checkpoint=True, learning_rate=2e-3,
        json_summary=tmp_path / "phase2.json",
    )  # fmt: skip
    second = load(tmp_path / "ckpt_7.pt")
    assert (first["phase"], second["phase"], second["offset"], second["training"]["step"]) == (1, 2, 4, 3)
    expected = {step: learning_rate("poly", step, 3, 0.3, 2e-3) for step in (1, 2, 3)}
    assert rates(tmp_path / "phase2.json") == pytest.approx(expected)
    assert "--resume_from_checkpoint" in capsys.readouterr().out
    names = {event["step"] for event in logged(tmp_path / "dllogger.json") if isinstance(event["step"], str)}
    assert names == {"PARAMETER"}
    final = logged(tmp_path / "phase2.json")[-1]
    assert final["step"] == []
    assert final["data"].keys() == {
        "e2e_train_time",
        "training_sequences_per_second",
        "training_flop_utilisation",
        "peak_host_memory",
        "final_loss",
        "raw_train_time",
    }


def test_phase_2_keeps_the_moments_and_restarts_the_step(corpus, tmp_path):
    """With a learning rate of 0, phase 2's first step still moves the moments on from phase 1's."""
    pretrain(corpus, tmp_path, max_steps=3)
    before = load(tmp_path / "ckpt_3.pt")["optimizer"]
    pretrain(corpus, tmp_path, 64, max_steps=2, steps_this_run=1, phase2=True, resume_from_checkpoint=True)
    after = load(tmp_path / "ckpt_4.pt")["optimizer"]
    assert [int(group["step"]) for group in before["param_groups"]] == [3, 3]
    assert [int(group["step"]) for group in after["param_groups"]] == [1, 1]
    for index, state in before["state"].items():
        # v' = b2 v + (1 - b2) g^2 >= b2 v: a fresh second moment would be far below
        assert (after["state"][index]["exp_avg_sq"] >= 0.999 * state["exp_avg_sq"] * (1 - 1e-6)).all()
        assert state["exp_avg_sq"].max() > 0


@pytest.mark.parametrize("phase", [1, 2])
def test_resume_is_bitwise_equal_to_the_uninterrupted_run(corpus, tmp_path, phase):
    """With dropout, shuffling and accumulation; the checkpoint carries the position by value."""
    length, flags, offset = 32, {}, 0
    if phase == 2:
        pretrain(corpus, tmp_path / "straight", max_steps=2)
        shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
        length, flags, offset = 64, {"phase2": True, "resume_from_checkpoint": True}, 2
    pretrain(corpus, tmp_path / "straight", length, **flags)
    pretrain(corpus, tmp_path / "resumed", length, **flags, steps_this_run=4)
    pretrain(corpus, tmp_path / "resumed", length, **{**flags, "resume_from_checkpoint": True})
    name = f"ckpt_{offset + 6}.pt"
    straight, resumed = load(tmp_path / "straight" / name), load(tmp_path / "resumed" / name)
    for part in ("model", "optimizer", "training", "grad_scaler"):
        assert_same(_numbered(straight[part]), _numbered(resumed[part]))


def _numbered(state: dict) -> dict:
    """Turn lists (parameter groups) into dicts, so that states compare level by level."""
    return {
        k: _numbered(dict(enumerate(v))) if isinstance(v, list) else _numbered(v) if isinstance(v, dict) else v
        for k, v in state.items()
    }


@pytest.mark.slow
def test_two_processes_equal_one(corpus, tmp_path):
    flags = {"config_file": corpus / "config_without_dropout.json", "max_steps": 4, "learning_rate": 1e-4}
    pretrain(corpus, tmp_path / "one", train_batch_size=16, **flags)
    run(pretraining_flags(corpus, tmp_path / "two", train_batch_size=8, **flags), processes=2)
    one, two = load(tmp_path / "one/ckpt_4.pt"), load(tmp_path / "two/ckpt_4.pt")
    assert_same(_trainable(one["model"]), _trainable(two["model"]), tolerance=1e-6)
    assert one["training"]["data"]["consumed"] == two["training"]["data"]["consumed"]


def _trainable(model: dict) -> dict:
    # The key bias has no gradient in theory; LAMB turns its rounding into steps of full length.
    return {name: value for name, value in model.items() if "key.bias" not in name}


@pytest.mark.slow
def test_the_launcher_of_old_scripts_still_works(corpus, tmp_path):
    """It passes --local-rank; OneFlow's number of processes agrees with what was started."""
    flags = pretraining_flags(corpus, tmp_path, max_steps=2, gpu_num_per_node=2, use_env=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = f"--master_port={probe.getsockname()[1]}"
    launcher = [sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node=2", port]
    done = subprocess.run(
        [*launcher, "run_pretraining.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "x 2 devices = " in done.stdout
    assert (tmp_path / "ckpt_2.pt").exists()


@pytest.mark.slow
def test_saved_on_four_processes_resumed_on_two_one_and_eight(corpus, tmp_path):
    flags = {"config_file": corpus / "config_without_dropout.json", "max_steps": 4, "learning_rate": 1e-4}
    flags |= {"train_batch_size": None, "global_batch_size": 16, "gradient_accumulation_steps": 1}
    run(pretraining_flags(corpus, tmp_path / "4", **flags, steps_this_run=2), processes=4)
    results = {}
    for processes in (1, 2, 8):
        target = tmp_path / f"4to{processes}"
        shutil.copytree(tmp_path / "4", target)
        (target / "dllogger.json").unlink()
        flags |= {"json_summary": target / "dllogger.json", "resume_from_checkpoint": True}
        if processes == 1:
            pretrain(corpus, target, **flags)
        else:
            run(pretraining_flags(corpus, target, **flags), processes)
        results[processes] = load(target / "ckpt_4.pt"), rates(target / "dllogger.json")
    for processes in (2, 8):
        assert_same(_trainable(results[1][0]["model"]), _trainable(results[processes][0]["model"]), tolerance=1e-6)
        assert results[processes][0]["training"] == results[1][0]["training"]
        assert results[processes][1] == results[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_the_resumed_run_equals_the_uninterrupted_one(corpus, tmp_path, processes):
    """The signal comes in the middle of accumulation: 16 micro-batches a step, two loader threads at work."""
    flags = {"max_steps": 8, "train_batch_size": 16, "gradient_accumulation_steps": 16, "num_steps_per_checkpoint": 1}

    def complete(folder: str, **more) -> None:
        if processes == 1:
            pretrain(corpus, tmp_path / folder, **flags, **more)
        else:
            run(pretraining_flags(corpus, tmp_path / folder, **flags, **more), processes)

    complete("straight")
    process = launch(pretraining_flags(corpus, tmp_path / "cut", **flags), processes, torchrun=processes > 1)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut").glob("ckpt_*.json")):  # the first save is done, the next step under way
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    if processes == 1:  # torchrun reports its own signal, whatever its workers return
        assert process.returncode == 0, out + err
    steps = [int(path.stem[5:]) for path in (tmp_path / "cut").glob("ckpt_*.pt")]
    assert 1 <= max(steps) < 8
    complete("cut", resume_from_checkpoint=True)
    straight, cut = load(tmp_path / "straight/ckpt_8.pt"), load(tmp_path / "cut/ckpt_8.pt")
    for part in ("model", "training"):
        assert_same(straight[part], cut[part])


@pytest.mark.slow
def test_ctrl_c_saves_and_stops_the_script_that_called(corpus, tmp_path):
    flags = {"max_steps": 100_000, "num_steps_per_checkpoint": 50_000}
    process = launch(pretraining_flags(corpus, tmp_path, **flags))
    log = tmp_path / "dllogger.json"
    deadline = time.monotonic() + 120
    while not log.exists() or '"step": [0, 3]' not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Ctrl-C again stops at once" in err and "Traceback" not in err
    (saved,) = tmp_path.glob("ckpt_*.pt")
    assert load(saved)["training"]["step"] >= 3


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_used(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path, max_steps=4, num_steps_per_checkpoint=2)
    newest = tmp_path / "ckpt_4.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    (tmp_path / "ckpt_best.pt").touch()
    pretrain(corpus, tmp_path, max_steps=4, resume_from_checkpoint=True)  # from step 2
    out = capsys.readouterr().out
    assert "ckpt_4.pt is skipped" in out and "ckpt_best.pt is ignored" in out
    assert load(newest)["training"]["step"] == 4


def test_resume_on_an_empty_directory_starts_fresh_and_says_so(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path / "new", max_steps=1, resume_from_checkpoint=True)
    assert "starting fresh" in capsys.readouterr().out
    assert (tmp_path / "new/ckpt_1.pt").exists()


def test_init_checkpoint_alone_means_weights_only(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path / "a", max_steps=3)
    pretrain(corpus, tmp_path / "b", max_steps=2, init_checkpoint=tmp_path / "a/ckpt_3.pt", learning_rate=0.0)
    a, b = load(tmp_path / "a/ckpt_3.pt"), load(tmp_path / "b/ckpt_2.pt")
    assert_same(a["model"], b["model"])  # the rate is 0
    assert b["training"]["step"] == 2
    assert "tensors loaded" in capsys.readouterr().out


def test_held_out_metrics_are_logged(corpus, tmp_path):
    pretrain(corpus, tmp_path, max_steps=2, eval_dir=corpus / "shards_32", eval_steps=1)
    events = logged(tmp_path / "dllogger.json")
    evaluations = [e for e in events if "eval_mlm_accuracy" in e["data"]]
    assert [e["step"][1] for e in evaluations] == [1, 2]
    assert all(0 <= e["data"]["eval_nsp_accuracy"] <= 1 for e in evaluations)
    assert any("unigram_mlm_accuracy" in e["data"] for e in events)


@pytest.mark.parametrize(
    "flags",
    [
        {"bf16": True},
        {"fp16": True},
        {"optimizer": "adamw", "lr_schedule": "linear"},
        {"optimizer": "bertadam", "no_dense_sequence_output": True},
        {"checkpoint_activations": True},
        {"bf16": True, "allreduce_post_accumulation_fp16": True},
        {"attention": "sdpa", "num_workers": 0},
    ],
    ids=str,
)
def test_every_mode_trains(corpus, tmp_path, flags):
    """30 steps bring the loss of the two-letter language well below that of the first steps."""
    pretrain(corpus, tmp_path, max_steps=30, learning_rate=1e-2 if "optimizer" not in flags else 3e-3, **flags)
    losses = [e["data"]["mlm_loss"] for e in logged(tmp_path / "dllogger.json") if "mlm_loss" in e["data"]]
    assert sum(losses[-5:]) / 5 < sum(losses[:3]) / 3 - 0.05


def test_activation_checkpointing_does_not_change_the_result(corpus, tmp_path):
    for name, value in (("on", True), ("off", False)):
        pretrain(corpus, tmp_path / name, max_steps=3, checkpoint_activations=value)
    assert_same(load(tmp_path / "on/ckpt_3.pt")["model"], load(tmp_path / "off/ckpt_3.pt")["model"], tolerance=1e-6)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"do_train": None}, "add --do_train"),
        ({"input_dir": "/no/shards"}, "--input_dir /no/shards"),
        ({"vocab_file": "/no/vocab.txt"}, "--vocab_file /no/vocab.txt"),
        ({"config_file": "/no/config.json"}, "--config_file /no/config.json"),
        ({"max_seq_length": 16}, "sequences of up to 32 tokens, --max_seq_length is 16"),
        ({"max_seq_length": 128}, "--max_seq_length 128 exceeds max_position_embeddings 64"),
        ({"max_predictions_per_seq": 3}, "up to 5 masked tokens in a sequence, --max_predictions_per_seq is 3"),
        ({"train_batch_size": 9}, "--train_batch_size 9 is not divisible by --gradient_accumulation_steps 2"),
        ({"optimizer": "sgd9"}, "--optimizer sgd9"),
        ({"optimizer": "apex_lamb"}, "NVIDIA's apex"),
        ({"fp16": True, "bf16": True}, "--fp16 and --bf16"),
        ({"init_checkpoint": "/no/weights.pt"}, "/no/weights.pt"),
        ({"attention": "flash9"}, "flash9"),
        ({"warmup_proportion": 1.5}, "--warmup_proportion 1.5"),
        ({"resume_step": 7}, "--resume_step 7"),
        ({"eval_dir": "/no/held_out"}, "/no/held_out"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(corpus, tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        pretrain(corpus, tmp_path / "out", **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.slow
def test_the_command_exits_with_2_and_one_line(corpus, tmp_path):
    error = run(pretraining_flags(corpus, tmp_path, vocab_file="/no/vocab.txt"), expect=2)
    assert error.strip().splitlines() == ["error: --vocab_file /no/vocab.txt: No such file or directory"]


def test_an_occupied_output_directory_is_refused(corpus, tmp_path):
    pretrain(corpus, tmp_path, max_steps=1)
    before = (tmp_path / "ckpt_1.pt").read_bytes()
    with pytest.raises(UsageError, match=f"--output_dir {tmp_path} holds ckpt_1.* of an earlier run"):
        pretrain(corpus, tmp_path, max_steps=1)
    assert (tmp_path / "ckpt_1.pt").read_bytes() == before


def test_another_vocabulary_or_casing_than_the_checkpoints_is_refused(corpus, tmp_path):
    pretrain(corpus, tmp_path / "a", max_steps=1)
    weights, shards = tmp_path / "a/ckpt_1.pt", shutil.copytree(corpus / "shards_32", tmp_path / "shards")
    with pytest.raises(UsageError, match="--do_lower_case false, but the manifest of .* has do_lower_case true"):
        pretrain(corpus, tmp_path / "b", init_checkpoint=weights, do_lower_case=False)
    lines = (corpus / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines[:5], lines[6], lines[5], *lines[7:]]) + "\n")
    other = {"init_checkpoint": weights, "input_dir": shards, "vocab_file": tmp_path / "vocab.txt"}
    with pytest.raises(UsageError, match="vocab.txt: its vocabulary .* is not that of the manifest of"):
        pretrain(corpus, tmp_path / "b", **other)
    (shards / "manifest.json").unlink()
    with pytest.raises(UsageError, match="vocab.txt: its vocabulary .* is not that of --init_checkpoint"):
        pretrain(corpus, tmp_path / "b", **other)
    with pytest.raises(UsageError, match="do_lower_case false, but --init_checkpoint .* has do_lower_case true"):
        pretrain(corpus, tmp_path / "b", init_checkpoint=weights, input_dir=shards, do_lower_case=False)


def test_the_padded_vocabulary_size_is_accepted_and_another_refused(corpus, tmp_path):
    text = (corpus / "config.json").read_text()
    config = tmp_path / "config.json"
    config.write_text(text.replace('"vocab_size": 70', '"vocab_size": 72'))  # 70 pieces, padded to 72 rows
    pretrain(corpus, tmp_path / "out", max_steps=1, config_file=config)
    assert load(tmp_path / "out/ckpt_1.pt")["model_config"]["vocab_size"] == 70
    config.write_text(text.replace('"vocab_size": 70', '"vocab_size": 30522'))
    with pytest.raises(UsageError, match="has 70 pieces.*says vocab_size 30522"):
        pretrain(corpus, tmp_path / "other", max_steps=1, config_file=config)


def test_phase_2_on_an_unfinished_phase_1_is_refused(corpus, tmp_path):
    pretrain(corpus, tmp_path, max_steps=6, steps_this_run=2)
    with pytest.raises(UsageError, match="phase 1 stopped at step 2 of 6"):
        pretrain(corpus, tmp_path, 64, phase2=True, resume_from_checkpoint=True)


def nvidias(state: dict) -> dict:
    """A checkpoint as NVIDIA's script writes it: no phase, no step, dense_act names, the optimizer's numbered state."""
    theirs = {name.replace("pooler.dense.", "pooler.dense_act."): value for name, value in state["model"].items()}
    slots = {
        index: {moment: slot[moment] for moment in ("exp_avg", "exp_avg_sq")}
        for index, slot in state["optimizer"]["state"].items()
    }
    groups = [{"step": 7038, "lr": 0.0, "params": group["params"]} for group in state["optimizer"]["param_groups"]]
    optimizer = {"state": slots, "param_groups": groups}
    return {"model": theirs, "optimizer": optimizer, "grad_scaler": {}, "epoch": 3}


def test_phase_2_from_nvidias_checkpoint(corpus, tmp_path, capsys):
    """It goes on as from this suite's own, with another number in the names of the files."""
    pretrain(corpus, tmp_path / "own", max_steps=1)
    (tmp_path / "b").mkdir()
    torch.save(nvidias(load(tmp_path / "own/ckpt_1.pt")), tmp_path / "b/ckpt_7038.pt")
    for folder in ("b", "own"):
        pretrain(corpus, tmp_path / folder, 64, max_steps=2, phase2=True, resume_from_checkpoint=True)
    assert "it is taken for the end of phase 1\n" in (out := capsys.readouterr().out)
    found, expected = load(tmp_path / "b/ckpt_7040.pt"), load(tmp_path / "own/ckpt_3.pt")
    assert f"the moments of {len(expected['optimizer']['state'])} parameters are used" in out
    for index, slot in expected["optimizer"]["state"].items():
        assert all(
            torch.equal(found["optimizer"]["state"][index][name], slot[name]) for name in ("exp_avg", "exp_avg_sq")
        )
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in expected["model"].items())
    assert rates(tmp_path / "b/dllogger.json") == pytest.approx(
        {n: learning_rate("poly", n, 2, 0.3, 1e-3) for n in (1, 2)}
    )


def test_moments_that_do_not_belong_to_the_weights_are_not_used(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path / "a", max_steps=1)
    theirs = nvidias(load(tmp_path / "a/ckpt_1.pt"))
    theirs["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
    (tmp_path / "b").mkdir()
    torch.save(theirs, tmp_path / "b/ckpt_7038.pt")
    pretrain(corpus, tmp_path / "b", 64, max_steps=1, phase2=True, resume_from_checkpoint=True)
    assert (
        "its weights are used, its moments are not: the moments of number 0 are not those of" in capsys.readouterr().out
    )
    assert (tmp_path / "b/ckpt_7039.pt").exists()


@pytest.mark.parametrize("name,content", [("bert_model.ckpt.index", b"\x00tf"), ("model.safetensors", b"{}" * 40)])
def test_weights_of_other_formats_are_refused(corpus, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        pretrain(corpus, tmp_path / "out", init_checkpoint=tmp_path / name)


@pytest.mark.slow
def test_a_corrupt_shard_ends_all_ranks_with_its_name(corpus, tmp_path):
    """Rank 1 alone may meet the damage; both must end, and soon."""
    shards = tmp_path / "shards"
    shutil.copytree(corpus / "shards_32", shards)
    damaged = shards / "part_2_training.hdf5"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 400] = (
        b"\xff" * 400
    )  # inside compressed rows, behind a sound header
    damaged.write_bytes(content)
    process = launch(pretraining_flags(corpus, tmp_path / "out", input_dir=shards, max_steps=50), processes=2)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert str(damaged) in err


@pytest.mark.slow
def test_gradients_that_are_infinite_on_one_rank_are_skipped_by_both(corpus, tmp_path):
    """Rank 1's gradients are infinite in the second step: both skip it together; then fifty in a row end the run."""
    script = Path(__file__).with_name("infinite_gradients.py")
    process = launch([str(tmp_path)], processes=2, script=script)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["steps_after_each"] == [1, 1, 2]
    assert ranks[0]["scales"] == [1024.0, 512.0, 512.0]
    assert ranks[0]["equal_weights"]
    assert ranks[0]["final_scale"] == 1.0
    assert "50 optimizer steps in a row" in ranks[0]["diagnosis"]


def test_resuming_with_other_flags_is_said_and_with_another_optimizer_refused(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path, steps_this_run=1)
    with pytest.raises(UsageError, match="--optimizer adamw: the checkpoint holds the moments of lamb"):
        pretrain(corpus, tmp_path, resume_from_checkpoint=True, optimizer="adamw")
    pretrain(corpus, tmp_path, resume_from_checkpoint=True, learning_rate=5e-4)
    assert "--learning_rate was 0.001 and is now 0.0005" in capsys.readouterr().out


def test_a_finished_phase_is_left_alone(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path, max_steps=1)
    before = (tmp_path / "ckpt_1.pt").read_bytes()
    pretrain(corpus, tmp_path, max_steps=1, resume_from_checkpoint=True)
    assert "has reached step 1 of 1: nothing to train" in capsys.readouterr().out
    assert (tmp_path / "ckpt_1.pt").read_bytes() == before


def test_a_profile_is_written(corpus, tmp_path):
    pretrain(corpus, tmp_path, profile=True, profile_start=1)
    trace = json.loads((tmp_path / "profile.json").read_text())
    assert any("aten::" in str(event.get("name")) for event in trace["traceEvents"])
