"""Scores of a whole set, under the names of GLUE's scripts.

Predictions and labels are classes [n], where class 1 is the positive one, or the values of a regression. A score that
is undefined (only one class, constant values) is 0, never NaN::

    acc_and_f1(np.array([1, 1, 0]), np.array([1, 0, 0]))        # {"acc": 0.667, "f1": 0.667, "acc_and_f1": 0.667}
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError


def check_installed() -> None:
    """Raise UsageError if a library is missing, before a run trains for hours."""
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
    accuracy, f1 = acc(predictions, labels)["acc"], _score("f1_score", predictions, labels)
    return {"acc": accuracy, "f1": f1, "acc_and_f1": (accuracy + f1) / 2}


def acc_and_macro_f1(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Accuracy, and the unweighted mean F1 of all classes among the predictions and labels."""
    return {**acc(predictions, labels), "macro_f1": _score("f1_score", predictions, labels, average="macro")}


def mcc(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Matthews correlation coefficient."""
    return {"mcc": _score("matthews_corrcoef", predictions, labels)}


def correlations(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Pearson's and Spearman's correlation and their mean."""
    from scipy.stats import pearsonr, spearmanr

    measures: list[Any] = [pearsonr, spearmanr]
    values, targets = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    pearson = spearman = 0.0
    if len(values) > 1:
        with warnings.catch_warnings(action="ignore"):
            pearson, spearman = (float(np.nan_to_num(measure(values, targets).statistic)) for measure in measures)
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


def detailed(predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Scores of class 1 of two, as OneFlow's run_classifier reports them."""
    names = {name: f"{name}_score" for name in ("accuracy", "precision", "recall", "f1")}
    names["matthews_corrcoef"] = "matthews_corrcoef"
    return {name: _score(function, predictions, labels) for name, function in names.items()}


def _score(function: str, predictions: NDArray, labels: NDArray, **options: Any) -> float:
    """Return what a function of sklearn.metrics returns: 0 for an undefined score, of which it warns."""
    import sklearn.metrics

    with warnings.catch_warnings(action="ignore"):
        return float(getattr(sklearn.metrics, function)(labels, predictions, **options))
