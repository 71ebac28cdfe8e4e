"""Batch sizes: micro-batch × accumulation steps × devices = global batch, in sequences."""

from __future__ import annotations

from dataclasses import dataclass

from bert.config import flag
from bert.errors import UsageError


@dataclass
class BatchConfig:
    train_batch_size: int = flag(
        32, "Sequences per device and optimizer step, before it is cut into micro-batches.", minimum=1
    )
    gradient_accumulation_steps: int = flag(1, "Micro-batches that --train_batch_size is cut into.", minimum=1)
    global_batch_size: int = flag(
        0, "Sequences per optimizer step over all devices; replaces --train_batch_size. 0 = not set.", minimum=0
    )


@dataclass(frozen=True)
class BatchGeometry:
    """micro-batch × accumulation steps × world size = global batch, in sequences."""

    micro: int
    accumulation: int
    world: int

    @property
    def global_batch(self) -> int:
        return self.micro * self.accumulation * self.world

    def banner(self) -> str:
        return (
            f"batch: {self.micro} sequences per micro-batch x {self.accumulation} accumulation steps "
            f"x {self.world} devices = {self.global_batch} per optimizer step"
        )


def batch_geometry(config: BatchConfig, world_size: int) -> BatchGeometry:
    """Resolve the batch flags; NVIDIA's meaning: --train_batch_size is per device, before accumulation."""
    per_device, steps = config.train_batch_size, config.gradient_accumulation_steps
    if config.global_batch_size:
        if config.global_batch_size % world_size:
            raise UsageError(f"--global_batch_size {config.global_batch_size} is not divisible by {world_size} devices")
        per_device = config.global_batch_size // world_size
    if per_device % steps:
        name = "--global_batch_size / devices =" if config.global_batch_size else "--train_batch_size"
        raise UsageError(f"{name} {per_device} is not divisible by --gradient_accumulation_steps {steps}")
    return BatchGeometry(per_device // steps, steps, world_size)
