"""Draws the figure of a report: six panels over one axis of optimizer steps, phase 2 after phase 1."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bert.errors import UsageError
from bert.report.events import Phase, Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINED, SMOOTHED, HELD_OUT, BASELINE, BORDER = "#9ec5e8", "#1f5f99", "#d1495b", "#6b7280", "#374151"
HEADROOM = 1.1  # of the highest value, for the names of the phases


def draw(phases: Sequence[Phase]) -> Figure:
    """Draw the panels; phase 2 follows phase 1 on one axis of steps. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("the figure needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(14, 7.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)  # type: ignore[union-attr]  # inches
    steps = " + ".join(f"{phase.last_step:,}" for phase in phases)
    what = "several tasks" if _task_scores(phases) else "pre-training"
    figure.suptitle(f"BERT: {what}, {steps} steps", x=0.01, ha="left", fontsize=15, fontweight="bold")
    panels: list[Callable[[Axes, Sequence[Phase]], None]] = [
        _masked_loss, _sentence_loss, _learning_rate, _masked_accuracy, _sentence_accuracy, _speed,
    ]  # fmt: skip
    if _task_scores(phases):
        panels = [_masked_loss, _learning_rate, _plot_task_scores, _speed]
    columns = len(panels) // 2
    for axes, panel in zip(figure.subplots(2, columns, sharex=True).flat, panels, strict=True):
        panel(axes, phases)
        _finish(axes, phases)
    for axes in figure.axes[columns:]:
        axes.set_xlabel("optimizer steps")
    return figure


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the centred mean over ``window`` values, fewer at the ends."""
    half = window // 2
    return [statistics.fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def _offsets(phases: Sequence[Phase]) -> list[int]:
    """Return how many steps lie before each phase."""
    return [sum(earlier.last_step for earlier in phases[:index]) for index in range(len(phases))]


def _shifted(phases: Sequence[Phase], *metrics: str) -> list[Points]:
    """Return the points of each phase that has some, shifted by the steps before the phase."""
    moved = [
        [(step + offset, value) for step, value in phase.points(*metrics)]
        for phase, offset in zip(phases, _offsets(phases), strict=True)
    ]
    return [points for points in moved if points]


def _plot_trained(axes: Axes, phases: Sequence[Phase], *metrics: str) -> None:
    """Draw each report faintly, and over it a moving average."""
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
    _title(axes, "Masked-token loss" if split else "Training loss")
    _plot_trained(axes, phases, *(["mlm_loss"] if split else ["average_loss", "step_loss"]))
    _plot_held_out(axes, phases, "eval_mlm_loss")


def _sentence_loss(axes: Axes, phases: Sequence[Phase]) -> None:
    _title(axes, "Next-sentence loss")
    _plot_trained(axes, phases, "nsp_loss")
    _plot_held_out(axes, phases, "eval_nsp_loss")


def _learning_rate(axes: Axes, phases: Sequence[Phase]) -> None:
    _title(axes, "Learning rate")
    for points in _shifted(phases, "learning_rate"):
        axes.plot(*zip(*points, strict=True), color=SMOOTHED, linewidth=1.8)
    axes.yaxis.set_major_formatter("{x:g}")


def _masked_accuracy(axes: Axes, phases: Sequence[Phase]) -> None:
    _title(axes, "Masked-token accuracy")
    _plot_accuracy(axes, phases, "eval_mlm_accuracy")
    for index, (phase, offset) in enumerate(zip(phases, _offsets(phases), strict=True)):
        baseline = phase.facts.get("unigram_mlm_accuracy")
        if isinstance(baseline, float):
            span, label = [offset, offset + phase.last_step], None if index else "always the most frequent token"
            axes.plot(span, [baseline, baseline], color=BASELINE, linestyle="--", label=label)


def _task_scores(phases: Sequence[Phase]) -> list[str]:
    """Return the metrics that are the score of a task, of a run that learned several."""
    metrics = {metric for phase in phases for data in phase.steps.values() for metric in data}
    return sorted(metric for metric in metrics if metric.startswith("score/"))


def _plot_task_scores(axes: Axes, phases: Sequence[Phase]) -> None:
    _title(axes, "Score of each task")
    for metric in _task_scores(phases):
        for points in _shifted(phases, metric):
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=metric.removeprefix("score/"))


def _sentence_accuracy(axes: Axes, phases: Sequence[Phase]) -> None:
    _title(axes, "Next-sentence accuracy")
    _plot_accuracy(axes, phases, "eval_nsp_accuracy")
    if axes.lines:
        axes.axhline(0.5, color=BASELINE, linestyle="--", label="a coin toss")


def _speed(axes: Axes, phases: Sequence[Phase]) -> None:
    _title(axes, "Real tokens per second")
    _plot_trained(axes, phases, "tokens_per_second")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _plot_accuracy(axes: Axes, phases: Sequence[Phase], metric: str) -> None:
    """Draw the held-out accuracy in percent, with its last values as the right title."""
    from matplotlib.ticker import PercentFormatter

    _plot_held_out(axes, phases, metric)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    final = [f"{points[-1][1]:.1%}" for points in _shifted(phases, metric)]
    axes.set_title(" / ".join(final), loc="right", fontsize=10, color=HELD_OUT)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold")


def _finish(axes: Axes, phases: Sequence[Phase]) -> None:
    """Add what all panels share: zero at the bottom, a light grid, a legend, and a line between the phases."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if not axes.lines:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color=BASELINE)
        axes.set_yticks([])
        return
    lowest, highest = min(axes.dataLim.ymin, 0.0), axes.dataLim.ymax
    axes.set_ylim(lowest * HEADROOM, highest * HEADROOM if math.isfinite(highest) and highest > 0 else 1)
    for phase, offset in zip(phases[1:], _offsets(phases)[1:], strict=True):
        axes.axvline(offset, color=BORDER, linewidth=1, linestyle=":")
        style = {"transform": axes.get_xaxis_transform(), "color": BORDER, "fontsize": 8, "va": "top"}
        axes.text(offset, 1, f" phase {phase.number}", ha="left", **style)
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(frameon=False, fontsize=9)
