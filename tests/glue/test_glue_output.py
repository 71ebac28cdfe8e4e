import json
import math
from pathlib import Path

import numpy as np
import pytest

from bert.errors import UsageError
from bert.finetune.output import write_eval_results
from bert.glue import Example, find_task
from bert.glue.output import (
    summarise_seeds,
    write_predictions,
    write_results,
    write_submission,
    write_test_results,
)

LOGITS = np.array([[0.0, math.log(3.0)], [2.0, 2.0], [0.0, -200.0]], np.float32)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_results_are_one_json_object(tmp_path):
    results = {"global_step": np.int64(343), "train:loss": np.float32(0.5), "eval:loss": math.nan, "acc": 0.8455}
    write_results(tmp_path / "out", results)
    expected = '{"global_step": 343, "train:loss": 0.5, "eval:loss": "NaN", "acc": 0.8455}\n'
    assert (tmp_path / "out/results.txt").read_text() == expected


def test_eval_results_are_sorted_lines(tmp_path):
    write_eval_results(
        tmp_path, {"loss": 0.505248, "global_step": 343, "eval_loss": np.float64(0.5), "eval_accuracy": 1.0}
    )
    expected = "eval_accuracy = 1.0\neval_loss = 0.5\nglobal_step = 343\nloss = 0.505248\n"
    assert (tmp_path / "eval_results.txt").read_text() == expected


def test_predictions_are_labels_by_guid(tmp_path):
    examples = [Example(f"dev-{number}", "a", "b", "entailment") for number in (7, 8, 9)]
    write_predictions(tmp_path, LOGITS, find_task("rte"), examples)
    expected = '{\n    "dev-7": "not_entailment",\n    "dev-8": "entailment",\n    "dev-9": "entailment"\n}\n'
    assert (tmp_path / "predictions.json").read_text() == expected
    with pytest.raises(ValueError, match="zip"):
        write_predictions(tmp_path, LOGITS, find_task("rte"), examples[:2])
    assert json.loads((tmp_path / "predictions.json").read_text()).keys() == {"dev-7", "dev-8", "dev-9"}


def test_test_results_are_probabilities(tmp_path):
    write_test_results(tmp_path, LOGITS, find_task("mrpc"))
    assert (tmp_path / "test_results.tsv").read_text() == "0.25\t0.75\n0.5\t0.5\n1.0\t0.0\n"
    logits = np.random.default_rng(0).normal(0, 3, (50, 3)).astype(np.float32)
    write_test_results(tmp_path, logits, find_task("mnli"))
    lines = (tmp_path / "test_results.tsv").read_text().splitlines()
    exponentials = np.exp(logits.astype(np.float64))
    expected = (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32)
    assert [[np.float32(word) for word in line.split("\t")] for line in lines] == pytest.approx(expected, rel=1e-6)


def test_test_results_of_a_regression_are_values(tmp_path):
    write_test_results(tmp_path, np.array([[3.8], [-0.1]], np.float32), find_task("sts-b"))
    assert (tmp_path / "test_results.tsv").read_text() == "3.8\n-0.1\n"


@pytest.mark.parametrize(
    ("task", "file", "answers"),
    [
        ("cola", "CoLA.tsv", ["1", "0", "0"]),
        ("qnli", "QNLI.tsv", ["not_entailment", "entailment", "entailment"]),
    ],
)
def test_submissions(tmp_path, task, file, answers):
    write_submission(tmp_path, LOGITS, find_task(task))
    expected = "index\tprediction\n" + "".join(f"{index}\t{answer}\n" for index, answer in enumerate(answers))
    assert (tmp_path / file).read_text() == expected


def test_submitted_values_are_clipped_to_the_scale(tmp_path):
    write_submission(tmp_path, np.array([[3.80049], [-0.1], [5.2]]), find_task("sts-b"))
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t3.800\n1\t0.000\n2\t5.000\n"


def test_names_of_submissions(tmp_path):
    for task in ["cola", "sst-2", "mrpc", "qqp", "mnli", "mnli-mm", "qnli", "rte", "wnli", "ax", "xnli"]:
        write_submission(tmp_path, np.zeros((1, 3)), find_task(task))
    expected = "AX CoLA MNLI-m MNLI-mm MRPC QNLI QQP RTE SST-2 WNLI"  # none for xnli
    assert names(tmp_path) == [f"{name}.tsv" for name in expected.split()]


def test_an_error_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write_results(tmp_path, {"acc": 1})
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"/results.txt: No space left on device"):
        write_results(tmp_path, {"acc": 2})
    assert names(tmp_path) == ["results.txt"]
    assert (tmp_path / "results.txt").read_text() == '{"acc": 1}\n'


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"/file/results.txt: (File exists|Not a directory)"):
        write_results(tmp_path / "file", {})


def test_seeds():
    table, values = summarise_seeds(
        [
            {"seed": 1, "acc": 0.80, "eval_loss": 0.5},
            {"seed": 2, "acc": 0.90, "eval_loss": 0.3},
            {"seed": 3, "acc": 0.70, "eval_loss": 0.4},
        ]
    )
    assert values["acc"] == pytest.approx({"mean": 0.8, "std": 0.1, "best": 0.9, "seed": 2})
    assert values["eval_loss"] == pytest.approx({"mean": 0.4, "std": 0.1, "best": 0.3, "seed": 2})
    assert table == (
        "| metric | mean | std | best | seed |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| acc | 0.8000 | 0.1000 | 0.9000 | 2 |\n"
        "| eval_loss | 0.4000 | 0.1000 | 0.3000 | 2 |\n"
    )


def test_one_seed_without_a_number():
    table, values = summarise_seeds([{"mcc": 0.5}])
    assert values == {"mcc": {"mean": 0.5, "std": 0.0, "best": 0.5}}
    assert table.splitlines()[-1] == "| mcc | 0.5000 | 0.0000 | 0.5000 |  |"
