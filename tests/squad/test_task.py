"""Training sets and thresholds of SQuAD 2.0 as run_squad.py makes and applies them."""

import json

import pytest

from bert.squad.answers import Answer, AnswerConfig
from bert.squad.metrics import evaluate_v2, read_gold
from bert.squad.task import SquadConfig, WindowConfig, apply_threshold, best_threshold, training_set
from bert.tokenization import BertTokenizer


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


def test_each_alignment_has_its_cache(tmp_path, vocab_file):
    """The answer is the second "river" of one word."""
    answer = {"text": "river", "answer_start": 10}
    questions = [{"id": "1", "question": "the?", "answers": [answer]}]
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": "the river,river", "qas": questions}]}]}))
    for _ in range(2):  # made, then loaded
        for alignment, place in (("offsets", 6), ("published", 4)):  # [CLS] the [SEP] the river , river
            answers = AnswerConfig(answer_alignment=alignment)
            config = SquadConfig(str(file), windows=WindowConfig(16, 8, 1), answers=answers)
            labels = training_set(config, BertTokenizer(vocab_file), False).sequences.labels
            assert [labels["start"].tolist(), labels["end"].tolist()] == [[place], [place]]
    assert len([*tmp_path.glob("train.json.*.npz")]) == 2
