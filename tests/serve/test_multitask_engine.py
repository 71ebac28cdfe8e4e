"""Tasks that share an engine, come and go: against the models that they were trained in."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from serve.adapters import (  # pyright: ignore[reportMissingImports]
    TASKS,
    logits_of,
    save_adapter_file,
    save_base,
    save_multitask,
)
from serve.conftest import stream_of  # pyright: ignore[reportMissingImports]

from bert.config import parse_args
from bert.errors import UsageError
from bert.serve.adapter_folder import AdapterFolder
from bert.serve.multitask import MultiTaskEngine
from bert.serve.repository import ExportConfig, export

KINDS = {
    "cola": ("pals", ["bad", "good"]),
    "mnli": ("houlsby", ["a", "b", "c"]),
    "mrpc": ("low_rank", ["no", "yes"]),
    "plain": ("none", ["x", "y"]),
    "qnli": ("pals", ["no", "yes"]),
    "sts": ("top_attn", []),
}


def run(checkpoint, output, **changes):
    flags = {"checkpoint": checkpoint, "task": "multitask", "output": output, "max_seq_length": 64, **changes}
    lines: list[str] = []
    export(parse_args(ExportConfig, [f"--{name}={value}" for name, value in flags.items()]), lines.append)
    return lines


@pytest.fixture
def base(tmp_path, vocab_file):
    return save_base(tmp_path / "base.bin", vocab_file)


@pytest.fixture
def trained(tmp_path, base):
    """Adapter files of several kinds in a folder: the models that they were trained in."""
    (tmp_path / "adapters").mkdir()
    return {
        name: save_adapter_file(tmp_path / "adapters" / f"{name}.safetensors", base, *KINDS[name], seed=number)
        for number, name in enumerate(KINDS)
    }


def differences(engine, models, lengths=(5, 31, 2, 64, 8, 1, 12, 20, 3, 3)):
    """Ask the engine all at once, tasks mixed; the largest difference of a row from its trained model."""
    names = [sorted(models)[number % len(models)] for number in range(len(lengths))]
    ids, types, offsets = stream_of(list(lengths), 40)
    (got,) = engine(ids, types, offsets, names)
    worst = 0.0
    for number, name in enumerate(names):
        one = slice(offsets[number], offsets[number + 1])
        model, *task = models[name] if isinstance(models[name], tuple) else (models[name],)
        expected = logits_of(model, ids[one], types[one], *task)
        assert engine.width(name) == len(expected)
        assert not got[number, len(expected) :].any()
        worst = max(worst, np.abs(got[number, : len(expected)] - expected).max())
    return worst


def test_a_base_with_adapters_of_every_kind(tmp_path, base, trained):
    models = tmp_path / "models"
    lines = run(tmp_path / "base.bin", models, adapters=tmp_path / "adapters")
    assert sum("largest difference" in line for line in lines) == 7
    assert lines[0].startswith("torch fp32, one sequence: largest difference ")
    engine = MultiTaskEngine.load(models / "bert_multitask_engine" / "1")
    assert differences(engine, trained) < 1e-4
    engine.settings["batch_tokens"] = 40  # several parts
    assert differences(engine, trained) < 1e-4
    listed = json.loads(engine.facts(""))
    assert listed == {"tasks": [{"name": name, "labels": KINDS[name][1]} for name in KINDS], "refused": []}
    front = json.loads((models / "bert_multitask" / "1" / "settings.json").read_text())
    assert (front["engine"], front["task"]) == ("bert_multitask_engine", "multitask")


def test_a_checkpoint_of_several_tasks(tmp_path, vocab_file):
    model = save_multitask(tmp_path / "tasks.bin", vocab_file)
    run(tmp_path / "tasks.bin", tmp_path / "models")
    engine = MultiTaskEngine.load(tmp_path / "models" / "bert_multitask_engine" / "1")
    assert differences(engine, {name: (model, number) for number, (name, _) in enumerate(TASKS)}) < 1e-4
    assert json.loads(engine.facts("MNLI")) == {"labels": ["a", "b", "c"]}
    save_multitask(tmp_path / "published.bin", vocab_file, "low_rank", named=False)
    run(tmp_path / "published.bin", tmp_path / "models", precision="bf16")  # the next version
    engine = MultiTaskEngine.load(tmp_path / "models" / "bert_multitask_engine" / "2")
    assert json.loads(engine.facts("task_0")) == {"labels": ["label_0", "label_1"]}
    assert sorted(engine.tasks) == ["task_0", "task_1", "task_2"]


def test_adapters_come_and_go(tmp_path, base, trained, vocab_file):
    """From none; wrong ones are refused by one line each, and harm no other."""
    files, lines = tmp_path / "models" / "bert_multitask_engine" / "adapters", []
    assert not any("largest difference" in line for line in run(tmp_path / "base.bin", tmp_path / "models"))
    engine = MultiTaskEngine.load(files.parent / "1", notice=lines.append)
    assert engine.tasks == {} and engine(*stream_of([3, 4], 40), ["", ""])[0].shape == (2, 1)
    with pytest.raises(UsageError, match="^task 'cola': there is no task yet$"):
        engine.check("cola")

    for name in ("cola", "sts"):
        shutil.copy(tmp_path / "adapters" / f"{name}.safetensors", files)
    engine.look()  # within the second
    assert engine.tasks == {}
    engine.look(at_once=True)
    assert differences(engine, {name: trained[name] for name in ("cola", "sts")}) < 1e-4
    with pytest.raises(UsageError, match="^task 'rte': expected one of cola, sts$"):
        engine.check("rte")

    (files / "bad.safetensors").write_bytes((tmp_path / "adapters" / "mnli.safetensors").read_bytes()[:-9])
    (files / "link.safetensors").symlink_to(tmp_path / "adapters" / "mnli.safetensors")
    save_file(load_file(tmp_path / "adapters" / "mnli.safetensors"), files / "other.safetensors")  # no metadata
    other = save_base(tmp_path / "other.bin", vocab_file, seed=9)
    save_adapter_file(files / "rte.safetensors", other, "pals", ["yes", "no"])
    (files / "sts.safetensors").write_bytes(b"")  # what it held stays
    engine.look(at_once=True)
    engine.look(at_once=True)  # nothing is said twice
    assert [line.removeprefix(f"{files}/").partition(": ")[0] for line in lines] == [
        f"{name}.safetensors" for name in ("bad", "link", "other", "rte", "sts")
    ]
    assert lines[1].endswith("/link.safetensors: a symbolic link, which may lead out of the repository")
    assert lines[2].startswith(f"{files}/other.safetensors: expected an adapter checkpoint")
    assert lines[3].startswith(f"{files}/rte.safetensors: made for base.bin (") and "but the served base is" in lines[3]
    assert differences(engine, {name: trained[name] for name in ("cola", "sts")}) < 1e-4

    shutil.copy(tmp_path / "adapters" / "mrpc.safetensors", files / "rte.safetensors")  # replaced by a right one
    for name in ("cola", "sts", "bad"):
        (files / f"{name}.safetensors").unlink()
    engine.look(at_once=True)
    assert sorted(engine.tasks) == ["rte"]
    assert differences(engine, {"rte": trained["mrpc"]}) < 1e-4
    assert len(json.loads(engine.facts(""))["refused"]) == 2  # the link and the one without metadata
    assert len(lines) == 5


def test_the_folder_is_looked_at_once_a_second(tmp_path):
    now, reads = [0.0], []
    folder = AdapterFolder(tmp_path / "none", lambda path: reads.append(path.name) or path.name, lambda: now[0])
    assert not folder.look()
    folder.path.mkdir()
    (folder.path / "a.safetensors").write_text("1")
    (folder.path / ".3.a.safetensors").write_text("half of it")
    assert not folder.look()
    now[0] = 1.0
    assert folder.look() and folder.held == {"a.safetensors": "a.safetensors"}
    now[0] = 2.5
    assert not folder.look()
    os.utime(folder.path / "a.safetensors", ns=(1, 1))
    assert folder.look(at_once=True) and reads == ["a.safetensors"] * 2
    (folder.path / "a.safetensors").unlink()
    assert folder.look(at_once=True) and folder.held == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "onnx"}, "--format onnx: --task multitask has torch"),
        ({"format": "torch", "task": "classify"}, "--format torch: --task classify has onnx or "),
        ({"precision": "int8"}, "--task multitask: expected --precision fp32 or fp16 or bf16, without --native"),
        ({"task": "classify", "adapters": "x"}, "--adapters x: expected with --task multitask"),
        ({"adapters": "none"}, "--adapters none: No such file or directory"),
        ({"adapters": "."}, "--adapters .: holds no file *.safetensors"),
        ({"adapters": "wrong"}, "--adapters wrong/rte.safetensors: made for base.bin ("),
    ],
)
def test_what_is_refused(tmp_path, vocab_file, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    save_base(tmp_path / "base.bin", vocab_file)
    (tmp_path / "wrong").mkdir()
    other = save_base(tmp_path / "other.bin", vocab_file, seed=9)
    save_adapter_file(tmp_path / "wrong" / "rte.safetensors", other, "pals", ["yes", "no"])
    with pytest.raises(UsageError) as error:
        run("base.bin", "models", **changes)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not list((tmp_path / "models").rglob("*"))


def test_the_gate_finds_a_wrong_task(tmp_path, vocab_file, monkeypatch):
    """Two tasks of equal widths change places; nothing is written."""
    save_multitask(tmp_path / "tasks.bin", vocab_file)
    real = MultiTaskEngine.load

    def swapped(*arguments, **named):
        engine = real(*arguments, **named)
        engine.tasks["CoLA"], engine.tasks["MNLI"] = engine.tasks["MNLI"], engine.tasks["CoLA"]
        return engine

    monkeypatch.setattr(MultiTaskEngine, "load", swapped)
    with pytest.raises(UsageError, match="the exported model differs from the trained one .*; nothing was written$"):
        run(tmp_path / "tasks.bin", tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())
