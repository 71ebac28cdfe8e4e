"""Exports into a repository that a server may be using."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.serve import repository
from bert.serve.gate import Parity
from bert.serve.repository import ExportConfig, export, move_in

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
LENGTHS = {"max_seq_length": 64, "max_query_length": 16}


def run(checkpoint, task, output, **changes):
    """Export with flags; return the lines that it prints."""
    flags = {"checkpoint": checkpoint, "task": task, "output": output, **LENGTHS, **changes}
    lines: list[str] = []
    export(parse_args(ExportConfig, [f"--{name}={value}" for name, value in flags.items()]), lines.append)
    return lines


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


ENGINE = ["batchstrategy.so", "model.onnx", "model.py", "parity.json", "settings.json"]
FRONT = ["model.py", "settings.json"]


def listed(engine, front, versions):
    """The files of a repository with these versions of two models."""
    found = [f"{name}/config.pbtxt" for name in (engine, front)]
    for name, inside in ((engine, ENGINE), (front, FRONT)):
        found += [f"{name}/{version}/{file}" for version in versions for file in inside]
    if shutil.which("cc") is None:
        found = [name for name in found if "batchstrategy" not in name]
    return sorted(found)


@pytest.mark.parametrize(
    ("task", "engine", "front"),
    [
        ("qa", "bert", "bert_qa"),
        ("classify", "bert_classifier_engine", "bert_classifier"),
        ("embed", "bert_embed_engine", "bert_embed"),
    ],
)
def test_exports(write_model, tmp_path, task, engine, front):
    """The first is version 1, the next is version 2; the third removes the first."""
    models, checkpoint = tmp_path / "deep" / "models", write_model(task)
    for number, versions in enumerate([[1], [1, 2], [2, 3]], start=1):
        lines = run(checkpoint, task, models)
        assert lines[-2:] == [f"{models}/{engine}/{number}", f"{models}/{front}/{number}"]
        assert files(models) == listed(engine, front, versions)
        assert list((tmp_path / "deep").iterdir()) == [models]  # nothing is left beside it
    parities = json.loads((models / engine / "3" / "parity.json").read_text())
    assert all(each["difference"] <= each["bound"] for each in parities) and len(parities) == 6
    assert lines[0].startswith("onnx fp32, one sequence: largest difference ")
    settings = json.loads((models / front / "3" / "settings.json").read_text())
    assert (settings["engine"], settings["outputs"], settings["task"]) == (engine, 2 if task == "qa" else 1, task)


def test_tasks_share_a_repository(write_model, tmp_path):
    run(write_model("qa"), "qa", tmp_path / "models")
    before = contents(tmp_path / "models")
    run(write_model("embed"), "embed", tmp_path / "models")
    assert before.items() < contents(tmp_path / "models").items()
    assert len(list((tmp_path / "models").iterdir())) == 4


def test_the_new_version_is_the_new_model(write_model, tmp_path):
    models = tmp_path / "models"
    run(write_model("qa"), "qa", models)
    run(write_model("qa"), "qa", models, precision="fp16", instances=3, doc_stride=9)
    precisions = [json.loads((models / "bert" / v / "settings.json").read_text())["precision"] for v in "12"]
    strides = [json.loads((models / "bert_qa" / v / "settings.json").read_text())["doc_stride"] for v in "12"]
    assert (precisions, strides) == (["fp32", "fp16"], [128, 9])
    assert "count: 3" in (models / "bert" / "config.pbtxt").read_text()


def test_an_int8_engine_passes_the_gate_twice(write_model, tmp_path):
    lines = run(write_model("qa"), "qa", tmp_path / "models", precision="int8")
    stages = [line.split(",")[0] for line in lines]
    assert stages[:12] == ["onnx fp32"] * 6 + ["onnx int8"] * 6
    assert files(tmp_path / "models") == listed("bert", "bert_qa", [1])


# --- what is refused


def test_a_wrong_model_changes_nothing(write_model, tmp_path, monkeypatch):
    models, checkpoint = tmp_path / "models", write_model("qa")
    run(checkpoint, "qa", models)
    before = contents(tmp_path)
    wrong = [Parity("one", 0.0, 1.0), Parity("many", float("nan"), 1.0)]
    monkeypatch.setattr(repository, "check_parity", lambda served, engine: wrong)
    with pytest.raises(UsageError) as error:
        run(checkpoint, "qa", models)
    assert str(error.value) == (
        "--format onnx --precision fp32: the exported model differs from the trained one "
        "(many: largest difference nan, bound 1); nothing was written"
    )
    assert contents(tmp_path) == before and not list(tmp_path.glob(".models*"))


def test_a_full_disk_changes_nothing(write_model, tmp_path, monkeypatch):
    models, checkpoint = tmp_path / "models", write_model("qa")
    run(checkpoint, "qa", models)
    before = contents(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(repository, "write_model", full)
    with pytest.raises(UsageError, match=f"^--output {models}: No space left on device$"):
        run(checkpoint, "qa", models)
    assert contents(tmp_path) == before and not list(tmp_path.glob(".models*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bf16"}, "--precision bf16: --format onnx has none, expected --format torch_export or aoti or "),
        ({"native": "libtorch"}, "--native libtorch: it runs --format torchscript, not onnx"),
        ({"task": "classify"}, "--checkpoint {checkpoint}: has no head for --task classify (classifier); it was train"),
        ({"checkpoint": "none.bin"}, "none.bin"),
        ({"max_seq_length": 65}, "--max_seq_length 65: the model has positions for 64"),
    ],
)
def test_bad_flags(write_model, tmp_path, changes, message):
    flags = {"checkpoint": write_model("qa"), "task": "qa", "output": tmp_path / "models", **changes}
    with pytest.raises(UsageError) as error:
        run(**flags)
    assert str(error.value).startswith(message.format(**flags))
    assert {path.name for path in tmp_path.iterdir()} <= {"qa.bin", "vocab.txt", "models"}
    assert not list(tmp_path.glob("models/*"))


def test_labels_are_counted(write_model, tmp_path):
    with pytest.raises(UsageError, match="^--labels a,b: 2 labels, expected 3, one for each class$"):
        run(write_model("classify"), "classify", tmp_path / "models", labels="a,b")


def test_a_file_in_the_way(write_model, tmp_path):
    (tmp_path / "models").write_text("mine")
    with pytest.raises(UsageError, match=f"^--output {tmp_path}/models: File exists$"):
        run(write_model("qa"), "qa", tmp_path / "models")
    assert (tmp_path / "models").read_text() == "mine"


@pytest.mark.parametrize("name", ["bert", "bert_qa"])
def test_a_file_in_the_way_of_a_model(write_model, tmp_path, name):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / name).write_text("mine")
    message = f"--output: {tmp_path}/models/{name} is a file, expected the folder of a model"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        run(write_model("qa"), "qa", tmp_path / "models")
    assert contents(tmp_path / "models") == {name: b"mine"}


@pytest.mark.parametrize("name", ["bert", "bert_qa", "bert/1", "bert/config.pbtxt", "bert_qa/configs"])
@pytest.mark.parametrize("dangling", [False, True])
def test_links_are_not_followed(write_model, tmp_path, name, dangling):
    models, outside = tmp_path / "models", tmp_path / "outside"
    run(write_model("qa"), "qa", models)
    if (models / name).exists():
        (models / name).rename(outside)
    elif not dangling:
        outside.mkdir()
    if dangling and outside.exists():
        outside.rename(tmp_path / "moved")
    (models / name).symlink_to(outside)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=f"^--output: {models}/{name} is a symbolic link, which an export does not "):
        run(write_model("qa"), "qa", models)
    assert contents(tmp_path) == before


def test_the_repository_itself_may_be_a_link(write_model, tmp_path):
    (tmp_path / "disk" / "store").mkdir(parents=True)
    (tmp_path / "models").symlink_to(tmp_path / "disk" / "store")
    run(write_model("qa"), "qa", tmp_path / "models")
    assert files(tmp_path / "disk") == [f"store/{name}" for name in listed("bert", "bert_qa", [1])]


def test_where_nothing_may_be_written_beside_it(write_model, tmp_path, monkeypatch):
    """As where the repository is a mounted volume: what is being written is hidden in it, and gone in the end."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    made = []
    real = repository.tempfile.mkdtemp
    monkeypatch.setattr(repository.tempfile, "mkdtemp", lambda **named: made.append(named) or real(**named))
    run(write_model("qa"), "qa", tmp_path / "models")
    assert {"prefix": ".models-", "dir": tmp_path / "models"} in made
    assert files(tmp_path / "models") == listed("bert", "bert_qa", [1])


# --- a kill between two steps


class Killed(BaseException):
    """No handler expects it."""


STEPS = [(os, "rename"), (os, "replace"), (os, "fsync"), (os, "unlink"), (shutil, "copyfile")]


def staged(folder, text):
    (folder / "1").mkdir(parents=True)
    (folder / "configs").mkdir()
    for name in ("1/model.py", "1/settings.json", "config.pbtxt", "configs/native.pbtxt"):
        (folder / name).write_text(text)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_kill_leaves_whole_models(tmp_path, monkeypatch, before):
    """Killed at each call of the system in turn: what a server would load is whole, as it was or as it is to be."""
    for stop in range(100):
        root, calls = tmp_path / str(stop), 0
        root.mkdir()
        for number in range(before):
            staged(root / "staged", f"old {number}")
            move_in(root / "staged", root / "model")
            shutil.rmtree(root / "staged", ignore_errors=True)
        staged(root / "staged", "new")

        def counted(function, stop=stop):
            def call(*arguments, **named):
                nonlocal calls
                if calls == stop:
                    raise Killed
                calls += 1
                return function(*arguments, **named)

            return call

        with monkeypatch.context() as patched:
            for owner, name in STEPS:
                patched.setattr(owner, name, counted(getattr(owner, name)))
            try:
                version = move_in(root / "staged", root / "model")
            except Killed:
                version = None
        if not (root / "model").exists():
            assert before == 0 and version is None
            continue
        latest = max(int(path.name) for path in (root / "model").iterdir() if path.name.isdecimal())
        texts = {(root / "model" / str(latest) / name).read_text() for name in ("model.py", "settings.json")}
        assert texts == {"new"} if latest == before + 1 else texts == {f"old {before - 1}"}
        configs = [(root / "model" / name).read_text() for name in ("config.pbtxt", "configs/native.pbtxt")]
        assert set(configs) <= {"new", f"old {before - 1}"}
        if version is not None:
            assert (version, set(configs)) == (before + 1, {"new"})
            assert stop > 0
            return
    raise AssertionError("it never ended")


def test_versions_of_other_names_stay(tmp_path):
    staged(tmp_path / "first", "a")
    move_in(tmp_path / "first", tmp_path / "model")
    (tmp_path / "model" / "7").mkdir()
    (tmp_path / "model" / "notes").mkdir()
    staged(tmp_path / "second", "b")
    assert move_in(tmp_path / "second", tmp_path / "model") == 8
    kept = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert kept == ["7", "8", "config.pbtxt", "configs", "notes"]


# --- configurations for NVIDIA's container


@pytest.mark.parametrize("native", ["onnxruntime", "tensorrt"])
def test_a_native_engine_beside(write_model, tmp_path, native):
    run(write_model("qa"), "qa", tmp_path / "models", native=native)
    more = ["bert/1/padded.onnx", "bert/configs/native.pbtxt"]
    assert files(tmp_path / "models") == sorted([*listed("bert", "bert_qa", [1]), *more])


def test_the_native_graph_passes_the_gate_too(write_model, tmp_path, monkeypatch):
    real, calls = repository.check_parity, []

    def check(served, engine):
        calls.append(engine)
        return real(served, engine) if len(calls) == 1 else [Parity("many", 1.0, 0.5)]

    monkeypatch.setattr(repository, "check_parity", check)
    with pytest.raises(UsageError, match="^--native tensorrt: the exported model differs from the trained one"):
        run(write_model("qa"), "qa", tmp_path / "models", native="tensorrt")
    assert not files(tmp_path / "models")


@pytest.mark.filterwarnings("ignore")
def test_a_native_torchscript_engine(write_model, tmp_path):
    run(write_model("embed"), "embed", tmp_path / "models", native="libtorch", format="torchscript")
    found = files(tmp_path / "models" / "bert_embed_engine")
    assert "1/model.pt" in found and "configs/native.pbtxt" in found and "1/padded.onnx" not in found


# --- the command


def command(*flags, cwd):
    script = [sys.executable, ROOT / "triton" / "export.py", *map(str, flags)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(script, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.slow
def test_the_command(write_model, tmp_path):
    lengths = [f"--{name}={value}" for name, value in LENGTHS.items()]
    flags = ["--checkpoint", write_model("qa"), "--output", tmp_path / "models", *lengths]
    done = command(*flags, "--task", "qa", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "models") == listed("bert", "bert_qa", [1])
    wrong = command(*flags, "--task", "classify", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert wrong.stderr.startswith(f"error: --checkpoint {tmp_path}/qa.bin: has no head for --task classify")
    missing = command("--checkpoint", "none.bin", "--task", "qa", "--output", tmp_path / "models", cwd=tmp_path)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert files(tmp_path / "models") == listed("bert", "bert_qa", [1])
