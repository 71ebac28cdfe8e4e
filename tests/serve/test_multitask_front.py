"""The text front of several tasks, with logits set by hand in place of an engine."""

import json
import math

import numpy as np
import pytest

from bert.errors import UsageError
from bert.serve.model_config import ServingConfig, engine_config, text_config
from bert.serve.text import build_front
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer


@pytest.fixture
def front(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "a", "b", "c"]) + "\n")
    return build_front({"task": "multitask", "max_seq_length": 8}, BertTokenizer(tmp_path / "vocab.txt"))


def facts(**values):
    return np.array(json.dumps(values).encode(), object)


def test_a_task_and_its_labels(front):
    """The labels come with the logits, of one engine at one time."""
    prepared = front.prepare({"task": "rte", "text": "a b", "text_pair": "c"})
    (one,) = prepared.inputs
    assert one.task == "rte"
    assert (len(one.ids), one.types.tolist()) == (6, [0, 0, 0, 0, 1, 1])  # [CLS] a b [SEP] c [SEP]
    reply = front.reply(prepared, [[np.array([math.log(3), math.log(1)], np.float32), facts(labels=["yes", "no"])]])
    assert (reply["label"], reply["probability"], reply["tasks"]) == ("yes", pytest.approx(0.75), "")
    assert [each["label"] for each in json.loads(reply["scores"])] == ["yes", "no"]


def test_a_regression(front):
    reply = front.reply(front.prepare({"task": "sts", "text": "a"}), [[np.array([2.5], np.float32), facts(labels=[])]])
    assert (reply["label"], reply["probability"]) == ("2.5000", 1.0)


def test_without_a_task_the_reply_lists_them(front):
    listed = {"tasks": [{"name": "rte", "labels": ["yes", "no"]}], "refused": []}
    prepared = front.prepare({"text": "a"})
    assert prepared.inputs[0].task == ""
    reply = front.reply(prepared, [[np.zeros(1, np.float32), facts(**listed)]])
    assert json.loads(reply["tasks"]) == listed
    assert (reply["label"], reply["scores"]) == ("", "[]")


def test_a_blank_name(front):
    with pytest.raises(UsageError, match="^task ' ': expected some text$"):
        front.prepare({"task": " ", "text": "a"})


def test_the_configurations():
    """A kept answer might be that of a task that has gone, so there is no cache."""
    serving = ServingConfig()
    front = text_config("bert_multitask", "multitask", serving)
    assert [each["name"] for each in front["input"]] == ["task", "text", "text_pair", "attempt"]
    assert [each["name"] for each in front["output"]] == ["label", "probability", "scores", "tasks"]
    assert front["response_cache"] == {"enable": False}
    settings = {"outputs": 1, "per_token": False, "task": "multitask"}
    engine = engine_config("bert_multitask_engine", settings, serving, by_tokens=True)
    assert [each["name"] for each in engine["input"]] == ["input__0", "input__1", "input__2", "task"]
    assert [each["name"] for each in engine["output"]] == ["output__0", "facts"]
