"""From flags to a trainer, and from a trainer to a checkpoint, for pre-training and fine-tuning alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from bert.config import to_dict
from bert.errors import UsageError
from bert.model.fp8_layers import apply_fp8
from bert.optim.build import build_optimizer, shard_optimizer
from bert.optim.host import HostOptimizer
from bert.optim.schedules import learning_rate
from bert.train.graphs import build_capture
from bert.train.parallel import apply_parallelism, check_compression, resolve_compile
from bert.train.run import Run
from bert.train.trainer import Trainer


def build_trainer(
    run: Run[Any], objective: Any, steps: int, flops: Callable[[Any], float], total_flops: float, on_host: bool = False
) -> Trainer:
    """Prepare ``objective`` for training with the optimizer and the schedule of the flags.

    ``steps`` is where the learning rate ends. ``flops`` counts the work of a micro-batch; ``total_flops``, that of the
    whole run on this device, decides whether compiling pays. ``on_host`` keeps moments and fp32 weights in host memory.
    """
    settings, model = run.settings, objective.model
    schedule = settings.schedule
    check_compression(settings.parallel, run.world, run.precision.half_parameters)
    if on_host and settings.optimizer.shard_optimizer:
        raise UsageError("--shard_optimizer: expected without --optimize_on_cpu, which keeps all moments on the host")
    # In fp32 on a CPU the time goes into products and an attention that no compiler changes: nothing is gained there.
    in_vain = run.world.device.type == "cpu" and run.precision.dtype == torch.float32
    compiled = resolve_compile(settings.parallel, run.world.device, 0.0 if in_vain else total_flops, run.notice)

    def build(trained: nn.Module) -> Any:
        own = {pattern: own / schedule.learning_rate for pattern, own in settings.optimizer.own_rates().items()}
        optimizer, world = build_optimizer(settings.optimizer, trained, own), run.world
        if not settings.optimizer.shard_optimizer or world.size == 1:
            return optimizer
        return shard_optimizer(optimizer, settings.optimizer.optimizer, world.rank, world.size)

    def rate(step: int) -> float:
        return learning_rate(schedule.lr_schedule, step, steps, schedule.warmup_proportion, schedule.learning_rate)

    if settings.precision.fp8:
        run.precision.fp8 = apply_fp8(model.bert)
    optimizer = HostOptimizer(model, build) if on_host else build(model)
    capture = build_capture(settings.parallel, objective, run.precision, run.notice)
    if capture and settings.parallel.compress_gradients != "none":
        raise UsageError("--compress_gradients bf16: expected without --cuda_graphs, which sums gradients by itself")
    layers = model.bert.encoder.layer
    wrapped = apply_parallelism(objective, layers, settings.parallel, run.world, compiled, capture is not None)
    return Trainer(run, wrapped, optimizer, rate, flops, capture)


def checkpoint_state(trainer: Trainer, model: nn.Module, **constant: Any) -> dict[str, Any]:
    """Return the checkpoint of this moment; ``constant`` is what every checkpoint of the run repeats."""
    return {
        "model": model.state_dict(),
        **trainer.state_dict(),
        "geometry": asdict(trainer.run.geometry),
        "flags": to_dict(trainer.run.settings),
        **constant,
    }
