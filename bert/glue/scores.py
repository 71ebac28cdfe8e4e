"""Scores and result files of a fine-tuned classifier, under the names of the published scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bert.finetune.predict import Outputs
from bert.glue.examples import Example, Task
from bert.glue.metrics import acc, collapsed
from bert.sequences import Sequences

PERCENTILES = {"50%": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99, "100%": 1.0}


def score(task: Task, outputs: Outputs, sequences: Sequences) -> dict[str, float]:
    """Return the task's metrics and ``loss`` (mean) over a whole labelled set."""
    logits, labels = torch.from_numpy(outputs.values), torch.from_numpy(sequences.labels["label"])
    loss = F.mse_loss(logits.flatten(), labels) if task.is_regression else F.cross_entropy(logits, labels)
    return {"loss": float(loss), **task.metrics(task.predictions(outputs.values), sequences.labels["label"])}


def eval_results(task: Task, outputs: Outputs, sequences: Sequences, scores: dict[str, float]) -> dict[str, float]:
    """Return the numbers of eval_results.txt; classification has eval_accuracy, whatever the task's metric."""
    results = {f"eval_{name}": value for name, value in scores.items()}
    if not task.is_regression:
        predictions = task.predictions(outputs.values)
        results["eval_accuracy"] = acc(predictions, sequences.labels["label"])["acc"]
    return results


def inference_results(outputs: Outputs, count: int) -> dict[str, Any]:
    """Return latencies in milliseconds and throughput under the keys of results.txt."""
    latency = latency_summary([1000 * seconds for seconds in outputs.latencies])
    return {
        "eval:num_samples_per_gpu": sum(outputs.batch_sizes),
        "eval:num_steps": len(outputs.latencies),
        "infer:latency(ms)": latency,
        "infer:throughput(samples/s):avg": count / outputs.seconds,
    }


def warn_of_collapse(task: Task, outputs: Outputs, examples: Sequence[Example], notice: Callable[[str], None]) -> None:
    """Say so where a classifier gives every example the same class, as an unlucky seed or too high a rate does."""
    predictions = task.predictions(outputs.values)
    if not task.is_regression and len(examples) > 1 and collapsed(predictions):
        label = task.labels[int(predictions[0])]
        notice(
            f"warning: the model predicts {label!r} for all {len(examples)} examples: try another --seed, "
            "or a lower --learning_rate"
        )


def latency_summary(latencies: Sequence[float]) -> dict[str, float]:
    """Return percentiles, ``avg``, ``std`` (of the population) and ``sum``, in the unit of ``latencies``.

    A percentile q of n values is the one at int(n·q) − 1 in their order. Nothing for no values.
    """
    if not latencies:
        return {}
    ordered = sorted(latencies)
    found = {name: float(ordered[max(int(len(ordered) * q) - 1, 0)]) for name, q in PERCENTILES.items()}
    return {**found, "avg": float(np.mean(ordered)), "std": float(np.std(ordered)), "sum": float(np.sum(ordered))}
