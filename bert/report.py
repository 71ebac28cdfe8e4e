"""What a pre-training run did, drawn from its log: losses, held-out accuracy, learning rate and speed of both phases.

Logs are read in the order given, and a run that was resumed or started anew replaces what an earlier one had written
from that step on. Lines that a killed run left unfinished are skipped::

    python -m bert.report --logs results/phase1/dllogger.json results/phase2/dllogger.json --output report.png

draws report.png and writes report.md, the final numbers as a table, which is also printed.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.config import flag, run_command
from bert.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[float, float]]  # (step, value)

PREFIX = "DLLL "
FORMATS = (".png", ".svg", ".pdf")
FINAL_REPORTS = 10  # the last reports of a phase, over which a final training loss is the mean
TRAINED, HELD_OUT, BASELINE, SMOOTHED = "#9ec5e8", "#d1495b", "#6b7280", "#1f5f99"


@dataclass
class ReportConfig:
    logs: list[str] = flag(help="dllogger.json files, phase 1 first.")
    output: str = flag("report.png", "The figure (.png, .svg or .pdf); the table goes beside it with the suffix .md.")


@dataclass
class Phase:
    """What the logs say of one phase."""

    number: int
    facts: dict[str, Any] = field(default_factory=dict)  # PARAMETER events; the flags of the run are under "Config"
    steps: dict[int, dict[str, float]] = field(default_factory=dict)  # optimizer step -> metric -> value
    summary: dict[str, Any] = field(default_factory=dict)

    def points(self, *metrics: str) -> Points:
        """Return (step, value) of the first of ``metrics`` that was logged at a step, in order of steps."""
        found = ((step, next((data[m] for m in metrics if m in data), None)) for step, data in self.steps.items())
        return sorted((step, value) for step, value in found if value is not None)

    @property
    def last_step(self) -> int:
        return max(self.steps, default=0)


def read_events(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the events of one log. Raises UsageError where the file cannot be read."""
    try:
        with Path(path).open(encoding="utf8", errors="replace") as file:
            for line in file:
                event = _parse(line)
                if event is not None:
                    yield event
    except OSError as error:
        raise UsageError(f"--logs {path}: {error.strerror or error}") from error


def collect(events: Iterable[dict[str, Any]]) -> list[Phase]:
    """Sort the events of one or more runs into phases; what names no phase belongs to phase 1."""
    phases: dict[int, Phase] = {}
    current, started = 1, False
    for event in events:
        step, data = event.get("step"), event.get("data")
        if event.get("type") != "LOG" or not isinstance(data, dict):
            continue
        if step == "PARAMETER":
            if "phase" in data:
                current, started = int(data["phase"]), False
            phases.setdefault(current, Phase(current)).facts.update(data)
        elif step == []:
            phases.setdefault(current, Phase(current)).summary.update(data)
        elif isinstance(step, list) and len(step) > 1:
            phase = phases.setdefault(current, Phase(current))
            if not started:  # a resumed run repeats the steps since its checkpoint
                phase.steps = {known: values for known, values in phase.steps.items() if known < step[1]}
                started = True
            phase.steps.setdefault(step[1], {}).update(_numbers(data))
    return [phases[number] for number in sorted(phases) if phases[number].steps]


def summarize(phases: Sequence[Phase]) -> str:
    """Return a Markdown table with a column for each phase; rows without a value in any of them are left out."""
    header = ["", *(f"phase {phase.number}" for phase in phases)]
    lines = [_row(header), _row(["---", *["---:"] * len(phases)])]
    for name, value_of in ROWS:
        cells = [value_of(phase) for phase in phases]
        if any(cells):
            lines.append(_row([name, *(cell or "" for cell in cells)]))
    return "\n".join(lines) + "\n"


def draw(phases: Sequence[Phase]) -> Figure:
    """Draw the six panels; phase 2 follows phase 1 on one axis of steps. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("the figure needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(14, 7.4), layout="constrained")
    figure.suptitle("BERT pre-training", x=0.01, ha="left", fontsize=15, fontweight="bold")
    panels: list[Callable[[Axes, Sequence[Phase]], None]] = [
        _masked_loss, _sentence_loss, _learning_rate, _masked_accuracy, _sentence_accuracy, _speed,
    ]  # fmt: skip
    for axes, panel in zip(figure.subplots(2, 3, sharex=True).flat, panels, strict=True):
        panel(axes, phases)
        _finish(axes, phases)
    for axes in figure.axes[3:]:
        axes.set_xlabel("optimizer steps")
    return figure


def main(config: ReportConfig) -> None:
    output = Path(config.output)
    if output.suffix not in FORMATS:
        raise UsageError(f"--output {output}: expected a file ending in {', '.join(FORMATS)}")
    phases = collect(event for path in config.logs for event in read_events(path))
    if not phases:
        raise UsageError(f"--logs {' '.join(config.logs)}: no training events, expected lines like {PREFIX}{{...}}")
    table = summarize(phases)
    print(table, end="")
    try:
        _replace(output.with_suffix(".md"), lambda path: path.write_text(table, encoding="utf8"))
        figure = draw(phases)
        _replace(output, lambda path: figure.savefig(path, format=output.suffix[1:], dpi=130))
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror or error}") from error


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the centred mean over ``window`` values, fewer at the ends."""
    half = window // 2
    return [statistics.fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def _parse(line: str) -> dict[str, Any] | None:
    """Return the event in a line, or None for another line or one that was cut off."""
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line[len(PREFIX) :])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _numbers(data: dict[str, Any]) -> dict[str, float]:
    """Keep what is a number; NaN and the infinities are logged as strings."""
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")
    }


def _flag(name: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        flags = phase.facts.get("Config")
        value = flags.get(name) if isinstance(flags, dict) else phase.facts.get(name)
        return "" if value is None else str(value)

    return value_of


def _final_loss(*metrics: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        values = [value for _, value in phase.points(*metrics)][-FINAL_REPORTS:]
        return f"{statistics.fmean(values):.3f}" if values else ""

    return value_of


def _last(metric: str, form: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        points = phase.points(metric)
        return format(points[-1][1], form) if points else ""

    return value_of


def _middle(metric: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        points = phase.points(metric)
        return f"{statistics.median(value for _, value in points):,.0f}" if points else ""

    return value_of


def _fact(name: str, form: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        value = {**phase.facts, **phase.summary}.get(name)
        return format(value, form) if isinstance(value, int | float) else ""

    return value_of


ROWS: list[tuple[str, Callable[[Phase], str]]] = [
    ("optimizer steps", lambda phase: str(phase.last_step)),
    ("sequence length", _flag("max_seq_length")),
    ("learning rate", _flag("learning_rate")),
    ("training loss", _final_loss("average_loss", "step_loss")),
    ("masked-token loss", _final_loss("mlm_loss")),
    ("next-sentence loss", _final_loss("nsp_loss")),
    ("held-out masked-token loss", _last("eval_mlm_loss", ".3f")),
    ("held-out masked-token accuracy", _last("eval_mlm_accuracy", ".2%")),
    ("always the most frequent token", _fact("unigram_mlm_accuracy", ".2%")),
    ("held-out next-sentence loss", _last("eval_nsp_loss", ".3f")),
    ("held-out next-sentence accuracy", _last("eval_nsp_accuracy", ".2%")),
    ("sequences/s, median", _middle("sequences_per_second")),
    ("tokens/s, median", _middle("tokens_per_second")),
    ("skipped steps", _last("skipped_steps", ".0f")),
    ("last loss scale", _last("loss_scale", "g")),
    ("training time, s", _fact("e2e_train_time", ",.0f")),
]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _offsets(phases: Sequence[Phase]) -> list[int]:
    """Return how many steps lie before each phase."""
    return [sum(earlier.last_step for earlier in phases[:index]) for index in range(len(phases))]


def _shifted(phases: Sequence[Phase], *metrics: str) -> list[Points]:
    """Return the points of each phase that has some, moved to where the phase lies on the axis."""
    moved = [
        [(step + offset, value) for step, value in phase.points(*metrics)]
        for phase, offset in zip(phases, _offsets(phases), strict=True)
    ]
    return [points for points in moved if points]


def _plot_trained(axes: Axes, phases: Sequence[Phase], *metrics: str) -> None:
    """Draw each report faintly, and over it a mean of neighbours that a reader can follow."""
    for index, points in enumerate(_shifted(phases, *metrics)):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=TRAINED, linewidth=0.8)
        means = smooth(values, max(1, len(values) // 40))
        axes.plot(steps, means, color=SMOOTHED, linewidth=1.8, label=None if index else "training")


def _plot_held_out(axes: Axes, phases: Sequence[Phase], metric: str) -> None:
    style = {"color": HELD_OUT, "marker": "o", "markersize": 4, "linewidth": 1.6}
    for index, points in enumerate(_shifted(phases, metric)):
        axes.plot(*zip(*points, strict=True), label=None if index else "held out", **style)


def _masked_loss(axes: Axes, phases: Sequence[Phase]) -> None:
    split = any(phase.points("mlm_loss") for phase in phases)
    axes.set_title("Masked-token loss" if split else "Training loss")
    _plot_trained(axes, phases, *(["mlm_loss"] if split else ["average_loss", "step_loss"]))
    _plot_held_out(axes, phases, "eval_mlm_loss")


def _sentence_loss(axes: Axes, phases: Sequence[Phase]) -> None:
    axes.set_title("Next-sentence loss")
    _plot_trained(axes, phases, "nsp_loss")
    _plot_held_out(axes, phases, "eval_nsp_loss")


def _learning_rate(axes: Axes, phases: Sequence[Phase]) -> None:
    axes.set_title("Learning rate")
    for points in _shifted(phases, "learning_rate"):
        axes.plot(*zip(*points, strict=True), color=SMOOTHED, linewidth=1.8)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _masked_accuracy(axes: Axes, phases: Sequence[Phase]) -> None:
    axes.set_title("Masked-token accuracy, held out")
    _plot_held_out(axes, phases, "eval_mlm_accuracy")
    for index, (phase, offset) in enumerate(zip(phases, _offsets(phases), strict=True)):
        baseline = phase.facts.get("unigram_mlm_accuracy")
        if isinstance(baseline, float):
            span, label = [offset, offset + phase.last_step], None if index else "always the most frequent token"
            axes.plot(span, [baseline, baseline], color=BASELINE, linestyle="--", label=label)
    _as_percent(axes, phases, "eval_mlm_accuracy")


def _sentence_accuracy(axes: Axes, phases: Sequence[Phase]) -> None:
    axes.set_title("Next-sentence accuracy, held out")
    _plot_held_out(axes, phases, "eval_nsp_accuracy")
    axes.axhline(0.5, color=BASELINE, linestyle="--", label="a coin")
    _as_percent(axes, phases, "eval_nsp_accuracy")


def _speed(axes: Axes, phases: Sequence[Phase]) -> None:
    axes.set_title("Real tokens per second")
    _plot_trained(axes, phases, "tokens_per_second")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _as_percent(axes: Axes, phases: Sequence[Phase], metric: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for points in _shifted(phases, metric):
        step, value = points[-1]
        axes.annotate(f"{value:.1%}", (step, value), (-6, -14), textcoords="offset points", ha="right", color=HELD_OUT)


def _finish(axes: Axes, phases: Sequence[Phase]) -> None:
    """Give a panel what all panels have: from zero up, a light grid, a legend, and a line between the phases."""
    axes.title.set(fontsize=11, fontweight="bold", ha="left", x=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.lines:
        axes.set_ylim(bottom=0)
    for offset in _offsets(phases)[1:]:
        axes.axvline(offset, color="#374151", linewidth=1, linestyle=":")
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(frameon=False, fontsize=9)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file, and rename it once it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


if __name__ == "__main__":
    run_command(main, ReportConfig)
