"""Thresholds of SQuAD 2.0 as run_squad.py applies them."""

import json

import pytest

from bert.squad.answers import Answer
from bert.squad.metrics import evaluate_v2, read_gold
from bert.squad.task import apply_threshold, best_threshold


@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize(
    ("odds", "best"),
    [
        ({"wrong": 1.0, "right": 2.0, "none": 3.0}, 200 / 3),  # keep the first two
        ({"none 1": 1.0, "none 2": 2.0, "right": 3.0}, 200 / 3),  # the first to keep are wrong: keep nothing
    ],
)
def test_the_best_threshold_gives_the_best_score(tmp_path, odds, best, shift):
    """The right answer is found for "right" and missed for "wrong"; the other questions have none."""
    answer = {"text": "Seine", "answer_start": 4}
    questions = [{"id": i, "question": "?", "answers": [answer] if i in ("right", "wrong") else []} for i in odds]
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": "The Seine", "qas": questions}]}]}))
    answers = [Answer(i, "", "Seine" if i == "right" else "x", value + shift, []) for i, value in odds.items()]
    found = best_threshold(str(file), answers)
    assert found["best_f1"] == pytest.approx(best)
    for name in ("exact", "f1"):
        applied = {a.qas_id: a.text for a in apply_threshold(answers, found[f"best_{name}_thresh"])}
        assert evaluate_v2(read_gold(file), applied)[name] == pytest.approx(best)
