"""A folder or an output file has one owner at a time; the lock ends with its process and leaves nothing behind."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from bert.config import parse_args
from bert.distributed import World
from bert.errors import UsageError
from bert.lock import owning, owning_output
from bert.prepare.preprocess import PreprocessConfig, preprocess
from bert.prepare.pretraining_data import PretrainingDataConfig, create_pretraining_data
from bert.train.run import Run, open_log

ROOT = Path(__file__).parents[1]
HOLD = """
import os, sys, time
from bert.lock import owning, owning_output
with (owning if sys.argv[1] == "folder" else owning_output)(sys.argv[2], "here"):
    if not os.fork():
        time.sleep(60)  # it has the descriptors of its parent and outlives it
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(kind: str, path: Path) -> Iterator[subprocess.Popen]:
    """Own ``path`` in another process, which has a child."""
    command = [sys.executable, "-c", HOLD, kind, str(path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen, what: str) -> str:
    holder = f"process {process.pid} on {socket.gethostname()}"
    return f"^{re.escape(f'{what}: {holder} writes there, expected one process at a time')}$"


def test_the_lock_of_a_folder_names_its_holder_and_dies_with_it(tmp_path):
    folder = tmp_path / "results"
    with held("folder", folder) as process:
        with (
            pytest.raises(UsageError, match=line(process, "--output_dir results")),
            owning(folder, "--output_dir results"),
        ):
            raise AssertionError
        process.kill()
        process.wait()
        assert (folder / ".lock").exists()
        with owning(folder, "--output_dir results"):
            pass
    assert not folder.exists() or not list(folder.iterdir())


def test_what_was_made_goes_unless_it_was_used(tmp_path):
    with owning(tmp_path / "a" / "b", "a"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert not list(tmp_path.iterdir())
    with owning(tmp_path / "a" / "b", "a"):
        (tmp_path / "a" / "file").touch()
    assert [each.name for each in tmp_path.rglob("*")] == ["a", "file"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^--sink x: "), owning(tmp_path / "file", "--sink x"):
        raise AssertionError


def test_outputs_in_one_folder_do_not_exclude_each_other(tmp_path):
    with held("output", tmp_path / "a.hdf5") as process:
        with owning_output(tmp_path / "b.hdf5", "b"), owning(tmp_path, "folder"):
            pass
        with pytest.raises(UsageError, match=line(process, "a")), owning_output(tmp_path / "a.hdf5", "a"):
            raise AssertionError


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_notice(number, tmp_path, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with owning(tmp_path, "--sink x"):
        pass
    assert capsys.readouterr().err == "--sink x: cannot be locked (No locks available); start only one run there\n"


def test_a_lock_that_its_owner_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    real, removed = fcntl.lockf, []

    def lockf(*arguments: int) -> None:
        real(*arguments)
        if not removed:
            removed.append((tmp_path / ".lock").unlink())

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with owning(tmp_path, "x"):
        assert (tmp_path / ".lock").read_text().startswith("process ")


def test_commands_refuse_what_another_process_owns(tmp_path):
    (tmp_path / "text.txt").write_text("a b\n")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    vocab = ["--vocab_file", f"{tmp_path}/vocab.txt"]
    output = tmp_path / "train.hdf5"
    with held("output", output) as process, pytest.raises(UsageError, match=line(process, f"--output_file {output}")):
        words = ["--input_file", f"{tmp_path}/text.txt", "--output_file", str(output), *vocab]
        create_pretraining_data(parse_args(PretrainingDataConfig, words))
    assert not output.exists()
    with held("folder", tmp_path / "own") as process:
        what = tmp_path / "own"
        with pytest.raises(UsageError, match=line(process, f"--sink {what}")):
            preprocess(parse_args(PreprocessConfig, ["--text", str(tmp_path), "--sink", str(what), *vocab]))
        assert sorted(each.name for each in what.iterdir()) == [".lock"]
        with pytest.raises(UsageError, match=line(process, f"--output_dir {what}")), open_log(_run(what, rank=0)):
            raise AssertionError
        with open_log(_run(what, rank=1)):
            pass


def _run(folder: Path, rank: int) -> Run:
    """Return a run of one process that is rank ``rank`` of as many as need no collective."""

    class Settings:
        class run:
            output_dir, seed = str(folder), 1

        class log:
            json_summary, tensorboard_dir = "none", "none"

    return Run(Settings(), World(rank, 0, 1, torch.device("cpu")), None)  # type: ignore[arg-type]
