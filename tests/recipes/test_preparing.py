"""data/preprocess.py as a user runs it: on this machine, on a Dask scheduler, under MPI, killed, and with bad input."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bert.config import run_command
from bert.prepare.preprocess import PreprocessConfig, preprocess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def command(sink: Path, vocab: Path, *flags: object) -> list[str]:
    words = ["--sink", sink, "--vocab-file", vocab, "--target-seq-length", 64, "--block-size", "4K", *flags]
    return [sys.executable, str(ROOT / "data" / "preprocess.py"), *map(str, words)]


def run(arguments: list[str], expect: int = 0) -> str:
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr if expect else done.stdout


def hashes(folder: Path) -> dict[str, str]:
    """Content of every file, hidden ones included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def error_line(arguments: list[str]) -> str:
    """Run a command that must refuse: one line, exit code 2."""
    said = run([*arguments, "--disable-progress-bar"], expect=2)
    assert len(said.splitlines()) == 1, said
    return said


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory, write_vocabulary) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "vocab.txt")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory, write_texts) -> Path:
    return write_texts(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module")
def flags(text_folder) -> list[object]:
    """The run that most tests repeat; by so many duplicates its blocks take long enough to be interrupted."""
    return ["--text", text_folder, "--masking", "--duplicate-factor", 10]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, vocab_file, flags) -> dict[str, str]:
    """The hashes of an uninterrupted run with two workers."""
    sink = tmp_path_factory.mktemp("whole") / "sink"
    run(command(sink, vocab_file, *flags, "--num-workers", 2))
    return hashes(sink)


def test_any_number_of_workers_gives_the_same_shards(tmp_path, flags, vocab_file, whole):
    once_more = command(tmp_path / "one", vocab_file, *flags, "--num-workers", 1)
    said = run(once_more)
    assert hashes(tmp_path / "one") == whole
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    samples = sum(entry["num_samples"] for entry in manifest["shards"].values())
    assert f"{samples:,} sequences in {len(manifest['shards'])} shards from 90 documents" in said
    assert len(manifest["shards"]) > 10
    assert manifest["settings"]["masking"] == "static"
    assert manifest["settings"]["do_lower_case"] is True
    # Once more: nothing to do, nothing changed. With other settings: refused, nothing changed.
    assert "already complete" in run(once_more)
    assert "holds the shards of another run (seed 12345, not 7)" in error_line([*once_more, "--seed", "7"])
    assert hashes(tmp_path / "one") == whole


@pytest.mark.parametrize("moment", [0, "some", "most"])
@pytest.mark.parametrize("victims", ["all", "parent"])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, flags, vocab_file, whole, moment, victims):
    sink = tmp_path / "sink"
    arguments = command(sink, vocab_file, *flags, "--num-workers", 2)
    blocks = len(whole) - 1  # a shard each, and the manifest
    wanted = {0: 0, "some": random.randint(1, blocks // 2), "most": random.randint(blocks // 2, blocks - 4)}[moment]
    print(f"killed after {wanted} of {blocks} blocks")
    process = subprocess.Popen(arguments, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((sink / ".preprocess").glob("part.*.json"))) < wanted or not sink.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    if victims == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert not (sink / "manifest.json").exists()
    run(arguments)
    assert hashes(sink) == whole


def test_control_c_is_one_line_and_the_run_goes_on(tmp_path, flags, vocab_file, whole):
    sink = tmp_path / "sink"
    arguments = command(sink, vocab_file, *flags, "--num-workers", 2)
    process = subprocess.Popen(
        [*arguments, "--disable-progress-bar"],
        env=ENVIRONMENT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((sink / ".preprocess").glob("part.*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")
    run(arguments)
    assert hashes(sink) == whole


def test_a_running_scheduler_with_two_workers(tmp_path, flags, vocab_file, whole):
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    commands = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        *([*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"] for _ in range(2)),
    ]
    processes = []
    try:
        for words in commands:
            processes.append(subprocess.Popen(words, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.DEVNULL))
            while not file.exists():
                time.sleep(0.05)
        run(command(tmp_path / "by_file", vocab_file, *flags, "--scheduler-file", file))
        address = json.loads(file.read_text())["address"]
        run(command(tmp_path / "by_address", vocab_file, *flags, "--scheduler", address))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=20)
    assert hashes(tmp_path / "by_file") == hashes(tmp_path / "by_address") == whole


@pytest.mark.skipif(
    not shutil.which("mpirun", path=Path(sys.executable).parent), reason="needs mpirun: pip install '.[test]'"
)
class TestMpi:
    MPIRUN = (str(Path(sys.executable).parent / "mpirun"), "--allow-run-as-root", "--oversubscribe")

    def test_ranks_do_the_work(self, tmp_path, flags, vocab_file, whole):
        arguments = command(tmp_path / "mpi", vocab_file, *flags, "--schedule", "mpi")
        run([*self.MPIRUN, "-np", "4", *arguments])
        assert hashes(tmp_path / "mpi") == whole

    def test_too_few_processes_are_an_error(self, tmp_path, text_folder, vocab_file):
        arguments = command(tmp_path / "mpi", vocab_file, "--text", text_folder, "--schedule", "mpi")
        done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "--schedule mpi: started as 1 process, expected at least 3" in done.stderr
        assert not (tmp_path / "mpi").exists()


class TestBadInput:
    """One line that names the flag or file, exit code 2, and nothing left behind."""

    @pytest.fixture
    def refuse(self, tmp_path, vocab_file, capfd) -> Callable[..., str]:
        """Return a function (flags) -> the line; it runs the command in this process, which saves the imports."""

        def refuse(*flags: object, vocab: Path = vocab_file) -> str:
            words = [*flags, "--num-workers", 1, "--disable-progress-bar"]
            with pytest.raises(SystemExit) as ended:
                run_command(preprocess, PreprocessConfig, command(tmp_path / "sink", vocab, *words)[2:])
            error = capfd.readouterr().err
            assert (ended.value.code, len(error.splitlines())) == (2, 1), error
            return error

        return refuse

    def test_no_source(self, tmp_path, refuse):
        assert "--text" in refuse()
        assert not (tmp_path / "sink").exists()

    def test_an_empty_folder(self, tmp_path, refuse):
        (tmp_path / "empty").mkdir()
        assert f"--text {tmp_path / 'empty'}" in refuse("--text", tmp_path / "empty")
        assert not (tmp_path / "sink").exists()

    def test_a_missing_vocabulary(self, tmp_path, text_folder, refuse):
        assert "--vocab_file nowhere.txt" in refuse("--text", text_folder, vocab=Path("nowhere.txt"))
        assert not (tmp_path / "sink").exists()

    def test_undecodable_text(self, tmp_path, refuse):
        (tmp_path / "latin.txt").write_bytes(b"The green river.\n\nThe bright \xe9t\xe9.\n")
        line = refuse("--text", tmp_path / "latin.txt")
        assert "latin.txt" in line
        assert "29" in line  # the byte
        assert not (tmp_path / "sink").exists()

    def test_one_document(self, tmp_path, refuse):
        (tmp_path / "one.txt").write_text("The green river.\nThe bright stone.\n")
        assert "one document" in refuse("--text", tmp_path / "one.txt")
        assert not (tmp_path / "sink").exists()

    def test_text_without_a_word(self, tmp_path, refuse):
        (tmp_path / "blank.txt").write_text(" \n\n \n")
        assert "no text" in refuse("--text", tmp_path / "blank.txt")
        assert not (tmp_path / "sink").exists()

    def test_no_scheduler_at_the_address(self, tmp_path, text_folder, refuse):
        missing = refuse("--text", text_folder, "--scheduler-file", tmp_path / "missing.json")
        assert "missing.json: no such file" in missing
        assert not (tmp_path / "sink").exists()

    def test_a_sink_with_something_else_in_it(self, tmp_path, text_folder, refuse):
        (tmp_path / "sink").mkdir()
        (tmp_path / "sink" / "thesis.txt").write_text("mine")
        assert "expected an empty folder, found thesis.txt" in refuse("--text", text_folder)
        assert hashes(tmp_path / "sink") == {"thesis.txt": hashlib.sha256(b"mine").hexdigest()}


def test_a_line_of_ten_megabytes(tmp_path, vocab_file):
    (tmp_path / "line.txt").write_text("the green river walks under stone. " * 300_000 + "\n\nThe other document.\n")
    said = run(command(tmp_path / "sink", vocab_file, "--text", tmp_path / "line.txt", "--block-size", "1M"))
    assert "sequences in" in said


def test_a_full_disk_leaves_nothing_half_written(tmp_path, text_folder, vocab_file):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.decode().strip()}")
    try:
        sink = small / "sink"
        flags = ["--text", text_folder, "--masking", "--duplicate-factor", 20, "--num-workers", 2]
        line = error_line(command(sink, vocab_file, *flags))
        assert "No space left on device" in line
        assert str(sink) in line
        left = [path.name for path in sink.rglob("*") if path.name.startswith(".") and path.is_file()]
        assert left == []
        records = {path.stem for path in (sink / ".preprocess").glob("part.*.json")}
        assert {path.name.removesuffix(".parquet") for path in sink.glob("part.*")} >= records
        subprocess.run(["mount", "-o", "remount,size=30m", str(small)], check=True)
        run(command(sink, vocab_file, *flags))  # goes on
        assert (sink / "manifest.json").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_memory_does_not_grow_with_the_text(tmp_path, make_text, vocab_file):
    """80 MB of text, of which the worker may keep little: it needs 160 of 240 MB, and Dask stops it at 80 %."""
    megabyte = (make_text(1500) + "\n\n").encode()[: 1 << 20].rsplit(b"\n\n", 1)[0] + b"\n\n"
    (tmp_path / "large.txt").write_bytes(megabyte * 80)
    flags = ["--text", tmp_path / "large.txt", "--block-size", "512K", "--duplicate-factor", 1, "--num-workers", 1]
    run(command(tmp_path / "sink", vocab_file, *flags, "--memory-limit", "240MiB"))
    assert (tmp_path / "sink" / "manifest.json").exists()
