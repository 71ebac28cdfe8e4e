"""Which checkpoint a run continues from, and why not from another.

Every skipped file is named. Nothing is written, and no run silently starts over where a checkpoint may have been
meant::

    path = resolve_resume(config, "results/checkpoints", notice=print)      # ckpt_300.pt is damaged -> ckpt_200.pt
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bert.checkpoint.files import find_damage, list_checkpoints, load
from bert.checkpoint.pieces import PATTERN
from bert.config import flag
from bert.distributed import World, agree_any, read_once
from bert.errors import UsageError


@dataclass
class CheckpointConfig:
    """When a run saves, how much it keeps, and what it starts from."""

    resume_from_checkpoint: bool = flag(
        False, "Continue from the newest good checkpoint in the output directory; start fresh where there is none."
    )
    resume_step: int = flag(
        -1, "With --resume_from_checkpoint: continue from ckpt_STEP.pt. -1: from the newest.", minimum=-1
    )
    num_steps_per_checkpoint: int = flag(100, "Optimizer steps between two checkpoints.", minimum=1)
    skip_checkpoint: bool = flag(False, "Save no checkpoint.")
    init_checkpoint: str | None = flag(
        None,
        "Checkpoint whose weights to start from: this suite's, Hugging Face's, TensorFlow's, NVIDIA's, OneFlow's, as "
        "convert_checkpoint.py lists them.",
    )
    keep_checkpoints: int = flag(3, "How many checkpoints to keep; the end of phase 1 is kept besides.", minimum=1)


def find_latest(directory: str | Path, notice: Callable[[str], None]) -> Path | None:
    """Return the good checkpoint of the highest step; ``notice`` is told of every skipped file."""
    candidates = list_checkpoints(directory)
    for path in sorted(set(Path(directory).glob("ckpt_*.pt")) - {*candidates, *Path(directory).glob(PATTERN)}):
        notice(f"{path} is ignored: it is not named ckpt_STEP.pt")
    for path in candidates:
        damage = find_damage(path)
        if damage is None:
            return path
        notice(f"{path} is skipped: it {damage}")
    return None


def resolve_resume(config: CheckpointConfig, directory: str | Path, notice: Callable[[str], None]) -> Path | None:
    """Return the checkpoint to continue from, or None for a fresh start.

    Raises UsageError where a fresh start would mix with an earlier run's checkpoints, where --resume_step names a bad
    file, and where there are checkpoints but no good one.
    """
    directory = Path(directory)
    if not config.resume_from_checkpoint:
        return _refuse_to_mix(config, directory)
    if config.resume_step >= 0:
        path = directory / f"ckpt_{config.resume_step}.pt"
        damage = find_damage(path)
        if damage is not None:
            raise UsageError(f"--resume_step {config.resume_step}: {path} {damage}")
        return path
    latest = find_latest(directory, notice)
    if latest is None:
        if list_checkpoints(directory):
            raise UsageError(
                f"--resume_from_checkpoint: all checkpoints in {directory} are damaged; expected a good one"
            )
        notice(f"--resume_from_checkpoint: no checkpoint in {directory}, starting fresh")
    return latest


def _refuse_to_mix(config: CheckpointConfig, directory: Path) -> None:
    if config.resume_step >= 0:
        raise UsageError(f"--resume_step {config.resume_step}: expected together with --resume_from_checkpoint")
    occupied = sorted(path.name for path in directory.glob("ckpt_*"))
    if occupied:
        raise UsageError(
            f"--output_dir {directory} holds {occupied[0]} of an earlier run: expected --resume_from_checkpoint or "
            "another directory"
        )


class Found(NamedTuple):
    """The checkpoint that a run continues from; neither, where it starts."""

    path: Path | None = None
    state: dict[str, Any] | None = None


def find_checkpoint(config: CheckpointConfig, output_dir: str, world: World, notice: Callable[[str], None]) -> Found:
    """Return the checkpoint in ``output_dir`` to continue from, the same on every rank.

    Rank 0 searches, verifies and reads; the others get what it read. Ranks that torchrun restarted continue whatever
    the flag says, because the checkpoints are their own.
    """
    if agree_any(world.restarts > 0) and not config.resume_from_checkpoint:
        notice(f"restart {world.restarts} by torchrun: continuing as with --resume_from_checkpoint")
        config = replace(config, resume_from_checkpoint=True)

    def read() -> tuple[str, dict[str, Any]] | None:
        path = resolve_resume(config, output_dir, notice)
        return None if path is None else (str(path), load(path))

    found = read_once(world, read)
    return Found() if found is None else Found(Path(found[0]), found[1])
