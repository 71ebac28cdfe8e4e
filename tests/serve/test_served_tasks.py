"""Checkpoints that are opened to be served."""

import re

import pytest
import torch

from bert.errors import UsageError
from bert.model.bert import BertForPreTraining
from bert.serve.tasks import ServedConfig, open_checkpoint


def served(path, task, **changes):
    return open_checkpoint(ServedConfig(str(path), task, max_seq_length=64, max_query_length=16, **changes))


@pytest.mark.parametrize(
    ("held", "asked", "part"),
    [("qa", "classify", "classifier"), ("classify", "qa", "qa_outputs")],
)
def test_a_checkpoint_of_another_task_says_which(write_model, held, asked, part):
    path = write_model(held)
    message = f"--checkpoint {path}: has no head for --task {asked} ({part}); it was trained for --task {held}"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        served(path, asked)


@pytest.mark.parametrize(("asked", "command"), [("classify", "run_glue.py"), ("qa", "run_squad.py")])
def test_a_checkpoint_without_head_says_what_trains_one(write_model, asked, command):
    path = write_model("embed")
    with pytest.raises(UsageError, match=f"has no head for --task {asked} .*; {command} trains one$"):
        served(path, asked)


@pytest.mark.parametrize("task", ["qa", "classify"])
def test_any_checkpoint_embeds(write_model, task):
    assert served(write_model(task), "embed").settings == {"task": "embed", "max_seq_length": 64, "pooling": "mean"}


def test_a_pretrained_checkpoint_embeds(write_model, tmp_path):
    path = write_model("embed")
    state = torch.load(path)
    from bert.model.config import BertConfig

    model = BertForPreTraining(BertConfig.from_dict(state["model_config"]))
    torch.save({**state, "model": model.state_dict()}, tmp_path / "pretrained.bin")
    embedding = served(tmp_path / "pretrained.bin", "embed").model
    expected = model.bert.encoder.layer[2].output.dense.weight
    assert torch.equal(embedding.bert.encoder.layer[2].output.dense.weight, expected)


def test_settings_of_questions(write_model):
    opened = served(write_model("qa"), "qa", doc_stride=7, max_answer_length=9, null_score_diff_threshold=-1.5)
    assert opened.settings == {
        "task": "qa",
        "max_seq_length": 64,
        "doc_stride": 7,
        "max_query_length": 16,
        "max_answer_length": 9,
        "version_2_with_negative": False,
        "null_score_diff_threshold": -1.5,
    }
    trained_on_2 = served(write_model("qa", state={"version_2_with_negative": True}), "qa")
    assert trained_on_2.settings["version_2_with_negative"] is True


@pytest.mark.parametrize(
    ("classes", "held", "given", "expected"),
    [
        (3, None, None, ["label_0", "label_1", "label_2"]),
        (3, ["x", "y", "z"], None, ["x", "y", "z"]),
        (3, ["x", "y", "z"], "a, b ,c", ["a", "b", "c"]),
        (1, None, None, []),  # a regression
        (1, None, "score", []),
    ],
)
def test_labels(write_model, classes, held, given, expected):
    path = write_model("classify", labels=classes, state={} if held is None else {"labels": held})
    assert served(path, "classify", labels=given).settings["labels"] == expected


@pytest.mark.parametrize("given", ["a,b", "a,b,c,d"])
def test_the_wrong_number_of_labels(write_model, given):
    count = given.count(",") + 1
    message = f"--labels {given}: {count} labels, expected 3, one for each class"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        served(write_model("classify"), "classify", labels=given)


@pytest.mark.parametrize("given", ["a,b,a", "a,,b"])
def test_labels_that_cannot_be_told_apart(write_model, given):
    with pytest.raises(UsageError, match=f"^--labels {given}: expected 3 different names$"):
        served(write_model("classify"), "classify", labels=given)


def test_the_model_neither_drops_nor_learns(write_model):
    model = served(write_model("qa"), "qa").model
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_length": 65}, "--max_seq_length 65: the model has positions for 64"),
        ({"max_seq_length": 19}, "--max_seq_length 19: expected more than --max_query_length 16 + 3"),
    ],
)
def test_lengths(write_model, changes, message):
    settings = {"max_seq_length": 64, "max_query_length": 16} | changes
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        open_checkpoint(ServedConfig(str(write_model("qa")), "qa", **settings))


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path}/none.bin"):
        served(tmp_path / "none.bin", "qa")


def test_a_vocabulary_of_another_size(write_model, tmp_path):
    path = write_model("qa")
    state = torch.load(path)
    state["model_config"]["vocab_size"] = 999
    torch.save(state, path)
    with pytest.raises(UsageError, match="vocab_size 999, expected .*, the pieces of the vocabulary"):
        served(path, "qa")
