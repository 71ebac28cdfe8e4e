"""What is done to a model from outside, in one order: half parameters or FP8 → checkpointing → compile → DDP.

The model knows none of it, and its state-dict names stay as they are::

    model.to(device)
    objective = apply_parallelism(PreTrainingObjective(model), model.bert.encoder.layer, ...)   # call this to train
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton_package
from torch.utils.checkpoint import checkpoint

from bert.config import flag
from bert.distributed import World
from bert.errors import UsageError
from bert.model.objective import MultiTaskObjective, QuestionAnsweringObjective

# Compiling costs about a minute and saves 10 to 30 % of a run, so it pays on runs longer than this, in seconds.
COMPILE_PAYS_AFTER = 600.0
EAGER_FLOPS = {"cpu": 1e11, "cuda": 1e14}  # FLOP/s, the order of magnitude that eager code reaches


@dataclass
class ParallelConfig:
    checkpoint_activations: bool = flag(
        False, "Recompute each layer in the backward pass instead of keeping its activations: less memory, 1/3 slower."
    )
    compile: str = flag(
        "auto",
        "torch.compile the layers: on, off, or auto = where a compiler is found and the run is long enough to pay; "
        "not in fp32 on a CPU.",
        choices=("auto", "on", "off"),
    )
    cuda_graphs: bool | None = flag(
        None,
        "Replay micro-steps and updates as CUDA graphs, on batches padded to a few shapes: on, off, or auto (default). "
        "auto is off until graphs have been proved on a GPU: try on.",
    )
    disable_jit_fusions: bool = flag(False, "NVIDIA's name for --compile off.")
    compress_gradients: str = flag(
        "none",
        "Number format of gradients on their way between ranks: none = their own, or bf16 = half the bytes of fp32.",
        choices=("none", "bf16"),
    )
    allreduce_post_accumulation: bool = flag(
        True, "All-reduce gradients once per optimizer step; false = after every micro-batch, the same result slower."
    )


def apply_parallelism(
    objective: Any,
    layers: Iterable[nn.Module],
    config: ParallelConfig,
    world: World,
    compiled: bool,
    graphs: bool = False,
) -> nn.Module:
    """Prepare an objective of :mod:`bert.model.objective` in place, checkpointing its transformer ``layers``.

    Returns what to call for training. With ``graphs`` the gradients are summed by :mod:`bert.train.graphs`, not by DDP.
    """
    if config.checkpoint_activations:
        apply_activation_checkpointing(layers)
    if compiled:
        for unit in objective.compile_units():  # unit by unit: equal layers share one compilation
            unit.compile(dynamic=True)  # the number of tokens differs from batch to batch
    if world.size == 1:
        return objective
    if graphs:
        for parameter in objective.parameters():  # as DDP does
            dist.broadcast(parameter.data, 0)
        return objective
    ids = [world.device] if world.device.type == "cuda" else None
    # A step need not use every task's own modules, and answers do not use the pooler.
    unused = isinstance(objective, MultiTaskObjective | QuestionAnsweringObjective)
    wrapped = DistributedDataParallel(
        objective, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=unused
    )
    if config.compress_gradients == "bf16":
        wrapped.register_comm_hook(None, bf16_compress_hook)
    return wrapped


def check_compression(config: ParallelConfig, world: World, half_parameters: bool) -> None:
    """Raise UsageError where --compress_gradients has nothing to compress, or PyTorch cannot."""
    if config.compress_gradients == "none" or world.size == 1:
        return
    if half_parameters:
        raise UsageError(
            "--compress_gradients bf16: expected without --allreduce_post_accumulation_fp16, whose gradients have two "
            "bytes already"
        )
    if world.device.type != "cuda":
        raise UsageError(f"--compress_gradients bf16: expected GPUs, found --device {world.device.type}")


def apply_activation_checkpointing(layers: Iterable[nn.Module]) -> None:
    """Recompute each layer in the backward pass (Chen et al. 2016)."""
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)  # type: ignore[method-assign]


def resolve_compile(config: ParallelConfig, device: torch.device, flops: float, notice: Callable[[str], None]) -> bool:
    """Decide ``--compile``; ``flops`` is the work of the whole run. A missing compiler is a notice, not a crash."""
    mode = config.compile
    if mode == "off" or config.disable_jit_fusions:
        return False
    missing = missing_compiler(device)
    if missing:
        if mode == "on":
            notice(f"--compile on: {missing}; running without compilation")
        return False
    pays = mode == "on" or flops / EAGER_FLOPS[device.type] > COMPILE_PAYS_AFTER
    if pays:
        notice("compiling the model: the first steps take a minute or two (--compile off to do without)")
    return pays


def missing_compiler(device: torch.device) -> str | None:
    """Return what torch.compile lacks on this machine, or None."""
    if device.type == "cuda":
        return None if has_triton_package() else "the triton package is not installed"
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"no C++ compiler ({compiler}) was found"


def accumulate(objective: nn.Module, last: bool, config: ParallelConfig) -> AbstractContextManager:
    """Return the context of one micro-batch: gradients stay local unless it is the last one of the step."""
    if isinstance(objective, DistributedDataParallel) and config.allreduce_post_accumulation and not last:
        return objective.no_sync()
    return nullcontext()
