"""Compare the LAMB step with torch.optim.AdamW(fused=True) and with the minimum memory traffic.

    python benchmarks/lamb.py                                    # BERT-large on a GPU, 29 M parameters on a CPU
    python benchmarks/lamb.py --parameters base --dtype bf16 --implementations triton,persistent,foreach

All contenders have tensors of BERT's real shapes and run in turns (A B C A B C ...). The table shows medians, and
medians of the ratios within a round. The floor is 34 bytes per parameter (the fp32 gradient read for its norm and for
the step, weight and both moments read and written, a bf16 copy written) at the speed of a large copy measured in the
same rounds. Every timed step computes the gradient norm and clips by it, as in training. On CUDA a step is a replayed
graph, because in training the CPU queues it during the backward pass.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns, write_json
from bert.config import flag, run_command
from bert.errors import UsageError
from bert.optim.build import apply_gradients, parameter_groups
from bert.optim.lamb import IMPLEMENTATIONS, Lamb
from bert.optim.lamb.optimizer import Update

FLOOR_BYTES = 34  # per parameter and step
SIZES = {"small": (4, 512), "base": (12, 768), "large": (24, 1024)}  # layers, hidden size
VOCABULARY = 30528
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Shapes = dict[str, tuple[int, ...]]


@dataclass
class LambBenchmarkConfig:
    parameters: str = flag(
        "", "small (29 M), base (110 M), large (336 M) or a number; if empty, large on a GPU and small on a CPU."
    )
    device: str = flag("auto", "cuda, cpu, or auto: cuda if available.", choices=("auto", "cuda", "cpu"))
    dtype: str = flag(
        "fp32",
        "Type of parameters and gradients; for bf16 and fp16 LAMB keeps fp32 master weights.",
        choices=(*DTYPES,),
    )
    implementations: str = flag(
        "auto",
        "LAMB's implementations, separated by commas: auto, triton, persistent, one_wave (triton on the whole model "
        "at once), blocked, foreach, reference.",
    )
    rounds: int = flag(20, "Timed rounds; every contender runs once in each.", minimum=1)
    warmup: int = flag(3, "Untimed rounds before those.", minimum=1)
    json: str | None = flag(None, "Also write the results to this JSON file.")


def bert_shapes(layers: int, hidden: int, vocabulary: int = VOCABULARY) -> Shapes:
    """Return name → shape of BERT's parameters with both pre-training heads."""

    def linear(name: str, out: int, into: int) -> Shapes:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    def norm(name: str) -> Shapes:
        return {f"{name}.LayerNorm.weight": (hidden,), f"{name}.LayerNorm.bias": (hidden,)}

    shapes: Shapes = {"words": (vocabulary, hidden), "positions": (512, hidden), "types": (2, hidden)} | norm("words")
    for i in range(layers):
        for name in ("query", "key", "value", "attention"):
            shapes |= linear(f"{i}.{name}", hidden, hidden)
        shapes |= norm(f"{i}.attention") | linear(f"{i}.intermediate", 4 * hidden, hidden)
        shapes |= linear(f"{i}.output", hidden, 4 * hidden) | norm(f"{i}.output")
    shapes |= linear("pooler", hidden, hidden) | linear("transform", hidden, hidden) | norm("transform")
    return shapes | {"decoder.bias": (vocabulary,)} | linear("next_sentence", 2, hidden)


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def shapes_of(parameters: str) -> Shapes:
    """Return the shapes of a named size or a number of parameters, half of them in layers, half in the vocabulary."""
    if parameters in SIZES:
        return bert_shapes(*SIZES[parameters])
    if not parameters.isdigit() or int(parameters) < 1_000_000:
        raise UsageError(f"--parameters {parameters}: expected small, base, large or a number of at least 1000000")
    wanted, hidden = int(parameters), 512 if int(parameters) >= 10_000_000 else 128
    layers = max(1, wanted // 2 // (12 * hidden * hidden))
    rest = wanted - count(bert_shapes(layers, hidden, 0))
    return bert_shapes(layers, hidden, max(1, rest // (hidden + 1)))


def random_groups(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> list[dict]:
    """Return parameter groups with gradients, grouped as for a model."""
    named = {name: torch.nn.Parameter(torch.randn(s, device=device).mul_(0.02).to(dtype)) for name, s in shapes.items()}
    for param in named.values():
        param.grad = torch.randn(param.shape, device=device).mul_(1e-3).to(dtype)
    return parameter_groups(named.items(), weight_decay=0.01)


def implementation(name: str) -> str | Update:
    if name == "one_wave":
        from bert.optim.lamb.triton import TritonUpdate

        return TritonUpdate(wave_elements=1 << 62)
    if name not in ("auto", *IMPLEMENTATIONS):
        known = ", ".join(("auto", "one_wave", *IMPLEMENTATIONS))
        raise UsageError(f"--implementations {name}: expected any of {known}, separated by commas")
    return name


def captured(optimizer: torch.optim.Optimizer, device: torch.device) -> Callable[[], object]:
    """Return the step; on CUDA a graph of it, so that time on the CPU, which training hides, does not count.

    LAMB's foreach and reference implementations read the step counter on the CPU, which a graph cannot do, so they run
    without one.
    """
    reads = isinstance(optimizer, Lamb) and optimizer.implementation in ("foreach", "reference")
    if device.type != "cuda" or reads:
        return lambda: apply_gradients(optimizer)
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compile the kernels and create the state
            apply_gradients(optimizer)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        apply_gradients(optimizer)
    return partial(_replay, graph, optimizer)


def _replay(graph: torch.cuda.CUDAGraph, optimizer: torch.optim.Optimizer) -> None:
    """Replay a graph. The argument keeps ``optimizer`` alive: the graph only has the addresses of its tensors."""
    graph.replay()


def print_table(title: str, parameters: int, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Print the table and return its rows."""
    copy = seconds.pop("copy")  # 8 bytes per parameter
    floor = [turn * FLOOR_BYTES / 8 for turn in copy]
    speed = parameters * 8 / statistics.median(copy) / 1e9
    shown = f"{statistics.median(floor) * 1e3:.2f} ms ({FLOOR_BYTES} bytes per parameter at {speed:,.0f} GB/s)"
    rows = [
        {
            "contender": name,
            "milliseconds": statistics.median(times) * 1e3,
            "best": min(times) * 1e3,
            "to_floor": median_ratio(times, floor),
            "to_adamw": median_ratio(times, seconds["AdamW, fused"]),
        }
        for name, times in seconds.items()
    ]
    print(f"{title}\nfloor: {shown}\n")
    print("| contender | median ms | best ms | time / floor | time / AdamW |\n|---|---:|---:|---:|---:|")
    for row in rows:
        print("| {contender} | {milliseconds:.2f} | {best:.2f} | {to_floor:.2f} | {to_adamw:.2f} |".format(**row))
    return rows


def main(config: LambBenchmarkConfig) -> None:
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UsageError("--device cuda: no CUDA device is available")
    device = torch.device("cuda" if config.device != "cpu" and cuda else "cpu")
    shapes = shapes_of(config.parameters or ("large" if device.type == "cuda" else "small"))
    dtype, parameters = DTYPES[config.dtype], count(shapes)
    source = torch.randn(parameters, device=device)
    target = torch.empty_like(source)
    contenders: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source)}
    for name in config.implementations.split(","):
        lamb = Lamb(random_groups(shapes, device, dtype), lr=1e-3, implementation=implementation(name))
        contenders[f"Lamb, {name}"] = captured(lamb, device)
    groups, on_gpu = random_groups(shapes, device, dtype), device.type == "cuda"
    contenders["AdamW, fused"] = captured(torch.optim.AdamW(groups, lr=1e-4, fused=True, capturable=on_gpu), device)
    take_turns(contenders, config.warmup, device)
    seconds = take_turns(contenders, config.rounds, device)
    title = f"{parameters:,} parameters in {len(shapes)} tensors, {config.dtype}, {plural(config.rounds, 'round')}"
    write_json(config.json, device, print_table(f"{title}; {describe_device(device)}", parameters, seconds))


if __name__ == "__main__":
    run_command(main, LambBenchmarkConfig)
