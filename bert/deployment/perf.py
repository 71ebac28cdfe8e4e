"""Measure a served model with Triton's perf_analyzer: one run for each load, rows of one CSV, and a figure.

    rows = measure(plan, loads_of(plan))
    save_rows(rows, Path("performance.csv"))
    draw({"static": rows}, Path("performance.png"))

A load is a number of requests in flight, or of requests per second that arrive evenly or at random (Poisson).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert.config import load_json
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing

TOOL = Path(sys.prefix, "perf_analyzer")  # a folder: the program, and the libraries that it asks for in lib
TRIALS = 5  # windows until three in a row agree
ANY = 999  # percent by which three windows may differ where they never agree, as with random arrivals
RANDOM_IDS = 100  # a random token id is below, so that any vocabulary has it
RANDOM_ROWS = 64
# Parts of the mean latency in microseconds, as perf_analyzer calls them.
PARTS = ("Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input", "Server Compute Infer")
PARTS += ("Server Compute Output", "Client Recv")

AXES = {"Concurrency": "requests in flight", "Request Rate": "requests per second"}

Row = dict[str, Any]


class Load(NamedTuple):
    """What is sent: ``amount`` requests in flight ("concurrency"), or in a second ("constant", "poisson")."""

    batch: int
    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.kind} {self.amount:g}, batch {self.batch}"


def loads_of(args: argparse.Namespace) -> list[Load]:
    """Return the loads of the flags, with the rules of NVIDIA's script.

    Static batching is one client with each batch size. Dynamic batching is up to twice as many requests as the
    instances can batch, at most 256, in ``concurrency_steps`` steps.
    """
    if args.request_rates:
        return [Load(1, args.request_distribution, rate) for rate in args.request_rates]
    if args.batching_mode == "static":
        return [Load(batch, "concurrency", 1) for batch in args.batch_sizes]
    total = 2 * max(args.batch_sizes) * args.number_of_triton_instances * args.number_of_model_instances
    most = min(256, total)
    step = max(1, most // args.concurrency_steps)
    return [Load(max(1, total // 256), "concurrency", each) for each in range(step, most + step, step)]


def measure(args: argparse.Namespace, loads: Sequence[Load]) -> list[Row]:
    """Measure every load; one that stays unstable, or that the server fails, is reported and left out."""
    tool = TOOL / "perf_analyzer"
    if not tool.is_file():
        raise UsageError(f"{tool}: not installed: run `bash triton/install_perf_analyzer.sh`")
    rows: list[Row] = []
    for load in loads:
        row, reason = None, "not stable"
        if load.kind != "poisson":
            row, reason = run_once(args, load)
        if row is None and "stable" in reason:
            # Not with --request-count, whose rates are rounded to whole seconds.
            row, reason = run_once(args, load, ["--stability-percentage", str(ANY)])
        if row is None:
            print(f"{load}: {reason}", file=sys.stderr)
        else:
            rows.append(row)
            rate, latency = row["Inferences/Second"], row["avg latency"]
            print(f"{load}: {rate} inferences/s, {latency / 1000:.1f} ms", flush=True)
    if not rows:
        raise UsageError(f"--model-name {args.model_name}: no load could be measured")
    return rows


def run_once(args: argparse.Namespace, load: Load, more: Sequence[str] = ()) -> tuple[Row | None, str]:
    """Run perf_analyzer until three windows agree; returns its row, or None and the reason."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.csv")
        data = shuffled(Path(args.input_data), Path(folder, "data.json"))
        command = [str(TOOL / "perf_analyzer"), "--input-data", str(data), "-f", str(report)]
        command += [*flags_of(args, load), *more]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(TOOL / "lib")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        output = f"{done.stdout}\n{done.stderr}"
        if args.verbose:
            print(output, file=sys.stderr)
        if not report.is_file():
            lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
            return None, next((line for line in lines if "error" in line.lower()), lines[-1])
        with report.open(encoding="utf8") as file:
            found = {name: value for name, value in next(csv.DictReader(file)).items() if name}
    latency = sum(int(float(found.get(part) or 0)) for part in PARTS)
    return {"Batch": load.batch, "Load": load.kind, **found, "avg latency": latency}, ""


def shuffled(source: Path, target: Path) -> Path:
    """Write the samples in another order each time, so that a server's cache does not know the first ones."""
    data = load_json(source, "--input-data")
    if not isinstance(data.get("data"), list):
        raise UsageError(f'--input-data {source}: expected {{"data": [...]}}; prepare_input_data.py writes it')
    random.shuffle(data["data"])
    target.write_text(json.dumps(data), encoding="utf8")
    return target


def flags_of(args: argparse.Namespace, load: Load) -> list[str]:
    """Return perf_analyzer's flags for a load."""
    protocol, _, address = args.server_url.rpartition("://")
    flags = ["-m", args.model_name, "-u", address, "-i", protocol or "grpc", "-b", str(load.batch)]
    flags += ["--max-trials", str(TRIALS), "--measurement-mode", args.measurement_mode]
    flags += ["--measurement-interval", str(args.measurement_interval)]
    flags += ["--measurement-request-count", str(args.measurement_request_count)]
    if load.kind == "concurrency":
        flags += ["--concurrency-range", str(int(load.amount))]
    else:
        flags += ["--request-rate-range", str(load.amount), "--request-distribution", load.kind]
    for shape in args.input_shapes:
        flags += ["--shape", shape]
    if args.evaluation_mode == "offline":
        flags += ["--shared-memory", args.offline_mode]
        flags += ["--output-shared-memory-size", str(args.output_shared_memory_size)]
    key = os.environ.get("BERT_SERVE_ADMIN_KEY")
    # perf_analyzer reads the model's configuration and statistics, and takes the key for them in no other way.
    headers = {"grpc": "triton-grpc-protocol-admin-key", "http": "admin-key"}
    return [*flags, "-H", f"{headers[protocol or 'grpc']}:{key}"] if key else flags


def random_data(names: Sequence[str], shapes: Sequence[str]) -> dict[str, list[Row]]:
    """Return random inputs: token ids of the lengths in ``shapes``, NAME:LENGTH, or texts for a model that reads text.

    perf_analyzer's own would be ids that no vocabulary has.
    """
    draw = np.random.default_rng(0)
    if "question" in names:
        words = ["river", "city", "north", "built", "seven", "old", "bridge", "war", "king", "market"]
        texts = [" ".join(draw.choice(words, size)) for size in draw.integers(40, 160, RANDOM_ROWS)]
        return {"data": [{"question": ["What is old?"], "context": [text]} for text in texts]}
    lengths = dict(shape.rsplit(":", 1) for shape in shapes)
    highest = {"input__0": RANDOM_IDS, "input__1": 2}
    rows = []
    for _ in range(RANDOM_ROWS):
        sizes = {name: int(lengths.get(name, "128").split(",")[-1]) for name in names}
        rows.append({
            name: [1] * size if name == "input__2" else draw.integers(0, highest.get(name, 2), size).tolist()
            for name, size in sizes.items()
        })  # fmt: skip
    return {"data": rows}


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """Write the CSV."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with naming_os_errors(f"--result-path {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """Read a CSV of :func:`save_rows`."""
    with naming_os_errors(f"--results {path}"), path.open(encoding="utf8", newline="") as file:
        rows: list[Row] = list(csv.DictReader(file))
    if not rows or "Inferences/Second" not in rows[0]:
        raise UsageError(f"--results {path}: not a CSV of run_performance_on_triton.py")
    return rows


def draw(files: dict[str, list[Row]], path: Path) -> None:
    """Draw throughput and latency against requests in flight (above) and requests a second (below)."""
    try:
        from matplotlib.figure import Figure  # imported here: measuring does not need it
    except ImportError as error:
        raise UsageError("matplotlib is not installed: run `bash triton/setup.sh report`") from error
    columns = [each for each in AXES if any(each in row for rows in files.values() for row in rows)]
    figure = Figure(figsize=(9, 3.4 * len(columns)), layout="constrained")
    for axes, column in zip(figure.subplots(len(columns), 2, squeeze=False), columns, strict=True):
        for name, rows in files.items():
            _draw_lines(axes, name, column, [row for row in rows if column in row])
        for each, title in zip(axes, ("inferences per second", "latency in ms"), strict=True):
            each.set(title=title, xlabel=AXES[column], xlim=(0, None), ylim=(0, None))
            each.grid(alpha=0.3)
            each.legend(fontsize="small")
    with naming_os_errors(f"--output {path}"), replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_lines(axes: Any, name: str, column: str, rows: list[Row]) -> None:
    speed, latency = axes
    for kind, batch in dict.fromkeys((row["Load"], row["Batch"]) for row in rows):
        chosen = [row for row in rows if (row["Load"], row["Batch"]) == (kind, batch)]
        x, label = [float(row[column]) for row in chosen], f"{name}, {kind}, batch {batch}"
        line = speed.plot(x, [float(row["Inferences/Second"]) for row in chosen], marker="o", label=label)[0]
        for percentile, style in (("p50", "-"), ("p99", ":")):
            values = [float(row[f"{percentile} latency"]) / 1000 for row in chosen]
            latency.plot(x, values, style, marker="o", color=line.get_color(), label=f"{label}, {percentile}")


def write_data(data: dict[str, list[Row]], path: Path) -> None:
    """Write inputs for perf_analyzer."""
    with naming_os_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data), encoding="utf8")
