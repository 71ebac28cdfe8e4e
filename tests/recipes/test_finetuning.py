"""run_glue.py and run_squad.py on tiny data: results, ranks, resume, accumulation and bad input."""

import json
import os
import random
from pathlib import Path

import pytest
import torch
from recipes.conftest import ROOT, run  # pyright: ignore[reportMissingImports]

import run_glue
import run_squad
from bert.checkpoint import load
from bert.config import parse_args, run_command
from bert.errors import UsageError

COLORS = ["green", "bright"]
NOUNS = ["river", "stone", "song", "table"]
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


@pytest.fixture
def files(tmp_path, vocab_file) -> Path:
    """A folder with an untrained model's files, a task in MRPC's layout and questions in SQuAD's."""
    rng = random.Random(0)
    pieces = len(vocab_file.read_text().splitlines())
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": pieces}))
    (tmp_path / "mrpc").mkdir()
    for name, count in (("train", 48), ("dev", 19), ("test", 7)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for index in range(count):
            color, other, noun = rng.choice(COLORS), rng.choice(COLORS), rng.choice(NOUNS)
            first = f"the {color} {noun} " + "and " * rng.randint(0, 12)
            lines.append(f"{int(color == other)}\t{index}\t{index}\t{first.strip()}\tthe {other} {noun}")
        (tmp_path / "mrpc" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    for name, count in (("train", 30), ("dev", 13)):
        (tmp_path / f"{name}.json").write_text(json.dumps(make_squad(count, rng)))
    return tmp_path


def make_squad(count: int, rng: random.Random) -> dict:
    paragraphs = []
    for index in range(count):
        noun, color = rng.choice(NOUNS), rng.choice(COLORS)
        context = "the song and " * rng.randint(0, 20) + f"the {noun} walks {color}"
        question = {"id": f"q{index}", "question": f"the {noun} walks?"}
        question["answers"] = [{"text": color, "answer_start": context.rindex(color)}]
        paragraphs.append({"context": context, "qas": [question]})
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def flags(files: Path, output: str, **changes: object) -> list[str]:
    values: dict[str, object] = {
        "config_file": files / "config.json",
        "vocab_file": files / "vocab.txt",
        "output_dir": files / output,
        "train_batch_size": 8,
        "learning_rate": 1e-3,
        "json_summary": files / f"{output}.json",
        "tensorboard_dir": "none",
        "disable_progress_bar": True,
        "device": "cpu",
        "max_seq_length": 48,
        **changes,
    }
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def glue(files: Path, output: str, **changes: object) -> list[str]:
    return flags(files, output, **{"task_name": "mrpc", "data_dir": files / "mrpc", "num_train_epochs": 2, **changes})


def squad(files: Path, output: str, **changes: object) -> list[str]:
    sets = {
        "train_file": files / "train.json",
        "predict_file": files / "dev.json",
        "doc_stride": 16,
        "max_query_length": 16,
    }
    return flags(files, output, **{**sets, "num_train_epochs": 2, "skip_cache": True, **changes})


def run_here(module, words: list[str]) -> None:
    """Run in this process: the same `main`, without the seconds that a new interpreter takes."""
    module.main(parse_args(module.Config, words))


def weights(files: Path, output: str) -> dict[str, torch.Tensor]:
    return load(files / output / "pytorch_model.bin")["model"]


def assert_close(a: dict, b: dict, tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        if not name.endswith(("key.bias", "qa_outputs.bias")):  # gradients that are 0 in theory: Adam blows rounding up
            torch.testing.assert_close(
                a[name], b[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
            )


BOTH = pytest.mark.parametrize(("module", "words"), [(run_glue, glue), (run_squad, squad)], ids=["glue", "squad"])


def test_glue_writes_what_the_systems_write(files):
    run_here(run_glue, glue(files, "out", do_train=True, do_eval=True, do_predict=True))
    out = files / "out"
    results = json.loads((out / "results.txt").read_text())
    assert results["global_step"] == results["train:num_steps"] == 12  # 48 examples, 2 epochs, batches of 8
    assert {"acc", "f1", "acc_and_f1", "eval:loss", "train:loss", "infer:throughput(samples/s):avg"} <= results.keys()
    lines = (out / "eval_results.txt").read_text().splitlines()
    assert [line.partition(" = ")[0] for line in lines] == sorted(line.partition(" = ")[0] for line in lines)
    assert f"eval_accuracy = {results['acc']}" in lines
    predictions = json.loads((out / "predictions.json").read_text())
    assert len(predictions) == 19
    assert set(predictions.values()) <= {"0", "1"}
    rows = [line.split("\t") for line in (out / "test_results.tsv").read_text().splitlines()]
    assert len(rows) == 7
    assert all(sum(map(float, row)) == pytest.approx(1, abs=1e-5) for row in rows)
    # The model that was left answers alike, with no other file.
    alone = {"config_file": None, "vocab_file": None, "init_checkpoint": out / "pytorch_model.bin"}
    run_here(run_glue, glue(files, "again", do_eval=True, do_predict=True, **alone))
    for name in ("predictions.json", "test_results.tsv", "MRPC.tsv"):
        assert (files / "again" / name).read_bytes() == (out / name).read_bytes()


def test_squad_writes_what_the_systems_write(files, capsys):
    run_here(run_squad, squad(files, "out", do_train=True, do_predict=True, do_eval=True))
    assert "exact_match" in capsys.readouterr().out
    predictions = json.loads((files / "out" / "predictions.json").read_text())
    assert list(predictions) == [f"q{index}" for index in range(13)]
    best = json.loads((files / "out" / "nbest_predictions.json").read_text())
    assert all(best[key][0]["text"] == text for key, text in predictions.items())
    assert not (files / "out" / "null_odds.json").exists()
    assert (files / "out" / "eval_results.txt").read_text().startswith("exact_match = ")


@BOTH
def test_accumulation_is_a_large_batch(files, module, words):
    changes = {"do_train": True, "max_steps": 4, "optimizer": "lamb"}
    run_here(module, words(files, "whole", **changes))
    run_here(module, words(files, "parts", gradient_accumulation_steps=4, **changes))
    assert_close(weights(files, "whole"), weights(files, "parts"), 2e-6)


@BOTH
def test_the_optimizer_on_the_host_trains_the_same_model(files, module, words):
    run_here(module, words(files, "beside", do_train=True, max_steps=5))
    run_here(module, words(files, "host", do_train=True, max_steps=5, optimize_on_cpu=True))
    assert_close(weights(files, "beside"), weights(files, "host"), 0)


@BOTH
def test_an_interrupted_run_goes_on_to_the_same_file(files, monkeypatch, module, words):
    dropout = json.loads((files / "config.json").read_text()) | {"hidden_dropout_prob": 0.1}
    (files / "config.json").write_text(json.dumps(dropout))
    run_here(module, words(files, "whole", do_train=True, max_steps=6))
    run_here(module, words(files, "parts", do_train=True, max_steps=6, save_checkpoints_steps=2))
    for path in (files / "parts").iterdir():
        if path.name != "ckpt_2.pt" and not path.name.startswith("ckpt_2."):
            path.unlink()
    if not (files / "parts" / "ckpt_2.pt").exists():
        pytest.fail("no checkpoint after two steps")
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in another process, whose temporary files have other names
    run_here(module, words(files, "parts", do_train=True, max_steps=6, resume_from_checkpoint=True))
    assert_close(weights(files, "whole"), weights(files, "parts"), 0)
    whole, parts = (files / name / "pytorch_model.bin" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.slow
@BOTH
def test_three_ranks_predict_what_one_does(files, module, words):
    run_here(module, words(files, "model", do_train=True))
    start = {"init_checkpoint": files / "model" / "pytorch_model.bin", "do_predict": True, "do_eval": True}
    sizes = {"eval_batch_size": 4} if module is run_glue else {"predict_batch_size": 4}
    run_here(module, words(files, "one", **start, **sizes))
    run(words(files, "three", **start, **sizes), processes=3, script=ROOT / f"{module.__name__}.py")
    names = ("predictions.json", "nbest_predictions.json", "test_results.tsv", "eval_results.txt")
    outputs = [
        [(files / name / each).read_bytes() for each in names if (files / name / each).exists()]
        for name in ("one", "three")
    ]
    assert len(outputs[0]) >= 2
    assert outputs[0] == outputs[1]


def test_several_seeds_are_summarised(files, capsys):
    run_here(run_glue, glue(files, "seeds", do_train=True, do_eval=True, n_seeds=2, seed=7))
    assert "| acc |" in capsys.readouterr().out
    summary = json.loads((files / "seeds" / "results.txt").read_text())
    single = [json.loads((files / "seeds" / f"seed_{seed}" / "results.txt").read_text())["acc"] for seed in (7, 8)]
    assert summary["acc"]["mean"] == pytest.approx(sum(single) / 2)


def test_a_pretrained_encoder_with_a_fresh_head(files, capsys):
    run_here(run_glue, glue(files, "first", do_train=True, max_steps=1))
    state = load(files / "first" / "pytorch_model.bin")
    encoder = {name: value for name, value in state["model"].items() if not name.startswith("classifier")}
    torch.save({"model": encoder}, files / "encoder.pt")
    run_here(run_squad, squad(files, "second", do_train=True, max_steps=1, init_checkpoint=files / "encoder.pt"))
    assert "left as initialised: qa_outputs.weight, qa_outputs.bias" in capsys.readouterr().out
    del encoder["bert.encoder.layer.1.output.dense.weight"]
    torch.save({"model": encoder}, files / "broken.pt")
    with pytest.raises(UsageError, match=r"1 tensors of the model are not in it \(bert.encoder.layer.1.output.dense"):
        run_here(run_squad, squad(files, "third", do_train=True, init_checkpoint=files / "broken.pt"))


BAD = [
    (run_glue, glue, {"do_train": True, "task_name": "mrcp"}, "--task_name mrcp: expected one of"),
    (run_glue, glue, {}, "nothing to do: add --do_train"),
    (run_glue, glue, {"do_train": True, "data_dir": "/nowhere"}, "/nowhere/train.tsv"),
    (run_glue, glue, {"do_train": True, "max_seq_length": 65}, "--max_seq_length 65: the model has positions for 64"),
    (run_glue, glue, {"do_eval": True, "vocab_file": None}, "--vocab_file: needed, no checkpoint was given"),
    (run_glue, glue, {"do_train": True, "train_batch_size": 7, "gradient_accumulation_steps": 2}, "not divisible"),
    (run_squad, squad, {"do_predict": True, "predict_file": None}, "--predict_file is needed"),
    (run_squad, squad, {"do_train": True, "train_file": None}, "--train_file is needed"),
    (run_squad, squad, {"do_train": True, "train_file": "/nowhere.json"}, "/nowhere.json"),
    (
        run_squad,
        squad,
        {"do_predict": True, "tune_threshold": True},
        "--tune_threshold: .*dev.json: SQuAD 1.1, expected 2.0",
    ),
]


@pytest.mark.parametrize(("module", "words", "changes", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_input(files, module, words, changes, message):
    with pytest.raises(UsageError, match=message):
        run_here(module, words(files, "out", **changes))
    assert not (files / "out" / "pytorch_model.bin").exists()


def test_a_cased_vocabulary_on_an_uncased_checkpoint(files):
    run_here(run_glue, glue(files, "model", do_train=True, max_steps=1))
    start = {"init_checkpoint": files / "model" / "pytorch_model.bin", "do_eval": True, "do_lower_case": False}
    with pytest.raises(UsageError, match="--do_lower_case false, but .* has do_lower_case true"):
        run_here(run_glue, glue(files, "out", **start))


def test_the_exit_code_of_bad_input_is_two(files, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(run_glue.main, run_glue.Config, glue(files, "out", do_train=True, task_name="mrcp"))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: --task_name mrcp")
