"""The output files of a fine-tuned classifier, with the names and formats of the published scripts.

- results.txt: all numbers of a run as one JSON object
- predictions.json: guid -> label
- test_results.tsv: a line per example, the probability of each label or the value of a regression
- CoLA.tsv and so on: index and prediction, as gluebenchmark.com expects them

Files are written atomically. ``logits`` [n, num_labels] are those of all examples, in order::

    write_test_results(folder, logits, task)
    table, values = summarise_seeds([{"seed": 1, "acc": 0.86}, {"seed": 2, "acc": 0.88}])
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bert.finetune.output import write_lines
from bert.glue.examples import Example, Task
from bert.log.logger import plain


def write_results(folder: str | Path, results: Mapping[str, Any]) -> None:
    """Write results.txt; NaN and infinities become strings, since JSON has no numbers for them."""
    write_lines(folder, "results.txt", [json.dumps(plain(results), allow_nan=False)])


def write_predictions(folder: str | Path, logits: NDArray, task: Task, examples: Sequence[Example]) -> None:
    """Write predictions.json."""
    answers = dict(zip((example.guid for example in examples), _answers(logits, task), strict=True))
    write_lines(folder, "predictions.json", [json.dumps(answers, indent=4)])


def write_test_results(folder: str | Path, logits: NDArray, task: Task) -> None:
    """Write test_results.tsv: no header, and tabs between the probabilities, in the order of the task's labels."""
    values = np.asarray(logits, np.float32)
    if not task.is_regression:
        values = torch.from_numpy(np.asarray(logits, np.float64)).softmax(dim=1).numpy().astype(np.float32)
    write_lines(folder, "test_results.tsv", ("\t".join(map(str, row)) for row in values))


def write_submission(folder: str | Path, logits: NDArray, task: Task) -> None:
    """Write the file to submit to gluebenchmark.com: index, from 0, and prediction; nothing for a task outside GLUE."""
    if task.submission is not None:
        rows = (f"{index}\t{answer}" for index, answer in enumerate(_answers(logits, task)))
        write_lines(folder, f"{task.submission}.tsv", ["index\tprediction", *rows])


def summarise_seeds(results: Sequence[Mapping[str, float]]) -> tuple[str, dict[str, dict[str, float]]]:
    """Summarise the metrics of the first run over runs that differ by their seed, which ``seed`` may hold.

    Returns a Markdown table, and for each metric mean, std (of the sample; 0 for one run), best (the lowest of a metric
    that ends in "loss") and, if known, the best run's seed.
    """
    values = {metric: _summarise(metric, results) for metric in results[0] if metric != "seed"}
    rows = [["metric", "mean", "std", "best", "seed"], ["---", *["---:"] * 4]]
    for metric, row in values.items():
        rows.append([metric, *(f"{row[name]:.4f}" for name in ("mean", "std", "best")), str(row.get("seed", ""))])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows), values


def _summarise(metric: str, results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    numbers = [float(result[metric]) for result in results]
    best = (min if metric.endswith("loss") else max)(numbers)
    std = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    winner = results[numbers.index(best)]
    seed = {"seed": winner["seed"]} if "seed" in winner else {}
    return {"mean": statistics.fmean(numbers), "std": std, "best": best, **seed}


def _answers(logits: NDArray, task: Task) -> list[str]:
    """Return the label of each example, or the value of a regression within its bounds."""
    predictions = task.predictions(np.asarray(logits))
    if task.is_regression:
        return [f"{value:.3f}" for value in np.clip(predictions, *task.bounds)]
    return [task.labels[prediction] for prediction in predictions]
