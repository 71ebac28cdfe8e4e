"""Where a pre-training run starts: fresh, in the middle of a phase, or at the beginning of phase 2.

Two phases are two runs of one program. The checkpoint records what connects them, so no flag has to::

    phase 1, finished at step 7038      --phase2 --resume_from_checkpoint      ->  phase 2, step 0, file offset 7038
    phase 2, interrupted at step 400    the same command                       ->  phase 2, step 400, file offset 7038
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bert.config import flag
from bert.errors import UsageError


@dataclass
class PhaseConfig:
    phase2: bool = flag(False, "Train phase 2: continue from the end of phase 1 with step and learning rate reset.")
    resume_phase2: bool = flag(
        False, "Accepted for existing scripts: a checkpoint of phase 2 is recognised and continued without it."
    )
    phase1_end_step: int = flag(
        7038, "Last step of phase 1, where the checkpoint does not record it. Checkpoint numbers count on from it."
    )


@dataclass(frozen=True)
class Start:
    """The beginning of a run."""

    phase: int
    offset: int = 0  # added to the step in checkpoint names
    training: dict[str, Any] = field(default_factory=dict)  # counters and data position to continue from; {} = fresh
    keep_moments: bool = False
    keep_scale: bool = False


def plan_start(checkpoint: dict[str, Any] | None, config: PhaseConfig, notice: Callable[[str], None]) -> Start:
    """Decide how to continue from ``checkpoint`` (None = none was found). Raises UsageError where phases do not fit."""
    if checkpoint is None:
        if config.phase2:
            notice("no checkpoint of phase 1 was given: phase 2 starts from the initial weights")
        return Start(phase=2 if config.phase2 else 1)
    if "phase" not in checkpoint and config.phase2 and checkpoint.get("optimizer"):
        notice("the checkpoint records no phase (not written by this suite): it is taken for the end of phase 1")
        return Start(phase=2, offset=config.phase1_end_step, keep_moments=True)
    if "phase" not in checkpoint:
        notice("the checkpoint records no phase (not written by this suite): its weights are used, its moments are not")
        return Start(phase=2 if config.phase2 else 1, offset=config.phase1_end_step if config.phase2 else 0)
    phase, step, last = checkpoint["phase"], checkpoint["training"]["step"], checkpoint["max_steps"]
    if phase == 2 and not config.phase2:
        raise UsageError("--resume_from_checkpoint: the newest checkpoint is of phase 2; add --phase2 to continue it")
    if phase == (2 if config.phase2 else 1):
        return Start(phase, checkpoint["offset"], checkpoint["training"], keep_moments=True, keep_scale=True)
    if step not in (last, config.phase1_end_step):
        raise UsageError(
            f"--phase2: phase 1 stopped at step {step} of {last}; finish it first, "
            f"or accept its state with --phase1_end_step {step}"
        )
    return Start(phase=2, offset=step, keep_moments=True)
