"""Ranks: launcher variables, collectives on two Gloo processes, errors that reach every rank, seeds, stop signals."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bert.config import parse_args
from bert.distributed import (
    DistributedConfig,
    StopSignal,
    World,
    agree_any,
    all_gather_ints,
    all_reduce_sum,
    barrier,
    broadcast_error,
    collective_errors,
    derive_seed,
    join_world,
    read_launcher,
    resolve_device,
    seed_everything,
)
from bert.distributed.launcher import meeting_place
from bert.distributed.world import record_collectives
from bert.errors import UsageError

ROOT = Path(__file__).parents[2]
DEADLINE = 90  # seconds after which a test counts as hanging
MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **MASTER}
SLURM = {  # a task of a step of srun
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "3",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
}  # fmt: skip
SALLOC = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_NNODES": "2"}
BATCH = SALLOC | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
INTERACTIVE = BATCH | {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}


def mpi(prefix: str, rank: int, size: int, local: int, **more: str) -> dict[str, str]:
    return {f"{prefix}_RANK": str(rank), f"{prefix}_SIZE": str(size), f"{prefix}_LOCAL_RANK": str(local), **more}


OPEN_MPI = mpi("OMPI_COMM_WORLD", 3, 4, 1, OMPI_COMM_WORLD_LOCAL_SIZE="2", PMIX_RANK="3", PMIX_NAMESPACE="77")
INTEL = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}


def clean_environment() -> dict[str, str]:
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "SLURM_", "TORCHELASTIC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run_ranks(script: Path, environments: list[dict[str, str]], *arguments: str) -> list[subprocess.CompletedProcess]:
    """Run one process per environment side by side; a hang fails the test."""
    shared = {**clean_environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            env={**shared, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in environments
    ]
    try:
        outputs = [process.communicate(timeout=DEADLINE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(p.args, p.returncode, *output) for p, output in zip(processes, outputs, strict=True)
    ]


# --- launcher variables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "flag", "expected"),
    [
        ({}, -1, (0, 0, 1)),
        ({}, 2, (0, 2, 1)),
        (TORCHRUN, -1, (5, 1, 8)),
        (TORCHRUN, 6, (5, 1, 8)),  # LOCAL_RANK wins over the flag
        ({"RANK": "1", "WORLD_SIZE": "2", **MASTER}, 1, (1, 1, 2)),  # the old launcher passes only the flag
        ({"RANK": "1", "WORLD_SIZE": "2", **MASTER}, -1, (1, 0, 2)),
        (SALLOC, -1, (0, 0, 1)),
        (BATCH | MASTER, -1, (0, 0, 1)),
        (INTERACTIVE | {"PMIX_RANK": "0"}, -1, (0, 0, 1)),
        (SLURM | MASTER, -1, (2, 3, 4)),
        (SLURM | {"PMI_RANK": "2", "PMI_SIZE": "4"} | MASTER, -1, (2, 3, 4)),  # srun --mpi=pmi2
        (SLURM | {"SLURM_STEP_NUM_NODES": "1"}, -1, (2, 3, 4)),
        (OPEN_MPI | MASTER, -1, (3, 1, 4)),
        (SLURM | OPEN_MPI | MASTER, -1, (3, 1, 4)),  # mpirun's daemons are a step of srun
        (BATCH | mpi("OMPI_COMM_WORLD", 0, 1, 0), -1, (0, 0, 1)),
        (mpi("MV2_COMM_WORLD", 2, 4, 0) | MASTER, -1, (2, 0, 4)),
        (INTEL | MASTER, -1, (1, 1, 2)),
        (mpi("PMI", 5, 8, 1) | MASTER, -1, (5, 1, 8)),
        (OPEN_MPI | TORCHRUN, -1, (5, 1, 8)),
        (SLURM | TORCHRUN, -1, (5, 1, 8)),
        (SLURM | MASTER | {"WORLD_SIZE": "4"}, -1, (2, 3, 4)),  # a script that exports its own WORLD_SIZE before srun
        ({"RANK": "0", "WORLD_SIZE": "1"}, -1, (0, 0, 1)),
    ],
)
def test_launcher_variables(environ, flag, expected):
    assert read_launcher(environ, flag) == expected


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "3"}, ["RANK", "WORLD_SIZE"]),
        ({"WORLD_SIZE": "3", **MASTER}, ["RANK", "WORLD_SIZE"]),
        (TORCHRUN | {"RANK": "8"}, ["RANK 8", "WORLD_SIZE 8"]),
        (TORCHRUN | {"RANK": "one"}, ["RANK", "'one'"]),
        (TORCHRUN | {"LOCAL_RANK": "-2"}, ["local rank -2"]),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ["MASTER_ADDR"]),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, ["MASTER_PORT is not set"]),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "x"}, ["MASTER_PORT 'x'"]),
        (OPEN_MPI, ["OMPI_COMM_WORLD_SIZE is 4", "MASTER_ADDR", "MASTER_PORT"]),  # two machines
        (INTEL, ["PMI_SIZE is 2", "MASTER_ADDR"]),  # nothing tells this job from another one
        (SLURM, ["SLURM_STEP_NUM_TASKS is 4", "MASTER_ADDR"]),
        ({"PMIX_RANK": "1"}, ["PMIX_RANK is 1", "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"]),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"} | MASTER, ["PMI_RANK is 0", "LOCAL_RANK"]),
    ],
)
def test_launcher_variables_that_clash(environ, words):
    with pytest.raises(UsageError) as raised:
        read_launcher(environ)
    for word in words:
        assert word in str(raised.value)


def test_where_the_ranks_of_a_job_on_one_machine_meet():
    whole = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    one, again, other = (meeting_place(whole | {"PMIX_RANK": r, "PMIX_NAMESPACE": n}) for r, n in ("0a", "1a", "0b"))
    assert one == again
    assert one.host == other.host == "127.0.0.1" and one.port != other.port and one.prefix != other.prefix
    assert meeting_place(whole | MASTER) == ("127.0.0.1", 29500, "")
    step = SLURM | {"SLURM_STEP_NUM_NODES": "1"}
    assert meeting_place(step).prefix == "7.0" != meeting_place(step | {"SLURM_STEP_ID": "1"}).prefix


def test_both_spellings_of_the_flag_and_use_env():
    assert parse_args(DistributedConfig, ["--local-rank=3", "--use_env"]) == DistributedConfig(3, "auto", True)
    assert parse_args(DistributedConfig, ["--local_rank", "1"]).local_rank == 1
    assert parse_args(DistributedConfig, []) == DistributedConfig(-1, "auto", False)


# --- devices -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    def pretend(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return pretend


def test_device_without_a_gpu(gpus):
    gpus(0)
    assert resolve_device("auto", 3) == resolve_device("cpu", 3) == torch.device("cpu")
    with pytest.raises(UsageError, match=r"--device cuda.*no CUDA GPU"):
        resolve_device("cuda", 0)


def test_device_with_gpus(gpus):
    gpus(2)
    assert resolve_device("cpu", 5) == torch.device("cpu")
    for setting in ("auto", "cuda"):
        assert resolve_device(setting, 1) == torch.device("cuda:1")
        with pytest.raises(UsageError, match=r"local rank 2 .*2 visible"):
            resolve_device(setting, 2)


# --- one process ---------------------------------------------------------------------------------------------------


def test_one_process_has_no_group_and_nothing_to_wait_for(monkeypatch):
    for name in (*TORCHRUN, *SLURM, *OPEN_MPI, *INTEL):
        monkeypatch.delenv(name, raising=False)
    with join_world(DistributedConfig(device="cpu")) as world:
        assert world == World(0, 0, 1, torch.device("cpu"))
        assert world.is_main
        assert not torch.distributed.is_initialized()
        tensor = torch.tensor([1.5, -2.0])
        assert all_reduce_sum(tensor) is tensor
        assert tensor.tolist() == [1.5, -2.0]
        assert agree_any(True) is True
        assert agree_any(False) is False
        assert all_gather_ints([3, -4]) == [[3, -4]]
        barrier()
        broadcast_error(None)
        with pytest.raises(UsageError, match=r"^bad shard$"):
            broadcast_error("bad shard")
        with pytest.raises(UsageError, match=r"^bad flag$"), collective_errors(world):
            raise UsageError("bad flag")


def test_nccls_flight_recorder_is_set_unless_the_user_set_it():
    environment = {"TORCH_NCCL_TRACE_BUFFER_SIZE": "50"}
    record_collectives(environment, "results")
    assert environment == {
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "50",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": "results/nccl_trace_rank_",
    }


def test_only_rank_0_is_main():
    assert not World(1, 0, 2, torch.device("cpu")).is_main


# --- two processes -------------------------------------------------------------------------------------------------

COLLECTIVES = """
import json, sys, torch
from bert.config import run_command
from bert.distributed import *
from bert.errors import UsageError

def caught(world, message):
    try:
        with collective_errors(world):
            if message:
                raise UsageError(message)
    except UsageError as error:
        return str(error)

def main(config):
    with join_world(config) as world:
        first = world.rank == 0
        tensor = torch.tensor([1.0, 10.0]) * (world.rank + 1)
        returned = all_reduce_sum(tensor)
        result = {
            "rank": world.rank, "local": world.local_rank, "size": world.size, "main": world.is_main,
            "sum": tensor.tolist(), "same": returned is tensor,
            "int sum": all_reduce_sum(torch.tensor(2**53 + world.rank)).item(),
            "any": [agree_any(not first), agree_any(first), agree_any(True), agree_any(False)],
            "ints": all_gather_ints([2**62, -1] if first else [7]),
            "some ints": all_gather_ints([] if first else [7, 8]),
            "no ints": all_gather_ints([]),
            "fine": caught(world, None),
            "on 1": caught(world, None if first else "shard \\u00e9 is empty"),
            "on 0": caught(world, "shard 0" if first else None),
            "on both": caught(world, f"from {world.rank}"),
        }
        barrier()
        result["after"] = all_reduce_sum(torch.ones(1)).item()
        print(json.dumps(result), flush=True)
        with collective_errors(world):
            if world.rank == 1 and "fail" in sys.argv:
                raise UsageError("the last word")
    assert not torch.distributed.is_initialized()

run_command(main, DistributedConfig, ["--device", "cpu"])
"""


def check_collectives(reports: list[dict]) -> None:
    for rank, report in enumerate(reports):
        assert report == {
            "rank": rank,
            "local": rank,
            "size": 2,
            "main": rank == 0,
            "sum": [3.0, 30.0],
            "same": True,
            "int sum": 2**54 + 1,  # exact: not summed as floats
            "any": [True, True, True, False],
            "ints": [[2**62, -1], [7]],
            "some ints": [[], [7, 8]],
            "no ints": [[], []],
            "fine": None,
            "on 1": "shard é is empty",
            "on 0": "shard 0",
            "on both": "from 0",
            "after": 2.0,
        }


@pytest.mark.slow
def test_collectives_of_two_ranks_under_slurm(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(COLLECTIVES)
    ranks = [{"SLURM_PROCID": str(r), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": str(r)} for r in range(2)]
    done = run_ranks(script, ranks, "fail")
    check_collectives([json.loads(process.stdout) for process in done])
    # Only rank 1 failed; both end with the same error, at once.
    assert [process.returncode for process in done] == [2, 2]
    assert [process.stderr.splitlines()[-1] for process in done] == ["error: the last word"] * 2


@pytest.mark.slow
def test_collectives_of_two_ranks_under_torchrun(tmp_path):
    script, logs = tmp_path / "ranks.py", tmp_path / "logs"
    script.write_text(COLLECTIVES)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "--redirects=3", f"--log-dir={logs}", str(script)]
    subprocess.run(command, env=clean_environment(), timeout=DEADLINE, check=True, capture_output=True)
    check_collectives([json.loads(next(logs.rglob(f"{rank}/stdout.log")).read_text()) for rank in range(2)])


ABSENT = """
import os, sys, time
from pathlib import Path
from bert.distributed import DistributedConfig, barrier, join_world

gave_up = Path(sys.argv[1])
with join_world(DistributedConfig(device="cpu", timeout=6)) as world:
    barrier()
    if world.rank == 1:  # alive, but busy elsewhere until rank 0 has given up, or forever
        print(os.getpid(), flush=True)
        deadline = time.monotonic() + 60
        while not gave_up.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os._exit(0 if gave_up.exists() else 1)
    try:
        barrier()
    except RuntimeError:
        gave_up.touch()
        raise
"""


@pytest.mark.slow
def test_waiting_for_a_rank_that_never_comes_ends(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(ABSENT)
    ranks = [{"RANK": str(r), "WORLD_SIZE": "2", "LOCAL_RANK": str(r)} for r in range(2)]
    done = run_ranks(script, ranks, str(tmp_path / "gave_up"))
    assert [process.returncode for process in done] == [1, 0]
    assert "RuntimeError" in done[0].stderr
    named = re.search(r"error: rank 1 \(\S+, process (\d+)\) is late: at ranks.py:\d+ \S+ for \d+ s", done[0].stderr)
    assert named and int(named[1]) == int(done[1].stdout)


STOPPED = """
import os, signal, sys
from bert.distributed import DistributedConfig, barrier, join_world

with join_world(DistributedConfig(device="cpu", timeout=3)) as world:
    barrier()
    if world.rank == 0:  # it holds the store of the ranks, too
        os.kill(os.getpid(), signal.SIGSTOP)
    barrier()
"""


@pytest.mark.slow
def test_rank_0_is_named_although_the_store_stops_with_it(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(STOPPED)
    ranks = [{"RANK": str(r), "WORLD_SIZE": "2", "LOCAL_RANK": str(r)} for r in (1, 0)]
    shared = {**clean_environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen([sys.executable, script], env={**shared, **own}, stderr=subprocess.PIPE, text=True)
        for own in ranks
    ]
    try:
        _, error = processes[0].communicate(timeout=DEADLINE)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[0].returncode == 1
    named = re.search(r"error: rank 0 \(\S+, process (\d+)\) has been silent for 3 s; its last step was 0\n", error)
    assert named and int(named[1]) == processes[1].pid


# --- seeds ---------------------------------------------------------------------------------------------------------


def test_a_seed_is_the_documented_hash():
    head = hashlib.sha256(b"42,7,3").hexdigest()[:16]
    assert derive_seed(42, 7, 3) == int(head, 16) // 2
    assert derive_seed(torch.tensor(42), 7, 3) == derive_seed(42, 7, 3)  # any kind of whole number


def test_seeds_do_not_collide():
    seeds = {derive_seed(seed, step, rank) for seed in range(3) for step in range(500) for rank in range(4)}
    assert len(seeds) == 3 * 500 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(1) != derive_seed(1, 0)


def test_random_numbers_are_a_function_of_the_keys():
    def draw(*keys: int) -> list[float]:
        seed_everything(*keys)
        return torch.nn.functional.dropout(torch.ones(64), 0.5).tolist()

    first = draw(42, 100, 0)
    assert draw(42, 101, 0) != first
    assert draw(42, 100, 1) != first
    torch.rand(5)
    assert draw(42, 100, 0) == first
    assert seed_everything(42, 100, 0) == derive_seed(42, 100, 0) == torch.initial_seed()


# --- stopping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_sets_the_flag_and_only_while_active(number):
    seen = []
    before = {s: signal.signal(s, lambda *_: seen.append("outer")) for s in StopSignal.SIGNALS}
    try:
        with StopSignal() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            os.kill(os.getpid(), number)  # the second changes nothing
            assert stop.requested
        assert seen == []
        os.kill(os.getpid(), number)
        assert seen == ["outer"]
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def test_the_first_ctrl_c_asks_and_the_second_stops():
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and stop.by_keyboard
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_restored_after_an_error():
    before = [signal.getsignal(number) for number in StopSignal.SIGNALS]
    with pytest.raises(KeyError), StopSignal():
        assert [signal.getsignal(number) for number in StopSignal.SIGNALS] != before
        raise KeyError
    assert [signal.getsignal(number) for number in StopSignal.SIGNALS] == before
