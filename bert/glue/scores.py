"""Scores and timings of a fine-tuned classifier, under the names of the published scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bert.finetune.predict import Outputs
from bert.glue.examples import Task
from bert.glue.metrics import acc
from bert.sequences import Sequences

PERCENTILES = {"50%": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99, "100%": 1.0}


def score(task: Task, outputs: Outputs, sequences: Sequences) -> dict[str, float]:
    """Return the task's metrics and the mean ``loss`` over a whole labelled set."""
    logits, labels = torch.from_numpy(outputs.values), torch.from_numpy(sequences.labels["label"])
    loss = F.mse_loss(logits.flatten(), labels) if task.is_regression else F.cross_entropy(logits, labels)
    return {"loss": float(loss), **task.metrics(task.predictions(outputs.values), sequences.labels["label"])}


def eval_results(task: Task, outputs: Outputs, sequences: Sequences, scores: dict[str, float]) -> dict[str, float]:
    """Return the numbers of eval_results.txt; for every classification they include eval_accuracy."""
    results = {f"eval_{name}": value for name, value in scores.items()}
    if not task.is_regression:
        results["eval_accuracy"] = acc(task.predictions(outputs.values), sequences.labels["label"])["acc"]
    return results


def inference_results(outputs: Outputs, count: int) -> dict[str, Any]:
    """Return latencies in milliseconds and throughput under the keys of results.txt."""
    return {
        "eval:num_samples_per_gpu": sum(outputs.batch_sizes),
        "eval:num_steps": len(outputs.latencies),
        "infer:latency(ms)": latency_summary([1000 * seconds for seconds in outputs.latencies]),
        "infer:throughput(samples/s):avg": count / outputs.seconds,
    }


def warn_of_collapse(task: Task, outputs: Outputs, notice: Callable[[str], None]) -> None:
    """Warn if a classifier predicts one class for all examples: an unlucky seed or a high rate can cause it."""
    predictions = task.predictions(outputs.values)
    if not task.is_regression and len(predictions) > 1 and (predictions == predictions[0]).all():
        notice(
            f"warning: the model predicts {task.labels[predictions[0]]!r} for all {len(predictions)} examples: "
            "try another --seed, or a lower --learning_rate"
        )


def latency_summary(latencies: Sequence[float]) -> dict[str, float]:
    """Return percentiles, ``avg``, ``std`` (of the population) and ``sum``, in the unit of ``latencies``.

    Percentile q of n sorted values is the one at index int(n·q) − 1, as in the published scripts.
    """
    if not latencies:
        return {}
    ordered = sorted(latencies)
    found = {name: float(ordered[max(int(len(ordered) * q) - 1, 0)]) for name, q in PERCENTILES.items()}
    return {**found, "avg": float(np.mean(ordered)), "std": float(np.std(ordered)), "sum": float(np.sum(ordered))}
