"""Measure everything that needs a GPU, within eight minutes, and write one table of figures and goals.

    bash scripts/gpu_check.sh
    bash scripts/gpu_check.sh --parts squad lamb --output squad.md

Each part is a command with a time limit of its own. One that fails or runs out of time is a row that says so, and the
others go on. What each printed is in a folder beside the table. The whole ends within --minutes: parts that are not
reached by then are named, and --parts measures them in another run. Without a GPU nothing runs, and the table says
"not measured". transformers and flash_attn, the peers, are optional.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.config import flag, run_command
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing

ROOT = Path(__file__).resolve().parents[1]
MARGIN = 10  # seconds kept for the table
FORMATS: dict[str, Callable[[float], str]] = {
    "share": lambda value: f"{value:.1%}".replace("%", " %"),
    "ratio": lambda value: f"{value:.2f} ×",
    "ms": lambda value: f"{value:.1f} ms",
    "sequences/s": lambda value: f"{value:,.0f} sequences/s",
    "tests": lambda value: f"{value:.0f}",
}


@dataclass(frozen=True)
class Row:
    """A figure of the table: ``key`` of that row of a part's results which has the values of ``where``."""

    what: str
    key: str
    unit: str
    where: Mapping[str, str] = field(default_factory=lambda: {"contender": "this suite"})
    least: float | None = None  # the goal
    most: float | None = None
    needs: str = ""  # a package without which there is no such contender


@dataclass(frozen=True)
class Part:
    command: str
    seconds: int
    rows: tuple[Row, ...]


def peer(title: str, work: str | None = None) -> dict[str, str]:
    return {"contender": title} | ({"work": work} if work else {})


LARGE = "python benchmarks/pretrain.py --preset large --bf16 --compile on --optimizer lamb --peers none --rounds 5"
BASE = "python benchmarks/pretrain.py --preset base --bf16 --compile on --sequences 256 --peers best --rounds 5"
MIX = f"{LARGE} --lengths mlperf --max_seq_length 512 --sequences 96"
SQUAD = "python benchmarks/squad.py --preset base --bf16 --compile on --batch_size 32 --articles 1000 --rounds 5"
EXAMPLE, SORTED, FLASH = (
    "transformers as in its example",
    "transformers, sorted and compiled",
    "transformers, sorted, FlashAttention 2",
)


def large_rows(name: str) -> tuple[Row, Row]:
    return (
        Row(f"{name}: share of the ceiling", "of_ceiling", "share", least=0.75),
        Row(name, "sequences_per_second", "sequences/s"),
    )


def base_rows(name: str, **goals: float) -> tuple[Row, ...]:
    best, host = goals.get("best"), goals.get("host")
    return (
        Row(f"{name}, against transformers at its best", "faster", "ratio", peer("transformers, at its best"),
            least=best, needs="transformers"),
        Row(f"{name}: a step", "milliseconds", "ms"),
        Row(f"{name}: the host's part of it", "host_milliseconds", "ms", most=host),
    )  # fmt: skip


def squad_rows(work: str, example: float | None, sorted_: float | None) -> tuple[Row, ...]:
    name = f"SQuAD {work}, BERT-base, bf16, against "
    return (
        Row(name + "transformers' example", "faster", "ratio", peer(EXAMPLE, work), example, needs="transformers"),
        Row(name + "sorted and compiled", "faster", "ratio", peer(SORTED, work), sorted_, needs="transformers"),
        Row(name + "sorted with FlashAttention 2", "faster", "ratio", peer(FLASH, work), needs="flash_attn"),
    )


# In order of importance: the last ones are those that a slow machine does not reach.
PARTS = {
    "tests": Part(
        "python -m pytest -q -m gpu", 120,
        (Row("tests marked gpu that fail", "failed", "tests", {}, most=0), Row("that pass", "passed", "tests", {})),
    ),
    "lamb": Part(
        "python benchmarks/lamb.py", 40,
        (Row("LAMB, 336 M parameters, time over the least memory traffic", "to_floor", "ratio",
             peer("Lamb, auto"), most=1.2),),
    ),
    "phase1": Part(f"{LARGE} --sequences 256", 100, large_rows("BERT-large, bf16, 128 tokens")),
    "phase2": Part(f"{LARGE} --sequences 64 --max_seq_length 512", 80, large_rows("BERT-large, bf16, 512 tokens")),
    "base": Part(BASE, 100, base_rows("BERT-base, bf16, 128 tokens")),
    "squad": Part(
        f"{SQUAD} --peers example,sorted,unpadded", 120,
        (*squad_rows("training", 2.0, 1.2), *squad_rows("prediction", None, None)),
    ),
    "graphs": Part(f"{BASE} --cuda_graphs on", 100, base_rows("the same with CUDA graphs", best=1.7, host=2.0)),
    "fp8": Part(
        f"{MIX} --fp8", 80,
        (Row("BERT-large, FP8, MLPerf's mix of lengths", "sequences_per_second", "sequences/s", least=1200),),
    ),
    "accumulation": Part(
        f"{LARGE} --sequences 64 --accumulation 16 --steps 1", 80,
        (Row("16 micro-batches of 64, speed against few large ones", "faster", "share", peer("this suite, *"),
             least=0.99),),
    ),
    "mix": Part(MIX, 60, (Row("BERT-large, bf16, MLPerf's mix", "sequences_per_second", "sequences/s"),)),
    "shapes": Part(
        "python benchmarks/fp8_shapes.py", 30,
        tuple(Row(f"FP8 matrix product over bf16's, {shape}", "faster", "ratio", peer(shape))
              for shape in ("1024 to 3072", "1024 to 1024", "1024 to 4096", "4096 to 1024")),
    ),
}  # fmt: skip


@dataclass
class GpuCheckConfig:
    output: str = flag("results/gpu_check.md", "The table, in Markdown.")
    parts: list[str] | None = flag(None, f"Any of {', '.join(PARTS)}; all if omitted.")
    minutes: float = flag(8.0, "The whole ends within this time.", minimum=0.5)


@dataclass
class Outcome:
    """What became of a part: the rows of its results, or why there are none."""

    rows: Sequence[Mapping[str, Any]] = ()
    problem: str = ""


def main(config: GpuCheckConfig) -> None:
    began = time.monotonic()
    names = config.parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        raise UsageError(f"--parts {unknown[0]}: unknown, expected any of {', '.join(PARTS)}")
    output = Path(config.output).absolute()
    logs = output.with_suffix("")
    with naming_os_errors(f"--output {config.output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
    machine, problem = find_gpu()
    outcomes = {name: Outcome(problem=problem or "not reached in time") for name in names}
    for name in names:
        left = began + 60 * config.minutes - MARGIN - time.monotonic()
        if not problem and left > 0:
            print(f"{name}: {PARTS[name].command}", flush=True)
            with naming_os_errors(f"--output {config.output}"):
                logs.mkdir(exist_ok=True)
            outcomes[name] = run_part(name, min(PARTS[name].seconds, left), logs)
            print(f"  {outcomes[name].problem or 'done'}, {time.monotonic() - began:.0f} s so far", flush=True)
        write_table(config, output, machine, outcomes)  # after every part: a job that is killed leaves what it has
    print(f"\n{output.read_text(encoding='utf8')}\nwritten to {config.output}")


def find_gpu() -> tuple[str, str]:
    """Return a line about the machine, and why nothing can be measured, or ""."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return "no torch", "torch is not installed"
    query = ["nvidia-smi", "--query-gpu=name,power.limit,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        listed = []
    if not listed:
        return f"no GPU, torch {torch}", "no GPU here"
    name, power, driver = (each.strip() for each in listed[0].split(","))  # a run uses the first one
    machine = f"{name}, power limit {power}, driver {driver}, torch {torch}"
    return machine, f"torch {torch} is built for CPUs" if "+cpu" in torch else ""


def words_of(name: str, results: Path) -> list[str]:
    """Return the command of a part, writing its results."""
    python, *words = PARTS[name].command.split()
    assert python == "python"
    if name == "tests":
        files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text("utf8")]
        return [sys.executable, *words, *map(str, files)]
    if find_spec("transformers") is None and "--peers" in words:
        words[words.index("--peers") + 1] = "none"
    return [sys.executable, *words, "--device", "cuda", "--json", str(results)]  # cuda: never a CPU's figures


def run_part(name: str, seconds: float, logs: Path) -> Outcome:
    """Run a part's command for at most ``seconds``, with its output in a file of ``logs``."""
    results, log = logs / f"{name}.json", logs / f"{name}.log"
    results.unlink(missing_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            words_of(name, results), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return Outcome(problem=f"out of time after {seconds:.0f} s")
        finally:
            if process.poll() is None:  # out of time, or Ctrl-C: compilers and test workers are its children
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = log.read_text(encoding="utf8", errors="replace")
    if name == "tests":
        return read_tests(text)
    if code or not results.is_file():
        lines = [line for line in text.splitlines() if line.strip()] or [f"exit code {code}"]
        return Outcome(problem=f"failed: {lines[-1].strip()[:100]}")
    return Outcome(json.loads(results.read_text(encoding="utf8"))["rows"])


def read_tests(text: str) -> Outcome:
    """Read the counts of pytest's last line."""
    last = (text.strip().splitlines() or [""])[-1]
    counts = {noun: int(count) for count, noun in re.findall(r"(\d+) (passed|failed|error)", last)}
    if not counts:
        return Outcome(problem=f"failed: {last[:100]}")
    return Outcome([{"passed": counts.get("passed", 0), "failed": counts.get("failed", 0) + counts.get("error", 0)}])


def write_table(config: GpuCheckConfig, output: Path, machine: str, outcomes: Mapping[str, Outcome]) -> None:
    lines = [f"{machine}; {time.strftime('%Y-%m-%d')}, `bash scripts/gpu_check.sh`; goals are for an H200", ""]
    lines += ["| | measured | goal | met | command |", "|---|---|---|---|---|"]
    for name, outcome in outcomes.items():
        lines += [table_row(row, PARTS[name].command, outcome) for row in PARTS[name].rows]
    with naming_os_errors(f"--output {config.output}"), replacing(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf8")


def table_row(row: Row, command: str, outcome: Outcome) -> str:
    shown = FORMATS[row.unit]
    value = next((each.get(row.key) for each in outcome.rows if matches(each, row.where)), None)
    bound = row.most if row.least is None else row.least
    goal = "" if bound is None else f"at {'most' if row.least is None else 'least'} {shown(bound)}"
    if value is None:
        missing = f"{row.needs} is missing" if row.needs and find_spec(row.needs) is None else "no such result"
        cells = [f"not measured: {outcome.problem or missing}".replace("|", "/"), goal, ""]
    else:
        met = bound is None or (value <= bound if row.least is None else value >= bound)
        cells = [shown(value), goal, "" if bound is None else "yes" if met else "no"]
    return f"| {row.what} | {' | '.join(cells)} | `{command}` |"


def matches(result: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """Tell whether a result has these values; one that ends with ``*`` is the beginning of a value."""
    pairs = [(str(result.get(name, "")), value) for name, value in where.items()]
    return all(has.startswith(value[:-1]) if value.endswith("*") else has == value for has, value in pairs)


if __name__ == "__main__":
    run_command(main, GpuCheckConfig)
