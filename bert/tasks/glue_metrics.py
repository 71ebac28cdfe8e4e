"""Scores of a whole set, under the names that GLUE's scripts give them.

Predictions and labels are classes [n], class 1 being the positive one, or the values of a regression. What a score does
not define (one class only, constant values) counts as 0 and is never NaN::

    acc_and_f1(np.array([1, 1, 0]), np.array([1, 0, 0]))        # {"acc": 0.667, "f1": 0.667, "acc_and_f1": 0.667}
"""

from __future__ import annotations

import math
import warnings

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
    return {"acc": float(np.mean(predictions == labels))}


def acc_and_f1(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Accuracy, F1 of class 1 and their mean."""
    from sklearn.metrics import f1_score

    f1 = float(f1_score(labels, predictions, zero_division=0))
    accuracy = acc(predictions, labels)["acc"]
    return {"acc": accuracy, "f1": f1, "acc_and_f1": (accuracy + f1) / 2}


def acc_and_macro_f1(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Accuracy, and the plain mean of the F1 of every class that is predicted or true somewhere."""
    from sklearn.metrics import f1_score

    f1 = f1_score(labels, predictions, average="macro", zero_division=0)
    return {**acc(predictions, labels), "macro_f1": float(f1)}


def mcc(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Matthews correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sets of one class, whose coefficient is 0
        return {"mcc": float(matthews_corrcoef(labels, predictions))}


def correlations(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Pearson's and Spearman's correlation and their mean."""
    from scipy.stats import pearsonr, spearmanr

    values, targets = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    pearson = spearman = 0.0
    if len(values) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about constant values, whose correlation is NaN
            pearson, spearman = (_defined(measure(values, targets)[0]) for measure in (pearsonr, spearmanr))
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


def detailed(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Scores of a task with two classes, as OneFlow's run_classifier reports them; all are of class 1."""
    from sklearn.metrics import precision_score, recall_score

    return {
        "accuracy": acc(predictions, labels)["acc"],
        "matthews_corrcoef": mcc(predictions, labels)["mcc"],
        "precision": float(precision_score(labels, predictions, zero_division=0)),
        "recall": float(recall_score(labels, predictions, zero_division=0)),
        "f1": acc_and_f1(predictions, labels)["f1"],
    }


def collapsed(predictions: ArrayLike) -> bool:
    """Return whether all of several predictions are the same: the run has learned nothing but the prior."""
    values = np.asarray(predictions)
    return len(values) > 1 and bool(np.all(values == values[0]))


def _defined(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
