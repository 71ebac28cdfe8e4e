"""Scores of a whole set, under the names that GLUE's scripts give them.

Predictions and labels are classes [n], class 1 being the positive one, or the values of a regression. What a score does
not define (one class only, constant values) counts as 0 and is never NaN::

    acc_and_f1(np.array([1, 1, 0]), np.array([1, 0, 0]))        # {"acc": 0.667, "f1": 0.667, "acc_and_f1": 0.667}
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bert.errors import UsageError


def check_installed() -> None:
    """Raise UsageError without the libraries, before a run has trained for hours."""
    try:
        import scipy.stats  # noqa: F401
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed, expected: pip install '.[finetune]'") from error


def acc(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Share of correct predictions."""
    return {"acc": float(np.mean(np.asarray(predictions) == np.asarray(labels)))}


def acc_and_f1(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Accuracy, F1 of class 1 and their mean."""
    from sklearn.metrics import f1_score

    with _quietly():
        f1 = float(f1_score(labels, predictions))
    accuracy = acc(predictions, labels)["acc"]
    return {"acc": accuracy, "f1": f1, "acc_and_f1": (accuracy + f1) / 2}


def acc_and_macro_f1(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Accuracy, and the plain mean of the F1 of every class that is predicted or true somewhere."""
    from sklearn.metrics import f1_score

    with _quietly():
        f1 = float(f1_score(labels, predictions, average="macro"))
    return {**acc(predictions, labels), "macro_f1": f1}


def mcc(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Matthews correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    with _quietly():
        return {"mcc": float(matthews_corrcoef(labels, predictions))}


def correlations(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Pearson's and Spearman's correlation and their mean."""
    from scipy.stats import pearsonr, spearmanr

    measures: list[Any] = [pearsonr, spearmanr]
    values, targets = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    pearson = spearman = 0.0
    if len(values) > 1:
        with _quietly():
            pearson, spearman = (_defined(measure(values, targets).statistic) for measure in measures)
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


def detailed(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Scores of a task with two classes, as OneFlow's run_classifier reports them; all are of class 1."""
    from sklearn.metrics import precision_score, recall_score

    with _quietly():
        precision, recall = precision_score(labels, predictions), recall_score(labels, predictions)
    return {
        "accuracy": acc(predictions, labels)["acc"],
        "matthews_corrcoef": mcc(predictions, labels)["mcc"],
        "precision": float(precision),
        "recall": float(recall),
        "f1": acc_and_f1(predictions, labels)["f1"],
    }


def collapsed(predictions: ArrayLike) -> bool:
    """Return whether all of several predictions are the same: the run has learned nothing but the prior."""
    values = np.asarray(predictions)
    return len(values) > 1 and bool(np.all(values == values[0]))


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the libraries' warnings of scores that are not defined, which they give as 0 or NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _defined(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
