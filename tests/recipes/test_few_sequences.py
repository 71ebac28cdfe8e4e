"""Fewer sequences than ranks: every command ends as with one rank, though a rank has no batch to predict."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.conftest import ROOT, logged, pretraining_flags, run  # pyright: ignore[reportMissingImports]

from bert.checkpoint import load
from bert.data.formats.table import read_shard, write_shard
from bert.data.shard import select

COMMON = {
    "max_steps": 2,
    "global_batch_size": 4,
    "learning_rate": 1e-3,
    "tensorboard_dir": "none",
    "disable_progress_bar": True,
    "device": "cpu",
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
}
# Gradients that are 0 in theory: Adam blows their rounding errors up.
UNSTABLE = ("key.bias", "qa_outputs.bias")


@pytest.fixture
def files(corpus: Path, tmp_path: Path) -> Path:
    """Three training and one or two other sequences of every kind."""
    (tmp_path / "MRPC").mkdir()
    for name, count in (("train", 3), ("dev", 2), ("test", 1)):
        rows = [f"{index % 2}\t{index}\t{index}\tba da {index} .\tfa {'ga ' * index}." for index in range(count)]
        header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
        (tmp_path / "MRPC" / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    question = {"id": "q", "question": "ba da", "answers": [{"text": "fa ga", "answer_start": 3}]}
    article = {"title": "t", "paragraphs": [{"context": "ba fa ga da .", "qas": [question]}]}
    (tmp_path / "squad.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
    vocab = {piece: i for i, piece in enumerate((corpus / "vocab.txt").read_text().split("\n"))}
    shard = read_shard(corpus / "shards_32" / "part_1_training.hdf5", vocab)
    for folder, rows in (("shards", 3), ("held_out", 1)):
        (tmp_path / folder).mkdir()
        write_shard(tmp_path / folder / "part.hdf5", select(shard, np.arange(rows)), 32, 5, vocab)
    return tmp_path


def commands(files: Path, corpus: Path, output: Path) -> list[list[str]]:
    """Return run_glue.py, run_squad.py, run_multi_task.py and run_pretraining.py, each with its flags."""
    model: dict[str, object] = {
        "vocab_file": corpus / "vocab.txt",
        "config_file": corpus / "config_without_dropout.json",
        "attention": "sdpa",  # the default compiles a softmax first
    }
    squad = {"train_file": files / "squad.json", "predict_file": files / "squad.json", "skip_cache": True}
    own = {
        "glue": {"task_name": "mrpc", "data_dir": files / "MRPC", "max_seq_length": 32},
        "squad": {**squad, "max_seq_length": 32, "max_query_length": 8, "doc_stride": 8},
        "multi_task": {"tasks": "mrpc", "multi": True, "data_dir": files, "max_seq_length": 32},
    }
    lists = []
    for name, flags in own.items():
        place = {"output_dir": output / name, "json_summary": output / f"{name}.json"}
        values = {**COMMON, **model, **flags, **place}
        lists.append([f"run_{name}.py", *(word for key, value in values.items() for word in (f"--{key}", str(value)))])
    shards = {"input_dir": files / "shards", "eval_dir": files / "held_out", "max_steps": 2, "global_batch_size": 4}
    changes = {**shards, **model, "train_batch_size": 4, "num_workers": 0}
    return [*lists, ["run_pretraining.py", *pretraining_flags(corpus, output / "pretraining", **changes)]]


@pytest.mark.slow
def test_a_rank_without_a_batch_changes_nothing(files, corpus, monkeypatch):
    for output in ("one", "two"):
        (files / output).mkdir()
    for script, *words in commands(files, corpus, files / "one"):
        module = __import__(script.removesuffix(".py"))
        monkeypatch.setattr(sys, "argv", [script, *words])
        module.run_command(module.main, module.Config)
    words = [word for command in commands(files, corpus, files / "two") for word in ("+", *command)]
    run(words[2:], processes=2, script=ROOT / words[1])
    names = ("glue/predictions.json", "squad/predictions.json", "multi_task/MRPC/predictions.json")
    for name in names:
        assert (files / "two" / name).read_bytes() == (files / "one" / name).read_bytes()
    for name in ("glue", "squad", "multi_task"):
        one, two = (load(files / each / name / "pytorch_model.bin")["model"] for each in ("one", "two"))
        for key in one:
            if not key.endswith(UNSTABLE):
                torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-5)
    events = (logged(files / each / "pretraining" / "dllogger.json") for each in ("one", "two"))
    one, two = (next(event["data"] for event in each if "eval_mlm_loss" in event["data"]) for each in events)
    assert one["eval_mlm_loss"] > 0 and two == pytest.approx(one, rel=1e-4)
