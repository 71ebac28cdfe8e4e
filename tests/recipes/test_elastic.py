"""Real torchrun, real kills: a run that was restarted ends as one that was not, bit for bit; a hung rank is named."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from recipes.conftest import ROOT, logged, pretraining_flags, run  # pyright: ignore[reportMissingImports]

from bert.checkpoint import load

pytestmark = pytest.mark.slow

STEPS = 12
FLAGS = {"max_steps": STEPS, "num_steps_per_checkpoint": 1, "train_batch_size": 8, "gradient_accumulation_steps": 8}
ONE_MACHINE = ["--standalone", "--nproc_per_node=2", "--max-restarts=2"]


class Launcher:
    """Starts torchrun, one for each machine, and finds the ranks of a run."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.agents: list[psutil.Popen] = []

    def start(self, options: list[str], flags: list[str], **environment: str) -> psutil.Popen:
        command = [sys.executable, "-m", "torch.distributed.run", *options, str(ROOT / "run_pretraining.py"), *flags]
        with self.log(len(self.agents)).open("w") as log:
            environment = {**os.environ, **environment}
            agent = psutil.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.agents.append(agent)
        return agent

    def log(self, agent: int) -> Path:
        return self.logs / f"agent_{agent}.txt"

    def processes(self, output: Path) -> Iterator[psutil.Process]:
        """Yield the agents and the ranks of the run that writes to ``output``."""
        for process in psutil.process_iter(["cmdline"]):
            if str(output) in (process.info["cmdline"] or []):
                yield process

    def rank(self, output: Path, rank: int) -> psutil.Process:
        for each in self.processes(output):
            with suppress(psutil.NoSuchProcess):  # it ended since it was listed
                if each.environ().get("RANK") == str(rank):
                    return each
        raise LookupError(f"rank {rank} is not running")

    def finish(self, agent: psutil.Popen) -> str:
        """Wait for the end of an agent; return what it and its ranks wrote."""
        log = self.log(self.agents.index(agent))
        assert agent.wait(timeout=240) == 0, log.read_text()
        return log.read_text()


@pytest.fixture
def launcher(tmp_path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    for process in list(launcher.processes(tmp_path / "run")):
        process.kill()


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory) -> dict:
    """The last checkpoint of a run on two ranks that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    run(pretraining_flags(corpus, folder, **FLAGS), processes=2)
    return load(folder / f"ckpt_{STEPS}.pt")


def wait_for(condition: Callable[[], object], agent: psutil.Popen) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert agent.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def assert_ends_like(straight: dict, output: Path) -> None:
    state = load(output / f"ckpt_{STEPS}.pt")
    assert state["training"] == straight["training"]
    assert state["model"].keys() == straight["model"].keys()
    assert all(torch.equal(tensor, state["model"][name]) for name, tensor in straight["model"].items())


def test_killed_workers_are_restarted_from_the_last_checkpoint(corpus, tmp_path, straight, launcher):
    """First the rank that only computes is killed, then the one that saves, in the middle of it."""
    output = tmp_path / "run"
    agent = launcher.start(ONE_MACHINE, pretraining_flags(corpus, output, **FLAGS))
    wait_for((output / "ckpt_3.json").exists, agent)
    launcher.rank(output, 1).kill()
    wait_for(lambda: "restart 1 by torchrun" in launcher.log(0).read_text(), agent)
    writer, left = launcher.rank(output, 0), set(output.glob(".[0-9]*.ckpt_*"))

    def stopped_while_saving() -> bool:
        writer.suspend()
        if set(output.glob(".[0-9]*.ckpt_*")) - left:
            return True
        writer.resume()
        return False

    wait_for(stopped_while_saving, agent)
    writer.kill()
    text = launcher.finish(agent)
    assert "restart 1 by torchrun: continuing as with --resume_from_checkpoint" in text
    assert "restart 2 by torchrun" in text
    assert len(re.findall(r"ckpt_\d+\.pt: \d+ tensors loaded", text)) == 2
    assert_ends_like(straight, output)
    assert not list(output.glob(".*ckpt_*"))


def start_two_machines(launcher: Launcher, flags: list[str]) -> Callable[[], psutil.Popen]:
    """Start two agents of one rank each; return the function that starts one, to replace another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--nnodes=2", "--nproc_per_node=1", "--max-restarts=2", "--rdzv_backend=c10d", "--rdzv_id=run"]
    lost = "keep_alive_interval=1,keep_alive_max_attempt=3"  # seconds: an agent is given up after 3
    options += [f"--rdzv_endpoint=localhost:{port}", f"--rdzv_conf=is_host=false,{lost}", "--local-addr=127.0.0.1"]
    first = [word.replace("is_host=false", "is_host=true") for word in options]  # holds the rendezvous: it has to live
    launcher.start(first, flags, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    launcher.start(options, flags, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    return lambda: launcher.start(options, flags, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")


def test_a_machine_that_was_lost_comes_back(corpus, tmp_path, straight, launcher):
    output = tmp_path / "run"
    start_another = start_two_machines(
        launcher, pretraining_flags(corpus, output, **FLAGS, resume_from_checkpoint=True)
    )
    first, lost = launcher.agents
    wait_for((output / "ckpt_3.json").exists, first)
    for process in (lost, *lost.children()):
        process.kill()
    texts = [launcher.finish(agent) for agent in (start_another(), first)]
    assert any(re.search(r"ckpt_\d+\.pt: \d+ tensors loaded", text) for text in texts)
    assert_ends_like(straight, output)


def test_ranks_go_on_without_the_agent_that_started_one(corpus, tmp_path, straight, launcher):
    output = tmp_path / "run"
    start_two_machines(launcher, pretraining_flags(corpus, output, **FLAGS))
    first, lost = launcher.agents
    wait_for((output / "ckpt_3.json").exists, first)
    lost.kill()
    wait_for((output / f"ckpt_{STEPS}.json").exists, first)
    assert_ends_like(straight, output)


def test_a_hung_rank_is_named_with_its_last_step(corpus, tmp_path, launcher):
    output = tmp_path / "run"
    flags = pretraining_flags(corpus, output, max_steps=100_000, num_steps_per_checkpoint=100_000, timeout=4)
    agent = launcher.start(["--standalone", "--nproc_per_node=2"], flags)
    wait_for(lambda: (output / "dllogger.json").exists() and len(logged(output / "dllogger.json")) > 20, agent)
    hung = launcher.rank(output, 1)
    hung.suspend()
    log = launcher.log(0)
    wait_for(lambda: "has been silent" in log.read_text(), agent)
    time.sleep(1)  # for the rest of the line, and for torchrun to see that rank 0 has ended
    hung.kill()  # torchrun would do so half a minute after its SIGTERM
    assert agent.wait(timeout=60) == 1
    line = r"error: rank 1 \((\S+), process (\d+)\) has been silent for 4 s; its last step was (\d+)"
    named = re.search(line, log.read_text())
    assert named and (named[1], int(named[2])) == (socket.gethostname(), hung.pid)
    assert abs(int(named[3]) - logged(output / "dllogger.json")[-1]["step"][1]) <= 1
