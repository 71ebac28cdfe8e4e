"""The GLUE benchmark: both sides read the same rows, and the table holds their scores."""

import json

import pytest

from benchmarks import glue
from benchmarks.glue import GlueBenchmarkConfig, read_choice
from benchmarks.glue_peer import read_rows
from bert.config import parse_args
from bert.errors import UsageError
from bert.glue import read_examples


@pytest.fixture
def config(tmp_path) -> GlueBenchmarkConfig:
    """A data folder with SST-2, CoLA, which has no header, and MRPC, which has a mark of byte order and quotes."""
    rows = {
        "SST-2": ["sentence\tlabel", *(f"film {row}\u2028\t{row % 2}" for row in range(6))],
        "CoLA": [f'gj04\t{row % 2}\t\tA "ship" sails {row}.' for row in range(6)],
        "MRPC": [
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            *(f'{r % 2}\t1\t2\t" he {r}\tshe' for r in range(6)),
        ],
    }
    for name, lines in rows.items():
        (tmp_path / name).mkdir()
        for split in ("train", "dev"):
            (tmp_path / name / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    words = {"data_dir": tmp_path, "init_checkpoint": "none", "output_dir": tmp_path / "out"}
    argv = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return parse_args(GlueBenchmarkConfig, [*argv, "--tasks", "mrpc", "sst-2/2", "--seeds", "1", "2"])


@pytest.mark.parametrize("name", ["sst-2", "cola", "mrpc", "sst-2/4", "cola/3"])
def test_both_sides_read_the_same_rows(config, name):
    task, folder = read_choice(config, name)
    layout = task.layouts["train"]
    theirs = read_rows(
        folder / "train.tsv", {"columns": layout.names, "text": list(layout.text), "label": layout.label}
    )
    ours = read_examples(task, folder, "train")
    assert theirs == [([text for text in (each.text_a, each.text_b) if text], each.label) for each in ours]
    assert len(ours) == {"sst-2/4": 2, "cola/3": 2}.get(name, 6)  # rows 0 and 4, 0 and 3


def test_the_table_and_a_second_start(config, monkeypatch, capsys):
    calls = []

    def run(name, predictions):
        def runner(config, task, folder, output, seed):
            calls.append((name, task.name, seed))
            return predictions

        return runner

    monkeypatch.setattr(glue, "run_ours", run("ours", list("010101")))
    monkeypatch.setattr(glue, "run_peer", run("theirs", list("010111")))
    monkeypatch.setattr(glue, "cpu_seconds", iter(range(0, 100, 5)).__next__)
    for _ in range(2):
        glue.main(config)
    assert calls == [(side, task, seed) for task in ("mrpc", "sst-2") for seed in (1, 2) for side in ("ours", "theirs")]
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][-3:]
    assert table == [
        "| MRPC | 6 | 6 | acc | 1.000 (1.000, 1.000) | 0.833 (0.833, 0.833) | 1.00 x |",
        "| MRPC | 6 | 6 | f1 | 1.000 (1.000, 1.000) | 0.857 (0.857, 0.857) | 1.00 x |",
        "| SST-2 | 3 | 6 | acc | 1.000 (1.000, 1.000) | 0.833 (0.833, 0.833) | 1.00 x |",
    ]


def test_the_recipe_reaches_the_peer(config, tmp_path, monkeypatch):
    task, folder = read_choice(config, "mrpc")
    monkeypatch.setattr(glue, "call", lambda command, output: (output / "predictions.json").write_text('["0"]'))
    (tmp_path / "run").mkdir()
    assert glue.run_peer(config, task, folder, tmp_path / "run", 7) == ["0"]
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["text"] == ["#1 String", "#2 String"] and recipe["label"] == "Quality" and recipe["seed"] == 7
    assert (recipe["learning_rate"], recipe["epochs"], recipe["weight_decay"]) == (5e-5, 3.0, 0.01)


@pytest.mark.parametrize("name", ["sts-b", "sst-2/0", "sst-2/x", "nothing"])
def test_tasks_that_there_are_not(config, name):
    with pytest.raises(UsageError, match=f"^--tasks {name}: expected"):
        read_choice(config, name)
    config.peer_python = "/no/python"
    with pytest.raises(UsageError, match="--peer_python /no/python: expected a Python with transformers"):
        glue.main(config)
