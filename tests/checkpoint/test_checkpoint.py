"""Checkpoints: what a crash, a full disk or a damaged file leaves behind; pruning; resuming; loading weights."""

import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from bert.checkpoint import (
    CheckpointConfig,
    CheckpointWriter,
    NullCheckpointWriter,
    build_checkpoint_writer,
    copy_state,
    find_checkpoint,
    find_damage,
    find_latest,
    list_checkpoints,
    load,
    read_description,
    resolve_resume,
)
from bert.config import parse_args
from bert.distributed import World
from bert.errors import UsageError

ROOT = Path(__file__).parents[2]
RESUME = CheckpointConfig(resume_from_checkpoint=True)


def make_state(seed: int = 0, phase: int = 1) -> dict:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 32, generator=draw)
    return {
        "model": {"word": weight, "decoder": weight, "half": torch.randn(7, generator=draw).bfloat16()},
        "optimizer": {
            "state": {0: {"step": torch.tensor(seed), "exp_avg": torch.randn(64, 32, generator=draw)}},
            "param_groups": [{"lr": 6e-3, "betas": (0.9, 0.999), "params": [0], "fused": None}],
        },
        "data": {"epoch": 2, "seed": 2**100, "names": ["a", "b"], "shuffle": True, "inf": float("inf")},
        "phase": phase,
    }


def save(directory: Path, *steps: int, keep: int = 100, phase: int = 1, keep_forever: bool = False) -> None:
    with CheckpointWriter(directory, keep) as writer:
        for step in steps:
            writer.save(step, make_state(step, phase), keep_forever)


def assert_equal(actual, expected) -> None:
    """Bitwise, and of the same types."""
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        assert actual.flatten().view(torch.uint8).equal(expected.flatten().view(torch.uint8))
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_equal(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_equal(*pair)
    else:
        assert actual == expected


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def steps(directory: Path) -> list[int]:
    return sorted(int(path.stem.split("_")[1]) for path in directory.glob("ckpt_*.pt"))


def flip_a_bit(path: Path) -> None:
    """Change one bit of tensor data."""
    data = bytearray(path.read_bytes())
    at = data.index(make_state(int(path.stem.split("_")[1]))["model"]["word"].numpy().tobytes()[:64])
    data[at + 5] ^= 1
    path.write_bytes(data)


# --- saving --------------------------------------------------------------------------------------------------------


def test_round_trip_is_bitwise(tmp_path):
    save(tmp_path, 7)
    loaded = load(tmp_path / "ckpt_7.pt")
    assert_equal(loaded, make_state(7))
    assert loaded["model"]["word"].data_ptr() == loaded["model"]["decoder"].data_ptr()  # still tied
    assert names(tmp_path) == ["ckpt_7.json", "ckpt_7.pt"]


def test_the_description_describes_the_file(tmp_path):
    save(tmp_path, 7, phase=2)
    data = (tmp_path / "ckpt_7.pt").read_bytes()
    described = json.loads((tmp_path / "ckpt_7.json").read_text())
    assert described.pop("saved_at") == pytest.approx((tmp_path / "ckpt_7.pt").stat().st_mtime, abs=60)
    assert described == {
        "step": 7,
        "phase": 2,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "keep": False,
        "format_version": 1,
    }


def test_training_may_change_the_tensors_while_the_file_is_written(tmp_path, monkeypatch):
    gate, torch_save = threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (gate.wait(30), torch_save(*args)))
    state = make_state(1)
    with CheckpointWriter(tmp_path) as writer:
        writer.save(1, state)
        state["model"]["word"].zero_()
        state["optimizer"]["state"][0]["step"] += 1
        state["optimizer"]["param_groups"][0]["lr"] = 0.0
        state["data"]["names"].append("c")
        assert steps(tmp_path) == []  # save has returned, nothing is written yet
        gate.set()
    assert_equal(load(tmp_path / "ckpt_1.pt"), make_state(1))


def test_a_save_waits_for_the_one_before(tmp_path, monkeypatch):
    running, most, torch_save = [], [], torch.save

    def counting_save(*args):
        running.append(1)
        most.append(len(running))
        torch_save(*args)
        running.pop()

    monkeypatch.setattr(torch, "save", counting_save)
    save(tmp_path, *range(5))
    assert most == [1] * 5
    assert steps(tmp_path) == [0, 1, 2, 3, 4]


def test_copies_share_what_was_shared_and_hold_no_more_than_needed():
    base = torch.arange(12.0).view(3, 4)
    state = {"a": base, "b": base, "row": base[1], "column": base[:, 1], "parameter": torch.nn.Parameter(base)}
    copied = copy_state(state)
    assert copied["a"].data_ptr() == copied["b"].data_ptr() == copied["parameter"].data_ptr() != base.data_ptr()
    assert copied["row"].tolist() == [4, 5, 6, 7]
    assert copied["column"].tolist() == [1, 5, 9]
    assert copied["column"].untyped_storage().nbytes() == 12
    assert type(copied["parameter"]) is torch.Tensor
    assert not copied["parameter"].requires_grad


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state.rate", {"rate": np.float64(0.1)}),
        ("state.a.b[1]", {"a": {"b": [1, np.int64(2)]}}),
        ("state.a", {"a": {(1, 2): 3}}),
        ("state.when", {"when": Path("x")}),
        ("state.set", {"set": {1}}),
        ("state.sparse", {"sparse": torch.eye(2).to_sparse()}),
        ("state.array", {"array": np.zeros(3)}),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, key, value):
    with CheckpointWriter(tmp_path) as writer, pytest.raises(TypeError) as raised:
        writer.save(1, value)
    assert str(raised.value).startswith(f"{key} ")
    assert names(tmp_path) == []


def test_a_real_optimizer_and_model_are_accepted(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    with CheckpointWriter(tmp_path) as writer:
        writer.save(1, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    loaded = load(tmp_path / "ckpt_1.pt")
    assert_equal(loaded["model"], dict(model.state_dict()))
    assert_equal(loaded["optimizer"]["state"], optimizer.state_dict()["state"])


def test_ranks_without_a_writer(tmp_path):
    for config, is_main in ((CheckpointConfig(skip_checkpoint=True), True), (CheckpointConfig(), False)):
        with build_checkpoint_writer(config, tmp_path / "out", is_main) as writer:
            writer.save(1, make_state())
        assert isinstance(writer, NullCheckpointWriter)
    assert not (tmp_path / "out").exists()
    with build_checkpoint_writer(CheckpointConfig(keep_checkpoints=1), tmp_path / "out", True) as writer:
        writer.save(1, make_state())
        writer.save(2, make_state())
    assert steps(tmp_path / "out") == [2]


# --- a disk that fails ---------------------------------------------------------------------------------------------


def test_a_full_disk_is_reported_by_the_next_save_and_the_old_file_stays(tmp_path):
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = CheckpointWriter(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))  # a file needs 18 kB: writing raises an OSError
        writer.save(2, make_state(2))
        with pytest.raises(UsageError, match=r"cannot save .*ckpt_2\.pt: File too large"):
            writer.save(3, make_state(3))
        writer.save(1, make_state(4))
        with pytest.raises(UsageError, match=r"cannot save .*ckpt_1\.pt"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["ckpt_1.json", "ckpt_1.pt"]  # no leftovers
    assert find_damage(tmp_path / "ckpt_1.pt") is None
    assert_equal(load(tmp_path / "ckpt_1.pt"), make_state(1))


def test_a_disk_that_fails_at_the_last_moment(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(UsageError, match=r"cannot save .*ckpt_1\.pt: No space left on device"),
        CheckpointWriter(tmp_path) as writer,
    ):
        writer.save(1, make_state())
    assert names(tmp_path) == []


def test_an_error_of_the_training_loop_is_not_hidden_by_one_of_the_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(ZeroDivisionError) as raised, CheckpointWriter(tmp_path) as writer:
        writer.save(1, make_state())
        raise ZeroDivisionError
    assert "Input/output error" in raised.value.__notes__[0]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot save .*file"):
        CheckpointWriter(tmp_path / "file")


# --- a run that dies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_crash_at_any_instant_leaves_whole_checkpoints(tmp_path, monkeypatch, overwrite):
    """Copies the directory before every operation that changes it, and resumes from each copy."""
    live, step = tmp_path / "live", 1 if overwrite else 2
    save(live, 1)
    moments = []

    def snapshot_before(module, name):
        operation = getattr(module, name)

        def wrapped(*args, **kwargs):
            moments.append(shutil.copytree(live, tmp_path / f"moment{len(moments)}"))
            return operation(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapped)

    for module, name in [(os, "replace"), (os, "fsync"), (Path, "unlink"), (torch, "save")]:
        snapshot_before(module, name)
    with CheckpointWriter(live) as writer:
        writer.save(step, make_state(9))
    monkeypatch.undo()
    assert len(moments) >= 7
    found = []
    for moment in [*moments, live]:
        heard = []
        latest = find_latest(moment, heard.append)
        assert latest is not None
        assert heard == []  # nothing had to be skipped
        state = load(latest)
        seed = int(state["optimizer"]["state"][0]["step"])
        assert_equal(state, make_state(seed))
        found.append(seed)
        CheckpointWriter(moment).close()
        assert {name for name in names(moment) if not name.startswith("ckpt_")} == set()
    assert found == sorted(found)  # the old one, from some instant on the new one
    assert set(found) == {1, 9}


@pytest.mark.slow
def test_kill_9_during_a_save_leaves_the_old_checkpoint(tmp_path):
    script = (
        "import os, sys, time\n"
        "import torch\n"
        "from bert.checkpoint import CheckpointWriter\n"
        "writer = CheckpointWriter(sys.argv[1])\n"
        "writer.save(1, {'w': torch.ones(1000)})\n"
        "writer.wait()\n"
        "os.fsync = lambda _: (print('in the middle', flush=True), time.sleep(60))\n"
        "writer.save(2, {'w': torch.ones(1000)})\n"
        "writer.close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "in the middle\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(names(tmp_path)) == 3  # the good one, its description, and the half-written one
    heard = []
    assert resolve_resume(RESUME, tmp_path, heard.append) == tmp_path / "ckpt_1.pt"
    assert load(tmp_path / "ckpt_1.pt")["w"].sum() == 1000
    assert heard == []
    save(tmp_path, 2)
    assert names(tmp_path) == ["ckpt_1.json", "ckpt_1.pt", "ckpt_2.json", "ckpt_2.pt"]


# --- pruning -------------------------------------------------------------------------------------------------------


def test_the_last_three_are_kept_across_restarts(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, keep=3)  # each in a writer of its own
    assert names(tmp_path) == [f"ckpt_{step}.{kind}" for step in (4, 5, 6) for kind in ("json", "pt")]


def test_the_end_of_phase_1_and_foreign_files_are_never_pruned(tmp_path):
    foreign = ["ckpt_best.pt", "notes.txt", "ckpt_best.json", "events.out", "ckpt_007.pt"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    torch.save(make_state(1), tmp_path / "ckpt_1.pt")  # as NVIDIA's: without description
    save(tmp_path, 2, 3, keep=2)
    save(tmp_path, 4, keep_forever=True, keep=2)
    save(tmp_path, *range(5, 15), keep=2, phase=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"ckpt_{n}.pt" for n in (14, 13, 4, 1)]
    assert read_description(tmp_path / "ckpt_4.pt").keep
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)


def test_step_0_of_phase_2_does_not_replace_the_end_of_phase_1(tmp_path):
    save(tmp_path, 4, keep_forever=True)
    before = (tmp_path / "ckpt_4.pt").read_bytes()
    save(tmp_path, 4, phase=2)  # phase 2 interrupted before its first step
    assert (tmp_path / "ckpt_4.pt").read_bytes() == before
    assert read_description(tmp_path / "ckpt_4.pt").phase == 1


def test_a_repeated_end_of_phase_1_stays_marked(tmp_path):
    save(tmp_path, 4, keep_forever=True)
    with CheckpointWriter(tmp_path) as writer:
        writer.save(4, make_state(99))
    assert read_description(tmp_path / "ckpt_4.pt").keep
    assert_equal(load(tmp_path / "ckpt_4.pt"), make_state(99))


def test_a_run_sent_back_keeps_what_it_writes(tmp_path):
    save(tmp_path, 100, 200, 300)
    save(tmp_path, 120, keep=3)
    assert steps(tmp_path) == [120, 200, 300]
    save(tmp_path, 140, keep=3)
    assert steps(tmp_path) == [120, 140, 300]


def test_a_clock_that_was_set_back_does_not_cost_the_newest(tmp_path, monkeypatch):
    save(tmp_path, 1, 2)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    save(tmp_path, 3, keep=2)
    assert steps(tmp_path) == [2, 3]


def test_the_new_one_is_good_before_an_old_one_is_deleted(tmp_path):
    """All kept ones but the resumed one are bad; pruning must leave a good one in the directory."""
    save(tmp_path, 1, 2, 3)
    for step in (2, 3):
        flip_a_bit(tmp_path / f"ckpt_{step}.pt")
    save(tmp_path, 4, keep=1)
    assert steps(tmp_path) == [4]
    assert find_damage(tmp_path / "ckpt_4.pt") is None


def test_descriptions_without_a_checkpoint_are_cleaned_up(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "ckpt_1.pt").unlink()  # a crash in the middle of pruning
    (tmp_path / ".77.ckpt_3.pt").write_text("half")
    CheckpointWriter(tmp_path).close()
    assert names(tmp_path) == ["ckpt_2.json", "ckpt_2.pt"]


# --- finding -------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def junk(path: Path) -> None:
    path.write_bytes(b"404: Not Found\n" * 50)


@pytest.mark.parametrize("described", [True, False], ids=["with description", "without"])
@pytest.mark.parametrize("damage", [truncate, empty, junk, flip_a_bit])
def test_a_damaged_newest_file_is_named_and_the_one_before_is_used(tmp_path, damage, described):
    save(tmp_path, 9, 100)
    damage(tmp_path / "ckpt_100.pt")
    if not described:
        (tmp_path / "ckpt_100.json").unlink()
    heard = []
    assert find_latest(tmp_path, heard.append) == tmp_path / "ckpt_9.pt"
    (line,) = heard
    assert line.startswith(f"{tmp_path / 'ckpt_100.pt'} is skipped: it ")


def test_a_longer_file_than_was_written_is_damaged(tmp_path):
    save(tmp_path, 1)
    size = (tmp_path / "ckpt_1.pt").stat().st_size
    (tmp_path / "ckpt_1.pt").write_bytes((tmp_path / "ckpt_1.pt").read_bytes() + b"\0")
    assert find_damage(tmp_path / "ckpt_1.pt") == f"has {size + 1} bytes where {size} were written"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 1}', "\xff"])
def test_a_damaged_description_does_not_cost_the_checkpoint(tmp_path, text):
    save(tmp_path, 1)
    (tmp_path / "ckpt_1.json").write_text(text, encoding="latin1")
    assert find_latest(tmp_path, pytest.fail) == tmp_path / "ckpt_1.pt"


@pytest.mark.parametrize("modern", [True, False])
def test_a_checkpoint_of_another_program_is_found(tmp_path, modern):
    save(tmp_path, 9)
    torch.save(make_state(11), tmp_path / "ckpt_11.pt", _use_new_zipfile_serialization=modern)
    assert find_latest(tmp_path, pytest.fail) == tmp_path / "ckpt_11.pt"
    assert_equal(load(tmp_path / "ckpt_11.pt"), make_state(11))
    if not modern:
        truncate(tmp_path / "ckpt_11.pt")
        heard = []
        assert find_latest(tmp_path, heard.append) == tmp_path / "ckpt_9.pt"
        assert "ckpt_11.pt" in heard[0]


def test_a_stray_file_is_named_and_ignored(tmp_path):
    save(tmp_path, 5)
    torch.save(make_state(), tmp_path / "ckpt_best.pt")
    heard = []
    assert resolve_resume(RESUME, tmp_path, heard.append) == tmp_path / "ckpt_5.pt"
    assert heard == [f"{tmp_path / 'ckpt_best.pt'} is ignored: it is not named ckpt_STEP.pt"]


# --- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_directory_starts_fresh_and_says_so(tmp_path, exists):
    directory = tmp_path if exists else tmp_path / "new"
    heard = []
    assert resolve_resume(RESUME, directory, heard.append) is None
    assert len(heard) == 1
    assert "starting fresh" in heard[0]
    assert str(directory) in heard[0]


def test_only_damaged_checkpoints_do_not_start_fresh(tmp_path):
    save(tmp_path, 1, 2)
    for step in (1, 2):
        truncate(tmp_path / f"ckpt_{step}.pt")
    with pytest.raises(UsageError, match=r"--resume_from_checkpoint.*damaged"):
        resolve_resume(RESUME, tmp_path, lambda _: None)


def test_a_step_is_taken_exactly_or_refused(tmp_path):
    save(tmp_path, 0, 10, 20)

    def at(step: int) -> Path | None:
        return resolve_resume(CheckpointConfig(True, step), tmp_path, pytest.fail)

    assert at(10) == tmp_path / "ckpt_10.pt"
    assert at(0) == tmp_path / "ckpt_0.pt"
    with pytest.raises(UsageError, match=r"--resume_step 15: .*ckpt_15\.pt does not exist"):
        at(15)
    flip_a_bit(tmp_path / "ckpt_20.pt")
    with pytest.raises(UsageError, match=r"--resume_step 20: .*ckpt_20\.pt is damaged"):
        at(20)


def test_a_step_without_resuming_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"--resume_step 5.*--resume_from_checkpoint"):
        resolve_resume(CheckpointConfig(resume_step=5), tmp_path, pytest.fail)


def test_a_run_that_torchrun_restarted_continues_without_the_flag(tmp_path):
    with CheckpointWriter(tmp_path) as writer:
        writer.save(7, {"weights": torch.ones(1)})
    heard = []
    again = World(0, 0, 1, torch.device("cpu"), restarts=2)
    path, state = find_checkpoint(CheckpointConfig(), str(tmp_path), again, heard.append)
    assert path == tmp_path / "ckpt_7.pt" and state is not None
    assert heard == ["restart 2 by torchrun: continuing as with --resume_from_checkpoint"]


@pytest.mark.parametrize("name", ["ckpt_1.pt", "ckpt_best.pt"])
def test_an_earlier_run_is_not_overwritten(tmp_path, name):
    assert resolve_resume(CheckpointConfig(), tmp_path, pytest.fail) is None
    (tmp_path / "dllogger.json").write_text("")
    assert resolve_resume(CheckpointConfig(), tmp_path, pytest.fail) is None
    (tmp_path / name).write_text("x")
    with pytest.raises(UsageError, match=f"--output_dir {tmp_path} holds {name} .*--resume_from_checkpoint"):
        resolve_resume(CheckpointConfig(), tmp_path, pytest.fail)
    assert (tmp_path / name).read_text() == "x"


def test_flags_and_defaults_are_the_published_ones():
    assert parse_args(CheckpointConfig, []) == CheckpointConfig(False, -1, 100, False, None, 3)
    argv = (
        "--resume_from_checkpoint --resume_step 7 --num_steps_per_checkpoint 200 --skip_checkpoint --init_checkpoint x"
    )
    assert parse_args(CheckpointConfig, argv.split()) == CheckpointConfig(True, 7, 200, True, "x", 3)


# --- loading -------------------------------------------------------------------------------------------------------


class Object:
    """Anything but a tensor or a plain value."""


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "not a checkpoint"),
        (lambda path: path.write_bytes(b"<html>" * 99), "not a checkpoint"),
        (lambda path: torch.save([1, 2], path), "holds a list"),
        (lambda path: torch.save({"loader": Object()}, path), "Object"),
        (lambda path: path.write_bytes(pickle.dumps({"loader": Object()}, protocol=2)), "Object"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path, write, words):
    path = tmp_path / "x.pt"
    write(path)
    with pytest.raises(UsageError) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_loading_runs_no_code(tmp_path):
    class Flag:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"x": Flag()}, tmp_path / "x.pt")
    with pytest.raises(UsageError):
        load(tmp_path / "x.pt")
    assert not (tmp_path / "made").exists()


def test_a_loaded_state_may_be_changed_without_changing_the_file(tmp_path):
    save(tmp_path, 1)
    load(tmp_path / "ckpt_1.pt")["model"]["word"].zero_()
    assert find_damage(tmp_path / "ckpt_1.pt") is None


def test_an_ordered_state_dict_of_another_program_loads(tmp_path):
    torch.save({"model": OrderedDict(a=torch.ones(2)), "epoch": 3}, tmp_path / "x.pt")
    assert load(tmp_path / "x.pt")["model"]["a"].tolist() == [1, 1]
