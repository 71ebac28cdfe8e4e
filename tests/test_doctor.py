"""The doctor's findings on made-up machines, and the real command on this machine, with and without torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bert.doctor import __main__ as command
from bert.doctor.checks import (
    ERROR,
    GIB,
    OK,
    WARNING,
    Finding,
    Torch,
    check_clocks,
    check_compiler,
    check_disk,
    check_gpus,
    check_open_files,
    check_optional,
    check_packages,
    check_python,
    check_shared_memory,
    check_torch,
)
from bert.doctor.clocks import skew_over_ssh

ROOT = Path(__file__).parent.parent
ON_CPU = Torch("2.13.0+cpu", None, (), None)
ON_GPUS = Torch("2.13.0+cu130", "13.0", ("H100, 80 GiB",) * 8, "2.28.9")


@pytest.mark.parametrize(
    ("row", "state", "words"),
    [
        (check_python((3, 10, 4)), ERROR, "3.10.4 too old: install 3.11"),
        (check_python((3, 14, 0)), OK, "3.14.0"),
        (check_packages({"numpy": "2.4", "h5py": "3"}.get), ERROR, "pyarrow, crc32c, sentencex, tokenizers, tqdm"),
        (check_packages(lambda name: "1.0"), OK, "numpy 1.0"),
        (
            check_torch("ModuleNotFoundError: No module named 'torch'"),
            ERROR,
            "No module named 'torch' run bash scripts",
        ),
        (check_torch(ON_CPU), OK, r"2\.13\.0\+cpu"),
        (check_torch(Torch("2.11.0a0+nv26.1", "13.0", (), None)), OK, "2.11"),
        (check_torch(Torch("2.10.1", None, (), None)), WARNING, "not tested"),
        (check_torch(Torch("2.14.0", None, (), None)), WARNING, "not tested"),
        (check_compiler({"CXX": "clang++"}, lambda name: None), WARNING, r"no clang\+\+ no torch.compile"),
        (check_compiler({}, lambda name: f"/usr/bin/{name}"), OK, "/usr/bin/g++"),
        (check_shared_memory(64 << 20, gpus=8), WARNING, "0.1 GiB free NCCL .* --shm-size=8g"),
        (check_shared_memory(64 << 20, gpus=1), OK, "0.1 GiB"),
        (check_shared_memory(None, gpus=2), WARNING, "no /dev/shm"),
        (check_disk(Path("/r"), 500 * GIB, True), OK, "500 GiB free at /r"),
        (check_disk(Path("/r"), 5 * GIB, True), WARNING, "BERT-large needs 20 GiB"),
        (check_disk(Path("/r"), GIB - 1, True), ERROR, "no room"),
        (check_disk(Path("/r"), 500 * GIB, False), ERROR, "not writable: give another --output_dir"),
        (check_open_files(256), WARNING, "256 .*ulimit -n"),
        (check_open_files(1024), OK, "1024"),
    ],
)
def test_a_finding_and_what_it_costs(row, state, words):
    assert row.state == state
    assert re.search(words, f"{row.found} {row.cost}")


@pytest.mark.parametrize(
    ("torch", "listed", "expected"),
    [
        (ON_GPUS, ["H100"] * 8, [("CUDA", "13.0", OK), ("GPUs", "8 x H100, 80 GiB", OK), ("NCCL", "2.28.9", OK)]),
        (ON_CPU, [], [("GPUs", "none", WARNING)]),
        (ON_CPU, ["A100"], [("GPUs", "A100", WARNING)]),
        ("ImportError: libcudart.so.13", ["A100"], [("GPUs", "A100", WARNING)]),
    ],
)
def test_gpus(torch, listed, expected):
    assert [(row.what, row.found, row.state) for row in check_gpus(torch, listed)] == expected


def test_why_torch_does_not_use_a_gpu_that_is_there():
    (row,) = check_gpus(ON_CPU, ["A100"])
    assert "its build has no CUDA" in row.cost
    (row,) = check_gpus(Torch("2.13.0", "13.0", (), None), ["A100"])
    assert "CUDA 13.0 too new for the driver" in row.cost


def test_what_is_used_where_it_is_installed():
    rows = {row.what: row for row in check_optional(ON_GPUS, {"apex.optimizers", "lddl"}.__contains__)}
    assert (rows["apex"].found, rows["lddl"].found, rows["dllogger"].found) == ("NVIDIA's", "installed", "none")
    assert rows["triton"].state == WARNING
    assert "triton" not in {row.what for row in check_optional(ON_CPU, lambda module: False)}
    assert all(row.state == OK for row in check_optional(ON_CPU, lambda module: False))


def test_clocks():
    near, far, unsure, silent = check_clocks(
        {"a": (0.4, 0.1), "b": (-90.0, 0.1), "c": (1.5, 0.8), "d": "Permission denied"}
    )
    assert [near.state, far.state, unsure.state, silent.state] == [OK, WARNING, OK, WARNING]
    assert far.found == "-90.000 s ± 0.100 s" and "NTP" in far.cost
    assert (silent.found, silent.cost) == ("Permission denied", "not compared")


def test_a_clock_is_read_in_the_middle_of_the_round_trip(monkeypatch):
    now = iter([1000.0, 1002.0])
    monkeypatch.setattr("bert.doctor.clocks.time.time", lambda: next(now))

    def answer(command, **_):
        assert command[-2:] == ["node2", "date +%s.%N"]
        return subprocess.CompletedProcess(command, 0, "1004.5\n", "")

    assert skew_over_ssh("node2", answer) == (3.5, 1.0)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            subprocess.CompletedProcess([], 255, "", "a\nPermission denied (publickey).\n"),
            "Permission denied (publickey).",
        ),
        (subprocess.TimeoutExpired("ssh", 15), "TimeoutExpired"),
        (FileNotFoundError("ssh"), "FileNotFoundError"),
    ],
)
def test_a_clock_that_cannot_be_read(outcome, words):
    def run(command, **_):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert skew_over_ssh("node2", run) == words


def test_the_table_has_columns():
    text = command.format_table([Finding("torch", "2.13"), Finding("a longer name", "x", WARNING, "slow")])
    assert text.splitlines() == [
        "what           found  state    what that costs",
        "torch          2.13   ok",
        "a longer name  x      warning  slow",
    ]


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "scripts/doctor.sh"), *arguments]
    path = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **environment}
    return subprocess.run(command, env=path, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_command_on_this_machine(tmp_path):
    done = doctor("--output_dir", str(tmp_path / "not" / "yet there"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training can start here" in done.stdout
    assert not (tmp_path / "not").exists()


def test_the_command_without_torch(tmp_path):
    """-S hides the installed packages."""
    bare = tmp_path / "python without packages"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    done = doctor(PYTHON=str(bare))
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stdout and "run bash scripts/setup.sh" in done.stdout
    assert done.stdout.endswith("training cannot start here: packages, torch\n")
    assert "Traceback" not in done.stdout + done.stderr


def test_the_command_without_python():
    done = doctor(PYTHON="/no/such/python")
    assert done.returncode == 1
    assert "install 3.11 or later, or set PYTHON" in done.stderr


def test_a_wrong_flag_is_named():
    done = doctor("--host", "x")
    assert done.returncode == 2
    assert "--host" in done.stderr


def test_examine_asks_the_other_hosts(monkeypatch):
    monkeypatch.setattr(command, "skew_over_ssh", {"n1": (0.0, 0.1), "n2": "no answer"}.get)
    found = {row.what: row.found for row in command.examine(command.DoctorConfig(hosts=["n1", "n2"]))}
    assert found["clock of n1"] == "+0.000 s ± 0.100 s" and found["clock of n2"] == "no answer"
