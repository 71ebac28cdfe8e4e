import math

import numpy as np
import pytest

from bert.finetune.predict import Outputs
from bert.glue.scores import latency_summary, warn_of_collapse
from bert.glue.tasks import find_task


def test_percentiles_of_a_hundred():
    summary = latency_summary([float(value) for value in range(100, 0, -1)])
    assert {name: summary[name] for name in ("50%", "90%", "95%", "99%", "100%")} == {
        "50%": 50.0,
        "90%": 90.0,
        "95%": 95.0,
        "99%": 99.0,
        "100%": 100.0,
    }
    assert (summary["avg"], summary["sum"]) == (50.5, 5050.0)
    assert summary["std"] == pytest.approx(math.sqrt((100**2 - 1) / 12), 1e-12)


def test_percentiles_of_few():
    assert list(latency_summary([7.0]).values()) == [7.0] * 6 + [0.0, 7.0]
    three = latency_summary([3.0, 1.0, 2.0])
    assert [three[name] for name in ("50%", "90%", "99%", "100%")] == [1.0, 2.0, 2.0, 3.0]
    assert latency_summary([]) == {}


@pytest.mark.parametrize(
    ("task", "logits", "warns"),
    [
        ("mnli", [[0, 1, 0], [1, 2, 0]], True),
        ("mnli", [[0, 1, 0], [2, 1, 0]], False),
        ("mnli", [[0, 1, 0]], False),
        ("sts-b", [[2.5], [2.5]], False),
    ],
)
def test_one_class_for_all_examples_causes_a_warning(task, logits, warns):
    notices: list[str] = []
    warn_of_collapse(find_task(task), Outputs(np.array(logits, np.float32), 1.0), notices.append)
    assert [notice.partition(":")[2].partition(":")[0] for notice in notices] == [
        " the model predicts 'entailment' for all 2 examples"
    ] * warns
