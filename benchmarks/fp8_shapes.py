"""Compare matrix products in FP8 and in bf16 at the shapes of BERT-large's linear layers.

    python benchmarks/fp8_shapes.py

FP8 is e4m3 with one scale for each matrix and a bf16 result, by cuBLAS. Both run in turns; the table shows medians and
the median of the ratios within a round. Converting to FP8 is not included: this is what there is to gain from it.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns, write_json
from bert.config import flag, run_command
from bert.errors import UsageError

SHAPES = ((1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024))  # queries, keys and values; output; feed-forward


@dataclass
class Fp8ShapesConfig:
    tokens: int = flag(24432, "Rows, of which FP8 needs a multiple of 16.", minimum=16)
    scale: int = flag(1, "Divide the sides of all matrices by this number.", minimum=1, maximum=64)
    device: str = flag("cuda", "cuda, or cpu to try the command.", choices=("cuda", "cpu"))
    rounds: int = flag(10, "Timed rounds.", minimum=1)
    steps: int = flag(20, "Products per turn.", minimum=1)
    json: str | None = flag(None, "Also write the results to this JSON file.")


def main(config: Fp8ShapesConfig) -> None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is available")
    if config.tokens % 16:
        raise UsageError(f"--tokens {config.tokens}: expected a multiple of 16")
    device = torch.device(config.device)
    rows = [measure(config, device, into, out) for into, out in SHAPES]
    print(f"{config.tokens} tokens on {describe_device(device)}, {plural(config.rounds, 'round')}\n")
    print("| features | bf16, TFLOP/s | FP8, TFLOP/s | FP8 is faster by |\n|---|---:|---:|---:|")
    for row in rows:
        print("| {contender} | {bf16:,.1f} | {fp8:,.1f} | {faster:.2f} x |".format(**row))
    write_json(config.json, device, rows)


def measure(config: Fp8ShapesConfig, device: torch.device, into: int, out: int) -> dict[str, Any]:
    """Return the row of a layer with ``into`` and ``out`` features."""
    tokens, inner, outer = config.tokens, into // config.scale, out // config.scale
    left, right = (torch.randn(rows, inner, device=device).bfloat16() for rows in (tokens, outer))
    small = [each.to(torch.float8_e4m3fn) for each in (left, right)]
    one = torch.ones((), device=device)
    contenders = {
        "bf16": partial(torch.matmul, left, right.t()),
        "fp8": partial(
            torch._scaled_mm, small[0], small[1].t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True
        ),
    }
    take_turns(contenders, 2, device, config.steps)
    seconds = take_turns(contenders, config.rounds, device, config.steps)
    rates = {name: 2e-12 * tokens * inner * outer / statistics.median(times) for name, times in seconds.items()}
    return {"contender": f"{into} to {out}", **rates, "faster": median_ratio(seconds["bf16"], seconds["fp8"])}


if __name__ == "__main__":
    run_command(main, Fp8ShapesConfig)
