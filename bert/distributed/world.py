"""Ranks: which one this process is, collectives, seeds, and the signals that stop a run.

At world size 1 no function communicates, so one process and a thousand run the same code. A tensor is reduced where it
is (NCCL for CUDA, Gloo for the host), so a decision made on the host never waits for the GPU. The only state is the
default process group of torch.distributed. No function pickles anything::

    with join_world(config.distributed) as world:
        with collective_errors(world):                   # a bad shard on rank 3 ends every rank with the same line
            shards = read_my_shards(world.rank, world.size)
        seed_everything(seed, step, world.rank)          # once per optimizer step: no random state to save
        all_reduce_sum(loss)
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bert.config import flag
from bert.distributed.elastic import open_store, restart_count
from bert.distributed.heartbeat import MAX_INTERVAL, Heartbeat, Progress
from bert.distributed.launcher import read_launcher
from bert.errors import UsageError
from bert.memory import keep_freed_memory


@dataclass
class DistributedConfig:
    """Where a process runs. Its rank comes from the launcher."""

    local_rank: int = flag(
        -1, "Rank on this machine, hence its GPU. Set by launchers; LOCAL_RANK in the environment wins.", minimum=-1
    )
    device: str = flag("auto", "Where to run; auto: a GPU if there is one.", choices=("auto", "cpu", "cuda"))
    use_env: bool = flag(False, "Accepted for old launchers and ignored: the environment is always read.")
    timeout: float = flag(
        1800.0,
        "Seconds to wait for a rank, at the start too, before the run ends and names it; must exceed the time a "
        "checkpoint takes.",
        minimum=1,
        aliases=["ddp_timeout"],
    )


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    local_rank: int
    size: int
    device: torch.device
    restarts: int = 0  # how often torchrun started this rank again after a failure
    progress: Progress = field(default_factory=Progress)
    timeout: float = 1800.0  # seconds, the flag

    @property
    def patience(self) -> timedelta:
        """When a collective gives up: a little later than the heartbeat, which knows a silent rank's name."""
        return timedelta(seconds=self.timeout + 5 * min(MAX_INTERVAL, self.timeout / 10))

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes files and logs."""
        return self.rank == 0


@contextmanager
def join_world(config: DistributedConfig, traces: str = "") -> Iterator[World]:
    """Join the other ranks for the duration of a ``with`` block, once per process.

    If a rank is late by more than ``--timeout``, the run ends and names it; NCCL then leaves its history in the folder
    ``traces``, if one is given. Raises UsageError for a missing GPU and for an environment that contradicts itself.
    (Once: the store would still hold the addresses of the first time.)
    """
    rank, local_rank, size = read_launcher(os.environ, config.local_rank)
    device = resolve_device(config.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    world = World(rank, local_rank, size, device, restart_count(os.environ), timeout=config.timeout)
    if size == 1:
        yield world
        return
    on_gpu = device.type == "cuda"
    if traces:
        record_collectives(os.environ, traces)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    store = open_store(os.environ, rank, size, timedelta(seconds=config.timeout))
    finished = False
    with Heartbeat(store, rank, size, config.timeout, world.progress) as heartbeat:
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=world.patience)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"rank {rank}: cannot connect to the other {size - 1} ranks ({reason})") from error
        try:
            heartbeat.start()
            yield world
            finished = True
        except RuntimeError:
            heartbeat.explain()
            raise
        finally:
            # After an error the peers may wait in a collective that this rank never joins. NCCL's orderly shutdown
            # would wait too; ending the process instead lets the launcher end the peers.
            if finished or not on_gpu:
                dist.destroy_process_group()


def record_collectives(environ: MutableMapping[str, str], folder: str) -> None:
    """Make NCCL's flight recorder write FOLDER/nccl_trace_rank_N on a timeout; what the environment sets stays.

    The names are those of torch/csrc/distributed/c10d/FlightRecorder.hpp, the older ones second.
    """
    for names, value in (
        (("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"), "2000"),  # collectives
        (("TORCH_NCCL_DUMP_ON_TIMEOUT",), "1"),
        (("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"), os.path.join(folder, "nccl_trace_rank_")),
    ):
        if not any(name in environ for name in names):
            environ[names[0]] = value


def resolve_device(setting: str, local_rank: int) -> torch.device:
    """Turn ``--device`` into the device of this rank; each rank of a machine has its own GPU."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "cpu" or (setting == "auto" and gpus == 0):
        return torch.device("cpu")
    if gpus == 0:
        raise UsageError("--device cuda: PyTorch finds no CUDA GPU here; expected --device cpu or auto")
    if local_rank >= gpus:
        raise UsageError(
            f"local rank {local_rank} has no GPU: {gpus} visible here (CUDA_VISIBLE_DEVICES "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}); expected at most {gpus} processes per machine"
        )
    return torch.device("cuda", local_rank)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Replace ``tensor`` with its sum over the ranks, in place, and return it."""
    if dist.is_initialized():
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Replace ``tensor`` with its maximum over the ranks, in place, and return it."""
    if dist.is_initialized():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def agree_any(flag: bool) -> bool:
    """Return on every rank whether ``flag`` is true on any; decided on the host."""
    votes = torch.tensor([int(flag)])
    if dist.is_initialized():
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes)


def all_gather_ints(values: list[int]) -> list[list[int]]:
    """Return the ``values`` of every rank, in rank order. Lengths may differ; values are int64."""
    if not dist.is_initialized():
        return [list(values)]
    lengths = [int(length) for length in _all_gather(torch.tensor([len(values)]))]
    padded = torch.zeros(max(lengths), dtype=torch.int64)
    padded[: len(values)] = torch.tensor(values, dtype=torch.int64)
    gathered = _all_gather(padded) if len(padded) else [padded] * len(lengths)
    return [tensor[:length].tolist() for tensor, length in zip(gathered, lengths, strict=True)]


def all_gather_floats(values: list[float]) -> list[list[float]]:
    """Return the ``values`` of every rank, equally many, in rank order, as float64."""
    if not dist.is_initialized():
        return [list(values)]
    return [tensor.tolist() for tensor in _all_gather(torch.tensor(values, dtype=torch.float64))]


def barrier() -> None:
    """Wait, on the host, until every rank is here."""
    agree_any(False)


def broadcast_error(error: str | None) -> None:
    """Raise the same UsageError on every rank if any rank has one: the message of the lowest such rank.

    Every rank calls this, with None if nothing is wrong.
    """
    messages = all_gather_ints([] if error is None else [1, *error.encode()])
    for message in messages:
        if message:
            raise UsageError(bytes(message[1:]).decode())


@contextmanager
def collective_errors(world: World) -> Iterator[None]:
    """Turn a UsageError of the body on any rank into the same UsageError on every rank, instead of a hang.

    Every rank runs the block. Its body must not contain a collective: the rank that fails would not join it. Any other
    exception ends its own rank at once, and the launcher ends the rest.
    """
    if world.size == 1:
        yield
        return
    error = None
    try:
        yield
    except UsageError as raised:
        error = str(raised)
    broadcast_error(error)


def derive_seed(*keys: int) -> int:
    """Hash ``keys`` to a seed of 63 bits: the head of SHA-256 over their decimal digits joined by commas.

    Sums such as ``seed + rank`` collide ((1, 2) and (2, 1)), and in some generators neighbouring seeds give related
    streams; a hash avoids both.
    """
    digest = hashlib.sha256(",".join(str(int(key)) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(*keys: int) -> int:
    """Seed torch's generators (host and GPUs) with a pure function of ``keys`` and return the seed.

    Called with (seed, step, rank) at the start of each optimizer step, a resumed run draws what the uninterrupted one
    would have drawn, and no random state needs saving.
    """
    seed = derive_seed(*keys)
    torch.manual_seed(seed)
    return seed


class StopSignal(AbstractContextManager["StopSignal"]):
    """Notice SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C while active; the loop asks ``requested`` where it can stop.

    The handler only sets a flag; a second Ctrl-C raises KeyboardInterrupt at once. Leaving restores the previous
    handlers. Main thread only, like all of `signal`.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.by_keyboard = self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not installed from Python and cannot be restored from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            if self.by_keyboard:
                raise KeyboardInterrupt
            self.by_keyboard = True
            # Not print: the signal may have interrupted one.
            os.write(2, b"\nstopping after this micro-batch and saving; Ctrl-C again stops at once\n")


def _all_gather(tensor: Tensor) -> list[Tensor]:
    """[n] on the host, n equal on all ranks -> one such tensor per rank"""
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return gathered
