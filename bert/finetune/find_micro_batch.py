"""The largest micro-batch that fits into memory, by sequence length: ``--find_micro_batch`` of fine-tuning commands.

Sequences have full length, the worst case. On a GPU, training steps of random tokens are tried at growing sizes until
memory runs out, and bisection finds the limit. On a CPU, which would swap instead, it is computed::

    bytes(n)     = fixed + n * per_sequence
    fixed        = parameters, gradients, moments, and what autograd keeps for any batch
    per_sequence = what autograd keeps of a sequence + the largest gradient on its way

Both come from the forward passes of one sequence and of two; where layers are recomputed, what one layer keeps is
added. From 16 to 32 sequences of 384 tokens (4 layers of 512; fp32 and bf16, kept and recomputed) the peak memory of a
real step grew by the computed amount to within 6 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from bert.batch import TaskBatch
from bert.checkpoint.open_model import load_model_config
from bert.distributed import World, join_world
from bert.errors import UsageError
from bert.finetune.adapters import configure_adapter
from bert.finetune.training import TrainingConfig, build_task_trainer, place
from bert.memory import build_release
from bert.model.attention import build_layout
from bert.model.config import BertConfig
from bert.model.layers import BertLayer
from bert.optim.host import HostOptimizer
from bert.sequences import Sequences, collate
from bert.tokenization import SPECIAL_TOKENS
from bert.train.precision import Precision
from bert.train.run import Run
from bert.train.trainer import Trainer

LENGTHS = (64, 128, 256, 320, 384, 512)  # those of the memory table in google-research/bert's README
MOST = 16384  # sequences; more are not tried on a GPU
MB, GB = 2**20, 2**30


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    length: int  # tokens
    size: int  # largest micro-batch in sequences, 0 where not even one fits
    per_sequence: int  # bytes, 0 where nothing could be measured


@dataclass(frozen=True)
class Memory:
    """Bytes that a run needs whatever its batch."""

    device: int  # parameters, gradients and moments
    host: int  # --optimize_on_cpu: fp32 parameters, gradients and moments


def find_micro_batches(config: TrainingConfig, build: Callable[[BertConfig], Any]) -> list[Row]:
    """Print the table for the model of the flags and return its rows; ``build`` makes the objective of a task.

    Raises UsageError for more than one process and for a limit that the device does not have.
    """
    config = replace(config, parallel=replace(config.parallel, cuda_graphs=False))  # each batch here is of a new shape
    with join_world(place(config)) as world:
        if world.size > 1:
            raise UsageError(f"--find_micro_batch: started as {world.size} processes, expected one")
        # A loss scale that cannot overflow: the first step is not skipped, and the moments exist after it.
        precision = Precision(replace(config.precision, loss_scale=1.0), world.device)
        model_config = load_model_config(config.model, config.checkpoint.init_checkpoint)
        configure_adapter(model_config, config.adapter)
        objective = build(model_config).to(world.device, precision.parameter_dtype)
        labels = objective.labels
        trainer = build_task_trainer(Run(config, world, precision), objective, random_sequences(1, 8, labels), 1)
        memory = memory_of(trainer, random_batch(1, 8, labels))
        limit = limit_of(config.run.memory_gb, memory, world)
        positions = model_config.max_position_embeddings
        lengths = [each for each in LENGTHS if each <= positions] or [positions]
        if world.device.type == "cuda":
            rows = [measure(trainer, length, labels, memory) for length in lengths]
        else:
            rows = [compute(trainer, model_config, length, labels, memory, limit) for length in lengths]
        print(table(rows, config, precision, memory, limit, world))
        return rows


def random_sequences(count: int, length: int, labels: Sequence[str]) -> Sequences:
    """Return ``count`` sequences of random tokens, half of them segment A; every label is 0."""
    tokens = np.random.default_rng(0).integers(0, len(SPECIAL_TOKENS), count * length, np.int32)  # any vocabulary's
    offsets = np.arange(count + 1, dtype=np.int64) * length
    return Sequences(
        tokens, offsets, np.full(count, length // 2, np.int32), {name: np.zeros(count, np.int64) for name in labels}
    )


def random_batch(count: int, length: int, labels: Sequence[str]) -> TaskBatch:
    """Return the same as one micro-batch."""
    return collate(random_sequences(count, length, labels), np.arange(count))


def memory_of(trainer: Trainer, batch: TaskBatch) -> Memory:
    """Take a step, so that there are moments; count what stays from step to step, and the gradients."""
    optimizer, parameters = trainer.optimizer, list(trainer.objective.parameters())
    trainer.train_step([batch], lambda: False)
    weights = _bytes(parameters) + _bytes(each.grad for each in parameters)
    trainer.apply()
    moments = _bytes(value for state in optimizer.state.values() for value in state.values())
    if not isinstance(optimizer, HostOptimizer):
        return Memory(weights + moments, 0)
    copies = [each for group in optimizer.param_groups for each in group["params"]]
    return Memory(weights, _bytes(copies) + _bytes(each.grad for each in copies) + moments)


def _bytes(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def limit_of(memory_gb: float, memory: Memory, world: World) -> int:
    """Return the bytes that a run on the device may take, what this process has of it already included."""
    wanted = round(memory_gb * GB)
    if world.device.type != "cuda":
        build_release(world.device)()
        return wanted or free_memory() + memory.device
    free, total = torch.cuda.mem_get_info(world.device)
    if wanted > total:
        raise UsageError(f"--memory_gb {memory_gb:g}: the device has {total / GB:.1f} GB")
    if wanted:
        torch.cuda.set_per_process_memory_fraction(wanted / total, world.device)
    return wanted or free + torch.cuda.memory_reserved(world.device)


def free_memory(meminfo: str | Path = "/proc/meminfo") -> int:
    """Return the bytes of main memory that programs can still get, as Linux estimates them."""
    try:
        lines = Path(meminfo).read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        raise UsageError("--memory_gb 0: cannot tell how much memory is free on this system; give a number") from None


# --- On a GPU: measured


def measure(trainer: Trainer, length: int, labels: Sequence[str], memory: Memory) -> Row:
    """Try steps on sequences of ``length`` until memory runs out."""
    size, peak = largest_that_fits(lambda count: peak_of(trainer, random_batch(count, length, labels)))
    return Row(length, size, max(0, peak - memory.device) // size if size else 0)


def peak_of(trainer: Trainer, batch: TaskBatch) -> int | None:
    """Return the most bytes that a training step held, None where it ran out of memory; all of it is free again."""
    device = trainer.world.device
    torch.cuda.reset_peak_memory_stats(device)
    try:
        trainer.train_step([batch], lambda: False)
        trainer.apply()
        peak = torch.cuda.max_memory_allocated(device)
    except torch.cuda.OutOfMemoryError:
        peak = None
    # Behind the except block, whose exception holds the frames of the step and so its tensors.
    trainer.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return peak


def largest_that_fits(peak_of: Callable[[int], int | None], most: int = MOST) -> tuple[int, int]:
    """Double, then bisect: (largest size that fits, its peak in bytes); (0, 0) where not even 1 does."""
    good, peak, bad = 0, 0, most + 1
    while bad - good > 1:
        trial = min(max(1, 2 * good), most) if bad > most else (good + bad) // 2
        found = peak_of(trial)
        if found is None:
            bad = trial
        else:
            good, peak = trial, found
    return good, peak


# --- On a CPU: computed


def compute(
    trainer: Trainer, model_config: BertConfig, length: int, labels: Sequence[str], memory: Memory, limit: int
) -> Row:
    """Count one sequence and two, and see how many fit ``limit``."""
    once, twice = (sum(kept_by_model(trainer, random_batch(count, length, labels))) for count in (1, 2))
    layer = [kept_by_layer(model_config, trainer, count, length) for count in (1, 2)]
    # Of a layer, the tensors that grow with the batch; the largest one's gradient is the most that is ever on its way.
    largest = max(Counter(layer[1]) - Counter(layer[0])) // 2
    recomputed = (sum(layer[1]) - sum(layer[0])) * trainer.run.settings.parallel.checkpoint_activations
    per_sequence = twice - once + recomputed + largest
    return Row(length, largest_within(limit, memory.device + 2 * once - twice, per_sequence), per_sequence)


def largest_within(limit: int, fixed: int, per_sequence: int) -> int:
    """Return the largest n with fixed + n * per_sequence <= limit, 0 where there is none."""
    return max(0, (limit - fixed) // per_sequence)


def kept_by_model(trainer: Trainer, batch: TaskBatch) -> list[int]:
    """Return the bytes of all that autograd keeps of a forward pass."""
    with trainer.precision.autocast():
        return kept_bytes(lambda: trainer.objective(batch), trainer.objective)


def kept_by_layer(model_config: BertConfig, trainer: Trainer, count: int, length: int) -> list[int]:
    """Return the bytes of all that autograd keeps of one layer that is not recomputed."""
    bert: Any = trainer.objective.model.bert  # type: ignore[union-attr]
    layer = BertLayer(model_config).to(trainer.precision.parameter_dtype)
    bounds = torch.arange(count + 1, dtype=torch.int32) * length
    layout = build_layout(bounds, length, count * length, bert.attention)
    hidden = torch.randn(count * length, model_config.hidden_size, dtype=trainer.precision.dtype, requires_grad=True)
    with trainer.precision.autocast():
        return kept_bytes(lambda: layer(hidden, layout), layer)


def kept_bytes(forward: Callable[[], Any], module: nn.Module) -> list[int]:
    """Return the bytes of each storage that autograd keeps of ``forward``; parameters of ``module`` are left out."""
    own = {each.untyped_storage().data_ptr() for each in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result  # only now: while the graph lives, no address is used twice
    return list(kept.values())


# --- The table


def table(
    rows: Sequence[Row], config: TrainingConfig, precision: Precision, memory: Memory, limit: int, world: World
) -> str:
    """Lay the result out in Markdown, with the accumulation that brings --train_batch_size down to what fits."""
    recomputed = "recomputed" if config.parallel.checkpoint_activations else "kept"
    how = "measured" if world.device.type == "cuda" else "computed"
    host = f", and {memory.host / GB:.2f} GB in host memory" if memory.host else ""
    batch = config.batch.train_batch_size
    lines = [
        f"{how} for {limit / GB:.3g} GB on {world.device}: {precision.name}, activations {recomputed}, "
        f"--optimizer {config.optimizer.optimizer}",
        f"parameters, gradients and moments: {memory.device / GB:.2f} GB{host}\n",
        f"| sequence length | largest micro-batch | MB per sequence | accumulation steps of {batch} |",
        "|---:|---:|---:|---:|",
    ]
    for row in rows:
        each = f"{row.per_sequence / MB:,.1f}" if row.per_sequence else "-"
        lines.append(f"| {row.length} | {row.size:,} | {each} | {accumulation(batch, row.size) or '-'} |")
    return "\n".join(lines)


def accumulation(batch: int, size: int) -> int:
    """Return the fewest steps that cut ``batch`` into equal micro-batches of at most ``size``, 0 where none fits."""
    return next((steps for steps in range(1, batch + 1) if batch % steps == 0 and batch // steps <= size), 0)
