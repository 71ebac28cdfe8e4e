"""Predict the throughput of a cluster from one GPU's rate and a model of the gradient's all-reduce.

    python benchmarks/scaling.py                     # all systems, next to published figures
    python benchmarks/scaling.py --systems dgxa100 --phase 1 --sequences_per_second 900     # your own rate
    python benchmarks/scaling.py --measure 2 3 4     # the all-reduce model against gloo on this machine
    python benchmarks/scaling.py --choices           # control plane, sharded optimizer and bf16 gradients on 1,024 GPUs

One optimizer step with global batch G on N GPUs takes  T(N) = G / (N r) + T_optimizer + T_allreduce(N)  seconds, where
r is one GPU's rate in sequences/s; nothing overlaps. ``docs/scaling.md`` derives the formula and shows the results.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.allreduce import measure_allreduce
from bert.config import flag, run_command
from bert.errors import UsageError

PARAMETERS = 336e6  # BERT-large with both heads
OPTIMIZER_BYTES = 48  # memory traffic per parameter of NVIDIA's LAMB
LARGEST = 30_528 * 1_024  # parameters of the word embeddings, which a sharded optimizer does not divide
GLOBAL_BATCH = {1: 65_536, 2: 32_768}  # of the published recipe
NODES = (1, 4, 16, 32, 64, 128)


@dataclass(frozen=True)
class System:
    """A machine of the cluster. Speeds are from data sheets, in bytes/s in one direction."""

    name: str
    gpus: int
    nvlink: float  # per GPU
    network: float  # per machine
    memory: float  # per GPU
    source: str  # of the published figures
    rates: dict[int, float] = field(default_factory=dict)  # phase → sequences/s per GPU
    published: dict[int, dict[int, float]] = field(default_factory=dict)  # phase → machines → total sequences/s


README = "NVIDIA's BERT for PyTorch, README of 2020: mixed precision, 19.07 container"
DGX1 = {1: {1: 874.24, 4: 3089.76, 16: 12144.64}, 2: {1: 195.93, 4: 700.16, 16: 2746.368}}
DGX2H = {
    1: {1: 3379.2, 4: 12709.88, 16: 51937.28, 64: 188088.32},
    2: {1: 625.66, 4: 2386.38, 16: 9932.8, 64: 37478.4},
}
A100 = "NVIDIA's BERT for PyTorch: one A100, mixed precision; phase 2 on data binned by length"
H200 = "MLPerf Training v4.1: 8 GPUs, FP8, 254.5 real tokens per sequence"
SYSTEMS = {
    "dgx1": System("DGX-1 (8 x V100)", 8, 150e9, 50e9, 0.9e12, README, published=DGX1),
    "dgx2h": System("DGX-2H (16 x V100)", 16, 150e9, 100e9, 0.9e12, README, published=DGX2H),
    "dgxa100": System("DGX A100 (8 x A100)", 8, 300e9, 200e9, 2.0e12, A100, {1: 580.0, 2: 210.0}),
    "h200": System("8 x H200", 8, 450e9, 400e9, 4.8e12, H200, {2: 1064.0}),
}


@dataclass
class ScalingConfig:
    systems: list[str] | None = flag(None, f"Any of {', '.join(SYSTEMS)}; all if omitted.")
    phase: int = flag(0, "Phase 1 (128 tokens) or 2 (512 tokens); 0 = both.", choices=(0, 1, 2))
    sequences_per_second: float = flag(0.0, "Measured rate of one GPU; 0 = the published one.", minimum=0)
    gradient_bytes: int = flag(2, "Bytes per gradient element; 2 = half-precision parameters.", choices=(2, 4))
    efficiency: float = flag(0.75, "Share of the data-sheet bandwidths reached in practice.", minimum=0.01, maximum=1)
    nvlink_latency: float = flag(3e-6, "Seconds per message within a machine.", minimum=0)
    network_latency: float = flag(10e-6, "Seconds per message between machines.", minimum=0)
    parameter_bytes: int = flag(4, "Bytes per parameter that a sharded optimizer gathers.", choices=(2, 4))
    shard_optimizer: bool = flag(False, "Divide the optimizer among the GPUs and gather the new parameters.")
    control: str = flag(
        "none",
        "What the ranks exchange on the host: none, gathered = in each step's way, tree = behind the step.",
        choices=("none", "gathered", "tree"),
    )
    host_latency: float = flag(20e-6, "Seconds per message between hosts, over TCP.", minimum=0)
    choices: bool = flag(False, "Instead, compare these choices on the largest number of GPUs.")
    plot: str | None = flag(None, "Image file for a plot of the efficiencies.")
    measure: list[int] | None = flag(
        None, "Instead, time gloo with these numbers of processes and fit the ring formula."
    )


def ring(ranks: int, size: float, latency: float, bandwidth: float) -> float:
    """Return the seconds of a ring all-reduce: 2 (p - 1) successive messages of size / p (Patarasuk and Yuan 2009)."""
    return 2 * (ranks - 1) * (latency + size / ranks / bandwidth)


def tree(ranks: int, size: float, latency: float, bandwidth: float) -> float:
    """Return the seconds of a pipelined double binary tree: fewer messages, twice the bytes (Sanders et al. 2009)."""
    return 2 * math.ceil(math.log2(ranks)) * latency + 2 * size / bandwidth if ranks > 1 else 0.0


def allreduce_seconds(system: System, nodes: int, config: ScalingConfig) -> float:
    """Return the seconds of an all-reduce of the gradient: a ring within machines, a ring or tree between them.

    Between machines all GPUs send their shares of the gradient at once over their shares of the network, which equals
    one all-reduce of the whole gradient at the machine's bandwidth.
    """
    size = PARAMETERS * config.gradient_bytes
    inside = ring(system.gpus, size, config.nvlink_latency, system.nvlink * config.efficiency)
    between = nodes, size, config.network_latency, system.network * config.efficiency
    return inside + min(ring(*between), tree(*between))


def step_seconds(system: System, phase: int, nodes: int, rate: float, config: ScalingConfig) -> float:
    """Return the seconds of one optimizer step with the recipe's global batch."""
    gpus = nodes * system.gpus
    optimizer = PARAMETERS * OPTIMIZER_BYTES / (system.memory * config.efficiency)
    if config.shard_optimizer and gpus > 1:
        optimizer *= max(1 / gpus, LARGEST / PARAMETERS)
        # A gather is the second half of an all-reduce.
        optimizer += allreduce_seconds(system, nodes, replace(config, gradient_bytes=config.parameter_bytes)) / 2
    step = GLOBAL_BATCH[phase] / (gpus * rate) + optimizer + allreduce_seconds(system, nodes, config)
    return step + control_seconds(gpus, step, config)


def control_seconds(ranks: int, step: float, config: ScalingConfig) -> float:
    """Return how much longer the exchange on the host makes a step of ``step`` seconds.

    Gathered errors are a ring of n - 1 messages and a vote to stop 2 (n - 1), all waited for; a tree's messages pass
    behind the step.
    """
    if config.control == "gathered":
        return 3 * (ranks - 1) * config.host_latency
    tree_seconds = (math.ceil(math.log2(ranks)) + 2) * config.host_latency if config.control == "tree" else 0.0
    return max(tree_seconds - step, 0.0)


def compare_choices(system: System, phase: int, config: ScalingConfig) -> str:
    """Return a Markdown table of the step on the most GPUs, up to 1,024, with each choice; from fp32 parameters on."""
    rate, nodes = compute_rate(system, phase, config), max(n for n in NODES if n * system.gpus <= 1024)
    start = replace(config, gradient_bytes=4, parameter_bytes=4, shard_optimizer=False, control="gathered")
    tree = replace(start, control="tree")
    bf16 = replace(tree, gradient_bytes=2)
    rows = {
        "messages gathered in each step, gradients in fp32": start,
        "one sum behind the step": tree,
        "and `--compress_gradients bf16`": bf16,
        "and `--shard_optimizer`": replace(bf16, shard_optimizer=True),
        "`--shard_optimizer`, parameters and gradients in half precision": replace(
            bf16, shard_optimizer=True, parameter_bytes=2
        ),
    }
    lines = ["| choice | step, ms | sequences/s |", "|---|---:|---:|"]
    for name, choice in rows.items():
        step = step_seconds(system, phase, nodes, rate, choice)
        lines.append(f"| {name} | {1e3 * step:.1f} | {GLOBAL_BATCH[phase] / step:,.0f} |")
    return "\n".join(lines)


def compute_rate(system: System, phase: int, config: ScalingConfig) -> float:
    """Return r: given, published for one GPU, or derived from one machine's published rate without its overheads."""
    if config.sequences_per_second or phase in system.rates:
        return config.sequences_per_second or system.rates[phase]
    overhead = step_seconds(system, phase, 1, math.inf, config)
    batch = GLOBAL_BATCH[phase]
    return batch / system.gpus / (batch / system.published[phase][1] - overhead)


def predictions(system: System, phase: int, config: ScalingConfig) -> list[dict[str, float]]:
    """Return a row per number of machines, up to 1,024 GPUs; efficiency is relative to one machine."""
    rate, batch = compute_rate(system, phase, config), GLOBAL_BATCH[phase]
    alone = batch / step_seconds(system, phase, 1, rate, config)
    rows = []
    for nodes in (n for n in NODES if n * system.gpus <= 1024):
        step = step_seconds(system, phase, nodes, rate, config)
        rows.append(
            {
                "nodes": nodes,
                "gpus": nodes * system.gpus,
                "step": step,
                "allreduce": allreduce_seconds(system, nodes, config),
                "predicted": batch / step,
                "efficiency": batch / step / nodes / alone,
                "published": system.published.get(phase, {}).get(nodes, math.nan),
            }
        )
    return rows


def format_rows(rows: list[dict[str, float]]) -> str:
    """Return a Markdown table."""
    names = ("machines", "GPUs", "all-reduce, ms", "step, ms", "sequences/s", "efficiency", "published", "ratio")
    lines = [f"| {' | '.join(names)} |", "|---:" * len(names) + "|"]
    for row in rows:
        known = not math.isnan(row["published"])
        published = f"{row['published']:,.0f} | {row['predicted'] / row['published']:.3f}" if known else " | "
        lines.append(
            f"| {row['nodes']} | {row['gpus']} | {1e3 * row['allreduce']:.1f} | {1e3 * row['step']:,.0f} "
            f"| {row['predicted']:,.0f} | {row['efficiency']:.1%} | {published} |"
        )
    return "\n".join(lines)


def plot(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Plot efficiency over GPUs: predictions as lines, published figures as points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="GPUs", ylabel="efficiency relative to one machine", xscale="log")
    for name, rows in curves.items():
        (line,) = axes.plot([row["gpus"] for row in rows], [row["efficiency"] for row in rows], label=name)
        known = [row for row in rows if not math.isnan(row["published"])]
        shares = [row["published"] / row["nodes"] / known[0]["published"] for row in known]
        axes.plot([row["gpus"] for row in known], shares, "o", color=line.get_color())
    axes.set_xticks([8, 32, 128, 512, 1024], ["8", "32", "128", "512", "1024"], minor=False)
    axes.set_ylim(0.5, 1.02)
    axes.legend(title="lines: predicted; points: published")
    axes.grid(alpha=0.3)
    figure.savefig(path)


def main(config: ScalingConfig) -> None:
    if config.measure:
        measure_allreduce(config.measure, ring)
        return
    chosen = config.systems or list(SYSTEMS)
    for name in chosen:
        if name not in SYSTEMS:
            raise UsageError(f"--systems {name}: expected any of {', '.join(SYSTEMS)}")
    curves = {}
    for system in (SYSTEMS[name] for name in chosen):
        source = "--sequences_per_second" if config.sequences_per_second else system.source
        for phase in {**system.rates, **system.published}:
            if config.phase in (0, phase):
                if config.choices:
                    print(
                        f"\n{system.name}, phase {phase}, up to 1,024 GPUs\n\n{compare_choices(system, phase, config)}"
                    )
                    continue
                rows = predictions(system, phase, config)
                rate = f"{compute_rate(system, phase, config):.1f} sequences/s per GPU ({source})"
                print(f"\n{system.name}, phase {phase}, global batch {GLOBAL_BATCH[phase]:,}: {rate}")
                print(f"\n{format_rows(rows)}")
                curves[f"{system.name}, phase {phase}"] = rows
    if config.plot and curves:
        plot(curves, Path(config.plot))


if __name__ == "__main__":
    run_command(main, ScalingConfig)
