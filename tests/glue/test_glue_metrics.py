import math
import warnings

import numpy as np
import pytest

from bert.glue.metrics import acc, acc_and_f1, acc_and_macro_f1, correlations, detailed, mcc

# 4 true positives, 1 false positive, 2 false negatives, 3 true negatives
LABELS = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
PRECISION, RECALL = 4 / 5, 4 / 6
F1 = 2 * PRECISION * RECALL / (PRECISION + RECALL)
MCC = (4 * 3 - 1 * 2) / math.sqrt(5 * 6 * 4 * 5)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_scores_of_two_classes():
    assert acc(PREDICTIONS, LABELS) == {"acc": 0.7}
    assert acc_and_f1(PREDICTIONS, LABELS) == pytest.approx({"acc": 0.7, "f1": F1, "acc_and_f1": (0.7 + F1) / 2}, 1e-12)
    assert mcc(PREDICTIONS, LABELS) == pytest.approx({"mcc": MCC}, 1e-12)
    assert detailed(PREDICTIONS, LABELS) == pytest.approx(
        {"accuracy": 0.7, "matthews_corrcoef": MCC, "precision": PRECISION, "recall": RECALL, "f1": F1}, 1e-12
    )


def test_scores_of_three_classes():
    labels, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 0, 2])
    # F1 = 2 tp / (2 tp + fp + fn)
    by_class = [2 / (2 + 1 + 1), 4 / (4 + 1 + 0), 2 / (2 + 0 + 1)]
    assert acc_and_macro_f1(predictions, labels) == pytest.approx({"acc": 4 / 6, "macro_f1": sum(by_class) / 3}, 1e-12)


def test_correlations_are_those_of_numpy():
    draw = np.random.default_rng(0)
    labels = np.round(draw.uniform(0, 5, 300), 1)  # with ties
    predictions = (labels + draw.normal(0, 1, 300)).astype(np.float32)

    def ranks(values: np.ndarray) -> np.ndarray:
        """Ranks from 1, where equal values share the mean of theirs."""
        below, equal = (values[None] < values[:, None]).sum(1), (values[None] == values[:, None]).sum(1)
        return below + (equal + 1) / 2

    pearson = np.corrcoef(predictions.astype(np.float64), labels)[0, 1]
    spearman = np.corrcoef(ranks(predictions), ranks(labels))[0, 1]
    expected = {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}
    assert correlations(predictions, labels) == pytest.approx(expected, 1e-12)


def test_correlations_of_monotone_values():
    scores = correlations(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    # deviations −4/3, −1/3, 5/3 against −1, 0, 1
    pearson = 3 / math.sqrt((16 + 1 + 25) / 9 * 2)
    assert scores == pytest.approx({"pearson": pearson, "spearmanr": 1.0, "corr": (pearson + 1) / 2}, 1e-12)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([1, 1, 1], [0, 0, 0]), ([0, 0, 0], [1, 1, 1]), ([0, 0], [0, 1]), ([0], [1])],
)
def test_one_class_gives_zeros_without_warnings(predictions, labels):
    predictions, labels = np.array(predictions), np.array(labels)
    assert mcc(predictions, labels) == {"mcc": 0}
    assert acc_and_f1(predictions, labels)["f1"] == 0
    assert detailed(predictions, labels)["precision"] == 0
    assert acc_and_macro_f1(predictions, labels)["acc"] == np.mean(predictions == labels)


def test_all_of_one_class_and_all_right():
    ones = np.ones(3, int)
    assert mcc(ones, ones) == {"mcc": 0}
    assert acc_and_f1(ones, ones) == {"acc": 1, "f1": 1, "acc_and_f1": 1}


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1, math.nan, 2], [1, 2, 3]), ([1], [2])],
)
def test_values_without_correlation_give_zeros_without_warnings(predictions, labels):
    assert correlations(np.array(predictions), np.array(labels)) == {"pearson": 0, "spearmanr": 0, "corr": 0}
