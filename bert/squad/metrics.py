"""Exact match and F1 of answers by the rules of SQuAD's evaluation scripts, versions 1.1 and 2.0, in percent.

Answers are compared word by word in lower case, without ASCII punctuation and without "a", "an" and "the"; of several
right answers the closest counts. In version 2 the right answer to an unanswerable question is ``""``::

    gold = read_gold("dev-v2.0.json")                                   # {id: right answers}
    evaluate_v2(gold, {"q1": "the Seine", "q2": ""})["f1"]
    tune_thresholds(gold, best_texts, null_odds)["best_f1_thresh"]      # for --null_score_diff_threshold

A question without a prediction scores 0 in version 1.1 and is ignored in 2.0, as in the scripts.
"""

from __future__ import annotations

import json
import math
import re
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bert.config import load_json
from bert.errors import UsageError
from bert.squad.examples import load_dataset, member, paragraphs

ARTICLE = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

Gold = Mapping[str, list[str]]  # question id -> right answers; none if it is unanswerable


def normalize_answer(text: str) -> str:
    """Return the form of ``text`` that is compared."""
    return " ".join(ARTICLE.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def exact_score(gold: str, prediction: str) -> float:
    """1 if both read the same after normalisation, else 0."""
    return float(normalize_answer(gold) == normalize_answer(prediction))


def f1_score(gold: str, prediction: str) -> float:
    """Harmonic mean of precision and recall over the words; 0 if no word is shared."""
    wanted, given = normalize_answer(gold).split(), normalize_answer(prediction).split()
    shared = sum((Counter(wanted) & Counter(given)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def f1_score_v2(gold: str, prediction: str) -> float:
    """F1 as in version 2: 1 if neither has a word."""
    if not (normalize_answer(gold) and normalize_answer(prediction)):
        return exact_score(gold, prediction)
    return f1_score(gold, prediction)


def evaluate_v1(gold: Gold, predictions: Mapping[str, str]) -> dict[str, float]:
    """Return ``exact_match`` and ``f1`` over all questions of ``gold``; raises UsageError if one has no answer."""
    missing = [qas_id for qas_id in gold if qas_id not in predictions]
    if missing:
        print(f"{len(missing)} unanswered questions receive score 0 (first: {missing[0]})", file=sys.stderr)
    impossible = next((qas_id for qas_id, answers in gold.items() if not answers), None)
    if impossible is not None:
        raise UsageError(f"question {impossible!r} has no answer: SQuAD 2.0 needs --version_2_with_negative")
    exact, f1 = _scores(gold, predictions, exact_score), _scores(gold, predictions, f1_score)
    return {"exact_match": _percent(exact.values(), len(gold)), "f1": _percent(f1.values(), len(gold))}


def evaluate_v2(
    gold: Gold,
    predictions: Mapping[str, str],
    na_probs: Mapping[str, float] | None = None,
    na_prob_thresh: float | None = None,
) -> dict[str, float]:
    """Return ``exact``, ``f1`` and ``total``, also of answerable (``HasAns_``) and unanswerable questions (``NoAns_``).

    ``na_probs``, the null odds or probabilities, adds the best thresholds, see :func:`tune_thresholds`. With
    ``na_prob_thresh`` (1.0 in the published script, made for probabilities) a prediction counts as "" if its
    ``na_probs`` exceed it.
    """
    for qas_id in [qas_id for qas_id in gold if qas_id not in predictions]:
        print(f"Missing prediction for {qas_id}", file=sys.stderr)
    gold = {qas_id: answers for qas_id, answers in gold.items() if qas_id in predictions}
    odds, threshold = na_probs or {}, math.inf if na_prob_thresh is None else na_prob_thresh
    refused = {qas_id: float(not answers) for qas_id, answers in gold.items() if odds.get(qas_id, 0.0) > threshold}
    scores = [scores | refused for scores in _scores_v2(gold, predictions)]
    found: dict[str, float] = {}
    for prefix, answerable in (("", (True, False)), ("HasAns_", (True,)), ("NoAns_", (False,))):
        ids = [qas_id for qas_id, answers in gold.items() if bool(answers) in answerable]
        if ids or not prefix:
            exact, f1 = (_percent([each[qas_id] for qas_id in ids], len(ids)) for each in scores)
            found |= {f"{prefix}exact": exact, f"{prefix}f1": f1, f"{prefix}total": len(ids)}
    return found | (tune_thresholds(gold, predictions, na_probs) if na_probs is not None else {})


def tune_thresholds(gold: Gold, predictions: Mapping[str, str], na_probs: Mapping[str, float]) -> dict[str, float]:
    """Return ``best_exact``, ``best_exact_thresh``, ``best_f1`` and ``best_f1_thresh`` over all thresholds.

    ``predictions`` should be the best texts before any threshold, since a threshold cannot change the score of "". The
    result is the lowest of the best thresholds: one of ``na_probs``, or 0.0 if answering nothing at all is best.
    """
    found: dict[str, float] = {}
    for name, scores in zip(("exact", "f1"), _scores_v2(gold, predictions), strict=True):
        best = current = sum(not gold[qas_id] for qas_id in scores)  # the score of answering nothing
        threshold = 0.0
        ids = (qas_id for qas_id in {**na_probs, **scores} if qas_id in scores)  # ties in the order of na_probs
        for qas_id in sorted(ids, key=lambda qas_id: na_probs.get(qas_id, 0.0)):
            current += scores[qas_id] if gold[qas_id] else -bool(predictions[qas_id])
            if current > best:
                best, threshold = current, na_probs.get(qas_id, 0.0)
        found |= {f"best_{name}": _percent([best], len(scores)), f"best_{name}_thresh": threshold}
    return found


def read_gold(data_file: str | Path, version: str | None = None) -> dict[str, list[str]]:
    """Read the right answers of a SQuAD file; warns on stderr if it declares another ``version``."""
    dataset = load_dataset(data_file)
    if version is not None and dataset.get("version", version) != version:
        print(f"warning: {data_file}: version {dataset['version']!r}, expected {version!r}", file=sys.stderr)
    return {
        question["id"]: [member(answer, "text", str, where) for answer in member(question, "answers", list, where)]
        for paragraph in paragraphs(dataset, str(data_file))
        for where, question in paragraph.questions
    }


def read_by_id(path: str | Path, what: str, kind: type) -> dict[str, Any]:
    """Read ``{id: value}``; raises UsageError, beginning with ``what``, unless all values are of ``kind``."""
    found = load_json(path, what)
    for qas_id, value in found.items():
        if not isinstance(value, (int, float) if kind is float else kind):
            raise UsageError(f"{what} {path}: expected {kind.__name__} for {qas_id!r}, found {type(value).__name__}")
    return found


def evaluate_files(
    data_file: str | Path,
    prediction_file: str | Path,
    version_2_with_negative: bool = False,
    na_prob_file: str | Path | None = None,
) -> dict[str, float]:
    """Score a prediction file by the rules of its version; only version 2 uses ``na_prob_file`` (null odds)."""
    predictions = read_by_id(prediction_file, "predictions", str)
    if not version_2_with_negative:
        return evaluate_v1(read_gold(data_file, "1.1"), predictions)
    na_probs = read_by_id(na_prob_file, "null odds", float) if na_prob_file else None
    return evaluate_v2(read_gold(data_file), predictions, na_probs)


def run_eval_script(script: str | Path, data_file: str | Path, prediction_file: str | Path) -> dict[str, float]:
    """Run a SQuAD evaluation script and return its ``exact_match`` and ``f1``; version 2 calls the former ``exact``.

    The JSON object with both may be anywhere in its output. Raises UsageError if the script fails or prints none.
    """
    command = [sys.executable, str(script), str(data_file), str(prediction_file)]
    done = subprocess.run(command, capture_output=True, encoding="utf8", errors="replace")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"--eval_script {script}: failed with exit code {done.returncode} ({last})")
    for found in _json_objects(done.stdout):
        exact = found.get("exact_match", found.get("exact"))
        if isinstance(exact, int | float) and isinstance(found.get("f1"), int | float):
            return {"exact_match": float(exact), "f1": float(found["f1"])}
    raise UsageError(f'--eval_script {script}: printed no JSON object with "exact_match" (or "exact") and "f1"')


def _json_objects(text: str) -> Iterable[dict[str, Any]]:
    """Yield every JSON object in ``text``, outer ones first."""
    for brace in re.finditer(r"\{", text):
        try:
            yield json.JSONDecoder().raw_decode(text, brace.start())[0]
        except ValueError:
            continue


def _scores(gold: Gold, predictions: Mapping[str, str], score: Callable[[str, str], float]) -> dict[str, float]:
    return {
        qas_id: max(score(answer, predictions[qas_id]) for answer in answers)
        for qas_id, answers in gold.items()
        if qas_id in predictions
    }


def _scores_v2(gold: Gold, predictions: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float]]:
    """Return exact match and F1 of each predicted question; "" is right if no right answer has a word."""
    wanted = {qas_id: list(filter(normalize_answer, answers)) or [""] for qas_id, answers in gold.items()}
    return _scores(wanted, predictions, exact_score), _scores(wanted, predictions, f1_score_v2)


def _percent(scores: Iterable[float], count: int) -> float:
    return 100.0 * sum(scores) / count if count else 0.0
