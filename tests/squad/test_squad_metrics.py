import json
import random

import pytest
from torchmetrics.functional.text import squad as torchmetrics_squad

from bert.errors import UsageError
from bert.squad.metrics import (
    evaluate_files,
    evaluate_v1,
    evaluate_v2,
    exact_score,
    f1_score,
    f1_score_v2,
    normalize_answer,
    read_by_id,
    read_gold,
    run_eval_script,
    tune_thresholds,
)

WORDS = [
    "the",
    "The",
    "a",
    "an",
    "river",
    "River,",
    "Seine",
    "(Seine)",
    "U.S.",
    "1,000",
    "l'Élysée",
    "",
    "«x»",
    "and",
    "--",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Seine, a river.", "seine river"),
        ("an the a", ""),
        ("Theatre of Athens", "theatre of athens"),
        ("U.S. 1,000 $5", "us 1000 5"),
        ("the-cat", "thecat"),  # punctuation goes first: no article is left
        ("«Élysée»\u00a0the x", "«élysée» x"),  # marks beyond ASCII stay
    ],
)
def test_normalize_answer(text, expected):
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("gold", "prediction", "exact", "f1", "f1_v2"),
    [
        ("the Seine", "Seine!", 1, 1, 1),
        ("river Seine", "Seine", 0, 2 / 3, 2 / 3),  # precision 1, recall 1/2
        ("a b b", "b b b", 0, 0.8, 0.8),  # "a" goes: 2 of 2 are found, 2 of 3 are right
        ("Seine", "", 0, 0, 0),
        ("", "", 1, 0, 1),
        ("the", "a", 1, 0, 1),
    ],
)
def test_scores_of_one_answer(gold, prediction, exact, f1, f1_v2):
    assert exact_score(gold, prediction) == exact
    assert f1_score(gold, prediction) == pytest.approx(f1, abs=1e-15)
    assert f1_score_v2(gold, prediction) == pytest.approx(f1_v2, abs=1e-15)


def test_version_1_against_torchmetrics():
    """Every right answer has a word: if neither side has one, torchmetrics follows version 2."""
    draw = random.Random(1)

    def text(least=0):
        return " ".join([*draw.choices(WORDS, k=draw.randint(0, 5)), *["Seine"] * least])

    gold = {str(i): [text(least=1) for _ in range(draw.randint(1, 4))] for i in range(300)}
    predictions = {qas_id: draw.choice([text(), draw.choice(answers)]) for qas_id, answers in gold.items()}
    wanted = torchmetrics_squad(
        [{"prediction_text": answer, "id": qas_id} for qas_id, answer in predictions.items()],
        [{"answers": {"text": a, "answer_start": [0] * len(a)}, "id": qas_id} for qas_id, a in gold.items()],
    )
    found = evaluate_v1(gold, predictions)
    assert all(20 < value < 90 for value in found.values())
    assert found == {name: pytest.approx(value.item(), rel=1e-5) for name, value in wanted.items()}


def test_version_1_without_a_prediction(capsys):
    gold = {"1": ["Seine"], "2": ["Rhine", "the river Rhine"], "3": ["x"], "4": ["y"]}
    found = evaluate_v1(gold, {"1": "Seine", "2": "river", "other": "x"})
    assert found == {"exact_match": 25.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 4)}
    assert capsys.readouterr().err == "2 unanswered questions receive score 0 (first: 3)\n"
    with pytest.raises(UsageError, match="question '2' has no answer: SQuAD 2.0 needs --version_2_with_negative"):
        evaluate_v1({"1": ["Seine"], "2": []}, {"1": "Seine", "2": ""})
    assert evaluate_v1({}, {}) == {"exact_match": 0.0, "f1": 0.0}


# q1 is right, q2 half right, q3 wrong; n1 rightly unanswered, n2 wrongly answered
GOLD = {"q1": ["the Seine"], "q2": ["river Rhine", "Rhine valley road"], "q3": ["x"], "n1": [], "n2": []}
PREDICTIONS = {"q1": "Seine", "q2": "Rhine", "q3": "y", "n1": "", "n2": "z"}


def test_version_2_by_hand():
    assert evaluate_v2(GOLD, PREDICTIONS) == {
        "exact": 40.0,
        "f1": pytest.approx(100 * (1 + 2 / 3 + 0 + 1 + 0) / 5),
        "total": 5,
        "HasAns_exact": pytest.approx(100 / 3),
        "HasAns_f1": pytest.approx(100 * (1 + 2 / 3) / 3),
        "HasAns_total": 3,
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
        "NoAns_total": 2,
    }
    assert set(evaluate_v2({"q1": ["x"]}, {"q1": "x"})) == {
        *("exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total")
    }
    assert evaluate_v2({}, {}) == {"exact": 0.0, "f1": 0.0, "total": 0}


def test_version_2_ignores_questions_without_a_prediction(capsys):
    found = evaluate_v2(GOLD, {"q1": "Seine", "n2": "z"}, {"q1": 0.0, "q2": 1.0})
    assert (found["exact"], found["total"], found["HasAns_total"], found["NoAns_total"]) == (50.0, 2, 1, 1)
    assert capsys.readouterr().err == "".join(f"Missing prediction for {i}\n" for i in ("q2", "q3", "n1"))


def test_no_answer_is_right_if_no_right_answer_has_a_word():
    """A question with no other answers counts as answerable, and "" is right."""
    found = evaluate_v2({"q": ["the", "."]}, {"q": ""})
    assert (found["HasAns_exact"], found["f1"]) == (100.0, 100.0)
    assert evaluate_v2({"q": ["the", "Seine"]}, {"q": ""})["exact"] == 0.0


def test_best_thresholds_by_hand():
    """Answering nothing scores 2 of 5. In order of rising odds: q1 +1 = 3, n1 +0, n2 -1 = 2, q2 +0 or +2/3, q3 +0."""
    odds = {"q1": -4.0, "n1": -3.0, "n2": -2.0, "q2": 0.5, "q3": 2.0}
    best = {"best_exact": 60.0, "best_exact_thresh": -4.0, "best_f1": 60.0, "best_f1_thresh": -4.0}
    assert tune_thresholds(GOLD, PREDICTIONS, odds) == best
    assert evaluate_v2(GOLD, PREDICTIONS, odds).items() > best.items()
    # With q2 before n2, F1 gains from q2: 3 + 2/3.
    odds["q2"] = -2.5
    assert tune_thresholds(GOLD, PREDICTIONS, odds) == {
        **best,
        "best_f1": pytest.approx(100 * (3 + 2 / 3) / 5),
        "best_f1_thresh": -2.5,
    }
    # If the first answers are wrong, answering nothing is best.
    assert tune_thresholds({"n": []}, {"n": "x"}, {"n": -9.0})["best_f1_thresh"] == 0.0
    assert tune_thresholds({"n": []}, {"n": "x"}, {})["best_f1"] == 100.0
    # Questions without a prediction do not count.
    assert tune_thresholds(GOLD, {"q1": "Seine"}, {"q1": 2.0, "n1": 1.0})["best_exact"] == 100.0


def test_best_thresholds_against_every_threshold():
    """No threshold scores better than the one found, and that one reaches its score."""
    draw = random.Random(2)
    gold = {str(i): ["x w", "y w"][: draw.choice([0, 1, 2])] for i in range(60)}
    predictions = {qas_id: draw.choice([*answers, "x", "w"]) for qas_id, answers in gold.items()}
    odds = {qas_id: draw.uniform(-5, 5) + (0 if answers else 1) for qas_id, answers in gold.items()}
    found = tune_thresholds(gold, predictions, odds)
    for name in ("exact", "f1"):
        scores = {
            t: evaluate_v2(gold, {i: "" if odds[i] > t else p for i, p in predictions.items()})[name]
            for t in [*odds.values(), -99.0]
        }
        assert found[f"best_{name}"] == pytest.approx(max(scores.values()))
        assert scores[found[f"best_{name}_thresh"]] == pytest.approx(max(scores.values()))


def test_a_threshold_for_the_main_scores():
    odds = {"q1": 2.0, "q2": 1.0, "q3": 0.0, "n1": 0.0, "n2": 1.5}
    assert evaluate_v2(GOLD, PREDICTIONS, odds)["exact"] == 40.0
    found = evaluate_v2(GOLD, PREDICTIONS, odds, na_prob_thresh=1.0)  # refuses q1 and n2
    assert (found["HasAns_exact"], found["NoAns_exact"]) == (0.0, 100.0)
    assert found["HasAns_f1"] == pytest.approx(100 * (2 / 3) / 3)
    assert found["best_exact"] == evaluate_v2(GOLD, PREDICTIONS, odds)["best_exact"]


# --- files


@pytest.fixture
def files(tmp_path):
    """A dataset of GOLD and its predictions."""
    qas = [{"id": i, "question": "?", "answers": [{"text": t} for t in texts]} for i, texts in GOLD.items()]
    data = tmp_path / "dev.json"
    data.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": [{"context": "", "qas": qas}]}]}))
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(PREDICTIONS))
    return data, predictions


def test_evaluate_files(files, tmp_path, capsys):
    data, predictions = files
    assert read_gold(data) == GOLD
    assert evaluate_files(data, predictions, version_2_with_negative=True) == evaluate_v2(GOLD, PREDICTIONS)
    odds = tmp_path / "null_odds.json"
    odds.write_text(json.dumps(dict.fromkeys(GOLD, 0.5)))
    assert evaluate_files(data, predictions, True, odds) == evaluate_v2(GOLD, PREDICTIONS, dict.fromkeys(GOLD, 0.5))
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="'n1' has no answer"):
        evaluate_files(data, predictions)
    assert capsys.readouterr().err == f"warning: {data}: version 'v2.0', expected '1.1'\n"


def test_bad_files(files, tmp_path):
    data, predictions = files
    predictions.write_text('{"q1": 3}')
    with pytest.raises(UsageError, match=r"predictions .*predictions.json: expected str for 'q1', found int"):
        evaluate_files(data, predictions)
    predictions.write_text('{"q1": "3"}')
    with pytest.raises(UsageError, match=r"null odds .*predictions.json: expected float for 'q1', found str"):
        read_by_id(predictions, "null odds", float)
    predictions.write_text('{"q1": 3}')
    assert read_by_id(predictions, "null odds", float) == {"q1": 3}
    data.write_text('{"data": [{"paragraphs": [{"context": "", "qas": [{"id": "q", "question": ""}]}]}]}')
    with pytest.raises(UsageError, match=r"qas\[0\]: 'answers' is missing"):
        read_gold(data)


# --- evaluation scripts


SCORE = "import json, sys; data, predictions = map(open, sys.argv[1:])\n"


@pytest.mark.parametrize(
    "body",
    [
        "print(json.dumps({'f1': 88.5, 'exact_match': 81.25}))",
        "print(json.dumps({'exact': 81.25, 'f1': 88.5, 'total': 5}, indent=2))",
        "print('Missing {prediction} for q\\n{}'); print('result:', json.dumps({'exact': 81.25, 'f1': 88.5}), 'done')",
        "print(json.dumps({'config': {'f1': 'on'}})); print(json.dumps({'all': {'exact_match': 81.25, 'f1': 88.5}}))",
    ],
)
def test_run_eval_script(files, tmp_path, body):
    script = tmp_path / "evaluate.py"
    script.write_text(SCORE + body)
    assert run_eval_script(script, *files) == {"exact_match": 81.25, "f1": 88.5}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no such thing')", r"--eval_script .*evaluate.py: failed with exit code 1 \(no such thing\)"),
        ("sys.exit(3)", r"failed with exit code 3 \(no message\)"),
        ("print('88.5 81.25'); print({'f1': 1})", 'printed no JSON object with "exact_match"'),
        (None, r"failed with exit code 2 \(.*can't open file"),
    ],
)
def test_run_eval_script_that_fails(files, tmp_path, body, message):
    script = tmp_path / "evaluate.py"
    if body is not None:
        script.write_text(SCORE + body)
    with pytest.raises(UsageError, match=message):
        run_eval_script(script, *files)
