"""Pieces of a checkpoint: with --shard_optimizer each rank writes the optimizer states of its parameters by itself.

::

    ckpt_7.pt                           all else, and the names of its pieces
    ckpt_7.5f0c91aa-2.0-of-2.pt         {"state": {0: {"exp_avg": ...}, 3: ...}}, by the number of the parameter
    ckpt_7.5f0c91aa-2.1-of-2.pt

Invariant: ``ckpt_7.pt`` appears when all of its pieces are whole, so what has no such file does not count. The name
holds a number of the run and of the save, so pieces of another attempt at step 7 are never taken for these. Every piece
is a file like a checkpoint, with a description of its own.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.distributed import World, all_gather_ints
from bert.errors import UsageError

PATTERN = "*.*-of-*.*"


@dataclass(frozen=True)
class Pieces:
    """Who writes which piece."""

    rank: int
    count: int
    run: int  # a random number, the same on all ranks
    patience: float  # seconds that rank 0 waits for the others

    def names(self, stem: str, save: int) -> list[str]:
        """Return the file names of the ``save``-th save of this run, as ``stem``."""
        return [f"{stem}.{self.run:08x}-{save}.{rank}-of-{self.count}.pt" for rank in range(self.count)]


def agree_on_pieces(world: World, sharded: bool, patience: float) -> Pieces | None:
    """Return how a run with a sharded optimizer saves, None for one without; every rank calls this."""
    if not sharded or world.size == 1:
        return None
    (run,) = all_gather_ints([secrets.randbits(32)])[0]
    return Pieces(world.rank, world.size, run, patience)


def wait_for(paths: list[Path], patience: float, given_up: threading.Event) -> None:
    """Return when the descriptions, which are written last, of all ``paths`` exist. Raises UsageError naming one."""
    deadline = time.monotonic() + patience
    for path in paths:
        while not path.with_suffix(".json").exists():
            if given_up.wait(0.05) or time.monotonic() > deadline:
                raise UsageError(
                    f"cannot save {path.with_name(path.name.split('.')[0] + '.pt')}: {path.name} of another rank did "
                    "not appear; with --shard_optimizer all ranks must share --output_dir"
                )


def delete_pieces(directory: Path, stem: str, spared: Collection[str] = ()) -> None:
    """Delete the pieces of ``stem`` and their descriptions, except those that are named."""
    for path in directory.glob(f"{stem}{PATTERN[1:]}"):
        if path.with_suffix(".pt").name not in spared:
            path.unlink(missing_ok=True)


def joined(state: dict[str, Any], pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the checkpoint ``state`` with the optimizer states of its ``pieces``, as a run without them saves it."""
    states = {index: values for piece in pieces for index, values in piece["state"].items()}
    optimizer = {"state": dict(sorted(states.items())), "param_groups": state["optimizer"]["param_groups"]}
    return {**state, "optimizer": optimizer}
