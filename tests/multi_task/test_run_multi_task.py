"""run_multi_task.py on tiny data: published command, files, resume, ranks, accumulation, frozen parts, bad input."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from recipes.conftest import ROOT, run  # pyright: ignore[reportMissingImports]

import run_multi_task
from bert.checkpoint import load
from bert.config import parse_args, run_command
from bert.errors import UsageError
from bert.model.bert import BertForMultiTask
from bert.model.config import BertConfig
from bert.multi_task.tasks import MultiTaskConfig, find_tasks, mismatched
from bert.tokenization import BertTokenizer


def flags(files: Path, output: str, **changes: object) -> list[str]:
    values: dict[str, object] = {
        "output_dir": files / output,
        "data_dir": files / "glue",
        "vocab_file": files / "vocab.txt",
        "config_file": files / "pals_config.json",
        "init_checkpoint": files / "bert.bin",
        "multi": True,
        "tasks": "cola,sts,mnli",
        "max_seq_length": 32,
        "train_batch_size": 8,
        "learning_rate": 1e-3,
        "json_summary": files / f"{output}.json",
        "tensorboard_dir": "none",
        "disable_progress_bar": True,
        "device": "cpu",
        **changes,
    }
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def run_here(words: list[str]) -> None:
    run_multi_task.main(parse_args(run_multi_task.Config, words))


def weights(files: Path, output: str) -> dict[str, torch.Tensor]:
    return load(files / output / "pytorch_model.bin")["model"]


def without_dropout(files: Path) -> None:
    config = json.loads((files / "pals_config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (files / "pals_config.json").write_text(json.dumps(config))


def test_the_published_command(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    command = """--seed 42 --output_dir out/pals --tasks all --sample anneal --multi --do_train --do_eval
        --do_lower_case --data_dir glue/ --vocab_file vocab.txt --bert_config_file pals_config.json
        --init_checkpoint bert.bin --max_seq_length 128 --train_batch_size 32 --learning_rate 2e-5
        --num_train_epochs 25.0 --gradient_accumulation_steps 1"""
    run_here([*command.split(), "--max_steps", "3", "--json_summary", "out/log.json", "--disable_progress_bar"])
    out = Path("out/pals")
    table = (out / "results.md").read_text()
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    names = ["CoLA", "MRPC", "MNLI", "RTE", "STS-B", "SST-2", "QQP", "QNLI", "MNLI-mm"]
    assert [row[0] for row in rows] == ["task", "---", *names, "mean"]
    assert [row[1] for row in rows[2:-1]] == ["mcc", "acc", "acc", "acc", "pearson", "acc", "acc", "acc", "acc"]
    assert sum(int(row[4]) for row in rows[2:-2]) == int(rows[-1][4]) == 96  # 3 steps of 32
    assert float(rows[-1][2]) == pytest.approx(np.mean([float(row[2]) for row in rows[2:-2]]), abs=1e-4)
    for name in names:
        assert "eval_loss = " in (out / name / "eval_results.txt").read_text()
    tokenizer = {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (out / "best_model").iterdir()} == {"pytorch_model.bin", "config.json", *tokenizer}
    logged = [
        json.loads(line.removeprefix("DLLL ")).get("data", {}) for line in Path("out/log.json").read_text().splitlines()
    ]
    assert any("STS-B/pearson" in data for data in logged)
    assert list((out / "tensorboard").iterdir())


def test_the_best_model_answers_alike_and_its_scores_are_right(files):
    """Scores against scikit-learn and numpy, on answers of the model for one padded example at a time."""
    tasks = {"tasks": "cola,sts,mnli,custom:reviews", "steps_per_epoch": 4}
    run_here(flags(files, "out", do_train=True, do_eval=True, num_train_epochs=3, sample="prop", **tasks))
    alone = {"config_file": None, "vocab_file": None, "multi": None}
    best = files / "out" / "best_model" / "pytorch_model.bin"
    run_here(flags(files, "again", do_eval=True, do_predict=True, init_checkpoint=best, **alone, **tasks))
    first, second = (json.loads((files / name / "results.txt").read_text()) for name in ("out", "again"))
    assert first["tasks"] == second["tasks"] and first["mean_score"] == second["mean_score"]
    assert (files / "out" / "results.md").read_text() == (files / "again" / "results.md").read_text()
    means = [
        json.loads(line.removeprefix("DLLL ")).get("data", {}).get("mean_score", -1)
        for line in (files / "out.json").read_text().splitlines()
    ]
    assert first["mean_score"] == max(means) and len([mean for mean in means if mean > -1]) == 3

    state = load(best)
    assert state["best"]["mean"] == first["mean_score"]
    model = BertForMultiTask(BertConfig.from_dict(state["model_config"]), [2, 1, 3, 5])
    model.load_state_dict(state["model"])
    model.eval()
    tokenizer = BertTokenizer(files / "vocab.txt", True)

    def logits(task: int, *texts: str) -> np.ndarray:
        parts = [
            ["[CLS]", *tokenizer.tokenize(texts[0]), "[SEP]"],
            *([*tokenizer.tokenize(x), "[SEP]"] for x in texts[1:]),
        ]
        ids = torch.tensor([tokenizer.convert_tokens_to_ids([piece for part in parts for piece in part])])
        types = torch.tensor([[number for number, part in enumerate(parts) for _ in part]])
        with torch.no_grad():
            return model(ids, types, task=task)[0].numpy()

    cola = [line.split("\t") for line in (files / "glue/CoLA/dev.tsv").read_text().splitlines()]
    answers = [int(logits(0, row[3]).argmax()) for row in cola]
    assert json.loads((files / "again/CoLA/predictions.json").read_text()) == {
        f"dev-{number}": str(answer) for number, answer in enumerate(answers)
    }
    mcc = sklearn.metrics.matthews_corrcoef([int(row[1]) for row in cola], answers)
    assert first["tasks"]["CoLA"]["mcc"] == pytest.approx(mcc)
    sts = [line.split("\t") for line in (files / "glue/STS-B/dev.tsv").read_text().splitlines()[1:]]
    values = [float(logits(1, row[0], row[1])[0]) for row in sts]
    pearson = np.corrcoef(values, [float(row[2]) for row in sts])[0, 1]
    assert first["tasks"]["STS-B"]["pearson"] == pytest.approx(pearson, abs=1e-4)
    for path in ("CoLA/CoLA.tsv", "STS-B/STS-B.tsv", "MNLI/MNLI-m.tsv", "MNLI-mm/MNLI-mm.tsv"):
        assert (files / "again" / path).read_text().startswith("index\tprediction\n0\t")
    assert set(json.loads((files / "again/reviews/predictions.json").read_text()).values()) <= set("01234")


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_resumed_run_ends_with_the_same_files(files, monkeypatch, cut):
    steps = {
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "max_steps": 5,
        "steps_per_epoch": 2,
        "sample": "anneal",
    }
    words = {**steps, "tasks": "rte,cola", "mixed_batches": cut == 3, "keep_checkpoints": 9}
    run_here(flags(files, "whole", **words))
    run_here(flags(files, "parts", **words, save_checkpoints_steps=1))
    for path in (files / "parts").iterdir():
        if path.is_file() and not path.name.startswith(f"ckpt_{cut}."):
            path.unlink()
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in another process, whose temporary files have other names
    run_here(flags(files, "parts", **words, resume_from_checkpoint=True))
    for folder in ("", "best_model"):
        whole, parts = (load(files / name / folder / "pytorch_model.bin") for name in ("whole", "parts"))
        different = [name for name, value in whole.pop("model").items() if not torch.equal(value, parts["model"][name])]
        assert different == []
        del parts["model"]
        assert whole == parts
    for name in ("results.md", "CoLA/predictions.json"):
        assert (files / "whole" / name).read_bytes() == (files / "parts" / name).read_bytes()


@pytest.mark.parametrize("mixed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_accumulation_and_ranks_train_the_model_of_one_batch(files, mixed):
    """Of eight tasks a mixed step of four sequences uses some, a rank fewer, and a micro-batch one."""
    without_dropout(files)
    words = {"do_train": True, "max_steps": 5, "tasks": "all", "mixed_batches": mixed, "sample": "sqrt"}
    words |= {"skip_checkpoint": True, "optimizer": "lamb"}
    run_here(flags(files, "whole", **words, train_batch_size=4))
    run_here(flags(files, "parts", **words, train_batch_size=4, gradient_accumulation_steps=4))
    if mixed:
        ranks = flags(files, "ranks", **words, train_batch_size=2, gradient_accumulation_steps=2)
        run(ranks, processes=2, script=ROOT / "run_multi_task.py")
    start, whole = load(files / "whole" / "pytorch_model.bin"), weights(files, "whole")
    for output in ("parts", "ranks")[: 1 + mixed]:
        for name, value in weights(files, output).items():
            if "key.bias" not in name:  # its gradient is 0 in theory, and LAMB blows rounding up
                torch.testing.assert_close(value, whole[name], rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert start["progress"]["steps"] == 5 and sum(start["progress"]["examples"]) == 20


def test_freeze_trains_adapters_heads_and_norms_only(files):
    words = {"tasks": "cola,sts,mnli", "json_summary": "none"}
    run_here(flags(files, "out", **words, do_train=True, do_eval=True, max_steps=4, freeze=True))
    before, after = torch.load(files / "bert.bin"), weights(files, "out")
    for name, value in before.items():
        assert torch.equal(value, after[name]) != ("LayerNorm" in name), name
    assert not any(torch.equal(after[f"bert.adapters.{task}.up.bias"], torch.zeros(24)) for task in range(3))
    # What was trained, written alone, and the base answer alike.
    alone = {"multi": None, "config_file": files / "bert_config.json", "do_eval": True}
    alone["adapter_checkpoint"] = files / "out" / "best_model" / "adapter.safetensors"
    run_here(flags(files, "again", **words, **alone))
    assert (files / "again" / "results.md").read_text() == (files / "out" / "results.md").read_text()


def test_the_attention_of_pals_has_a_rate_of_its_own(files):
    words = {"do_train": True, "max_steps": 2, "lr_schedule": "constant", "warmup_proportion": 0.0, "optim": "other"}
    run_here(flags(files, "out", **words, h_aug=18, attention_learning_rate=2e-4))
    state = load(files / "out" / "ckpt_2.pt")
    groups = state["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([1e-3, 1e-3, 2e-4, 2e-4])
    assert [len(group["params"]) for group in groups[2:]] == [18, 18]  # query, key, value of 2 layers for 3 tasks
    assert state["model"]["bert.adapters.0.down.weight"].shape == (18, 24)
    assert state["model_config"]["hidden_size_aug"] == 18


BAD = [
    ({"tasks": "cola,colla"}, "--tasks colla: expected one of cola, sst-2"),
    ({"tasks": "sts,stsb"}, "--tasks sts,stsb: sts stands for data that is listed twice"),
    ({"tasks": "cola,mnli,mnli-mm"}, "mnli stands for data that is listed twice"),
    ({"tasks": "cola,wnli"}, "no folder WNLI, expected one for the task wnli"),
    ({"tasks": "cola,custom:nowhere"}, "no folder nowhere, expected one for the task custom:nowhere"),
    ({"tasks": "custom:../x"}, "--tasks custom:../x: expected custom:FOLDER"),
    ({"tasks": "custom:reviews", "text_column": "x"}, "column 'x' is missing"),
    ({"text_column": "x"}, "--text_column: --tasks is cola,sts,mnli, only custom accepts this flag"),
    ({"tasks": "ax"}, "--tasks ax: has no training examples"),
    ({"multi": None}, "has no heads of several tasks, expected --multi, to start from a plain BERT"),
    ({"do_eval": True, "do_train": None}, "tensors of the model are not in it (bert.adapters.0.down.weight"),
    ({"optim": "other", "config_file": "bert_config.json"}, "--optim other: the model has no PALs"),
    ({"h_aug": "wide"}, "--h_aug wide: expected a whole number from 1, or n/a"),
    ({"h_aug": "7"}, "size 7 is not divisible by its 6 heads"),
    ({"do_train": None}, "nothing to do: add --do_train"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(files, monkeypatch, changes, message):
    monkeypatch.chdir(files)
    with pytest.raises(UsageError) as error:
        run_here(flags(files, "out", **{"do_train": True, "max_steps": 1, **changes}))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (files / "out").exists() and not (files / "out.json").exists()


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({"tasks": "all"}, ["CoLA", "MRPC", "MNLI", "RTE", "STS-B", "SST-2", "QQP", "QNLI"]),
        ({"tasks": "inf"}, ["QNLI", "MNLI", "RTE"]),
        ({"tasks": "single"}, ["MRPC"]),
        ({"tasks": "single", "task_id": 4}, ["STS-B"]),
        ({"tasks": "RTE, mnli-mm,custom:reviews"}, ["RTE", "MNLI-mm", "reviews"]),
    ],
)
def test_lists_of_tasks(shared_glue, flags, names):
    places = find_tasks(MultiTaskConfig(f"{shared_glue}/", **flags))
    assert [place.name for place in places] == names
    assert [place.head for place in places] == list(range(len(names)))
    assert [place.name for place in mismatched(places)] == ["MNLI-mm"] * ("MNLI" in names)


def test_bad_input_ends_the_command_with_2(files, capsys):
    with pytest.raises(SystemExit) as end:
        run_command(run_multi_task.main, run_multi_task.Config, flags(files, "out", do_eval=True, tasks="nope"))
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: --tasks nope: expected one of cola, ")


def test_other_tasks_than_those_of_the_checkpoint_are_refused(files):
    run_here(flags(files, "out", do_train=True, max_steps=1, tasks="cola,rte"))
    model = files / "out" / "pytorch_model.bin"
    for tasks in ("rte,cola", "cola,mrpc"):  # the same shapes
        with pytest.raises(UsageError, match="has learned CoLA, RTE in this order; expected the same tasks"):
            run_here(flags(files, "again", do_eval=True, tasks=tasks, init_checkpoint=model, multi=None))
    with pytest.raises(UsageError, match="has learned CoLA, RTE in this order"):
        run_here(flags(files, "out", do_train=True, max_steps=2, tasks="rte,cola", resume_from_checkpoint=True))
    with pytest.raises(UsageError, match="the checkpoint has trained other parameters"):
        words = {"tasks": "cola,rte", "optim": "other", "resume_from_checkpoint": True}
        run_here(flags(files, "out", do_train=True, max_steps=2, **words))
