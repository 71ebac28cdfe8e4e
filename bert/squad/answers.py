"""Start and end logits of all windows → the answer to each question, its n best candidates and its null odds.

An answer is a part of its context, from the first character of its first piece to the last one of its last piece. The
published scripts instead look for its pieces in whole words; ``answer_alignment="published"`` repeats that exactly.

All windows of a question compete. In version 2 the null answer, whose score is start + end logit of ``[CLS]``, competes
too, with the lowest of its scores over the windows; the question counts as unanswerable if that score exceeds the best
text's by more than a threshold::

    results = [RawResult(feature.unique_id, start_logits, end_logits) for feature in features]
    answers = find_answers(examples, features, results, do_lower_case=True, config=AnswerConfig())
    answers[0].text, answers[0].nbest[0].probability

Ties are broken by window, then by rank of the start, then by rank of the end; equal logits rank by position.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.squad.align import detokenize, get_final_text
from bert.squad.examples import ALIGNMENTS, OFFSETS, SquadExample, by_offsets
from bert.squad.windows import InputFeatures

LARGEST = 1e6  # stands for infinity where JSON needs a number: the null odds of a question without any text


@dataclass
class AnswerConfig:
    """How answers are chosen."""

    n_best_size: int = flag(20, "Starts, ends and answers to consider per question.", minimum=1)
    max_answer_length: int = flag(30, "Longest answer, in word pieces.", minimum=1)
    version_2_with_negative: bool = flag(False, "SQuAD 2.0: questions may have no answer.")
    null_score_diff_threshold: float = flag(
        0.0, "Give no answer if its score exceeds the best text's by more than this; see best_f1_thresh."
    )
    verbose_logging: bool = flag(
        False, "With --answer_alignment published: report answers that could not be traced back to the original text."
    )
    answer_alignment: str = flag(
        OFFSETS,
        "How answers are found in their text: by the characters of their pieces, or as the published scripts do, by "
        "comparing letters, and whole words where that fails.",
        choices=ALIGNMENTS,
    )

    def __post_init__(self) -> None:
        by_offsets(self.answer_alignment)  # raises UsageError


class RawResult(NamedTuple):
    """The model's logits of one window, one per token; those of the padding may follow."""

    unique_id: int
    start_logits: ArrayLike
    end_logits: ArrayLike


class Candidate(NamedTuple):
    """A possible answer; ``text`` "" stands for none."""

    text: str
    probability: float  # among the n best
    start_logit: float
    end_logit: float
    span: tuple[int, int] | None = None  # characters (first, last + 1) of its pieces in the context

    def as_json(self) -> dict[str, Any]:
        """Return what the published scripts write of it."""
        return {name: value for name, value in self._asdict().items() if name != "span"}


@dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    qas_id: str
    text: str  # the prediction; "" = unanswerable
    best_text: str  # the prediction before any threshold, for tuning one
    null_odds: float | None  # version 2: score of no answer minus score of ``best_text``
    nbest: list[Candidate]  # best first; at most n_best_size, plus the null answer if it is not among them

    @property
    def chosen(self) -> Candidate:
        """The candidate that is the prediction."""
        return next(candidate for candidate in self.nbest if candidate.text == self.text)


def write_predictions(
    all_examples: Sequence[SquadExample],
    all_features: Sequence[InputFeatures],
    all_results: Sequence[RawResult],
    n_best_size: int,
    max_answer_length: int,
    do_lower_case: bool,
    output_prediction_file: str | Path,
    output_nbest_file: str | Path | None,
    output_null_log_odds_file: str | Path | None,
    verbose_logging: bool,
    version_2_with_negative: bool,
    null_score_diff_threshold: float,
    output_best_file: str | Path | None = None,
    answer_alignment: str = OFFSETS,
) -> list[Answer]:
    """Find the answers and write them, see :func:`write_answers`; the signature is that of the published scripts.

    Their texts, too, with ``answer_alignment="published"``.
    """
    config = AnswerConfig(
        n_best_size,
        max_answer_length,
        version_2_with_negative,
        null_score_diff_threshold,
        verbose_logging,
        answer_alignment,
    )
    answers = find_answers(all_examples, all_features, all_results, do_lower_case, config)
    version_2_files = (output_null_log_odds_file, output_best_file) if version_2_with_negative else ()
    write_answers(answers, output_prediction_file, output_nbest_file, *version_2_files)
    return answers


def write_answers(
    answers: Sequence[Answer],
    predictions: str | Path,
    nbest: str | Path | None = None,
    null_odds: str | Path | None = None,
    best: str | Path | None = None,
) -> None:
    """Write each part as a JSON object, by question id, to the file given for it; raises UsageError naming the file."""
    _write_json(predictions, {answer.qas_id: answer.text for answer in answers})
    _write_json(nbest, {answer.qas_id: [c.as_json() for c in answer.nbest] for answer in answers})
    _write_json(null_odds, {answer.qas_id: answer.null_odds for answer in answers})
    _write_json(best, {answer.qas_id: answer.best_text for answer in answers})


def _write_json(path: str | Path | None, value: Any) -> None:
    if path is not None:
        with naming_os_errors(str(path)), replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps(value, indent=4) + "\n", encoding="utf8")


def find_answers(
    examples: Sequence[SquadExample],
    features: Sequence[InputFeatures],
    results: Sequence[RawResult],
    do_lower_case: bool,
    config: AnswerConfig,
) -> list[Answer]:
    """Answer every question, in order. Windows without a result are skipped with a warning on stderr.

    Raises UsageError if no window has a result, and for logits that are NaN or plus infinity. Minus infinity is
    allowed, since masking produces it. Only the published alignment depends on ``do_lower_case``.
    """
    by_id = {result.unique_id: result for result in results}
    known = [feature for feature in features if feature.unique_id in by_id]
    if features and not known:
        raise UsageError(f"none of the {len(results)} results belongs to any of the {len(features)} windows")
    if len(known) < len(features):
        print(f"warning: {len(features) - len(known)} of {len(features)} windows have no result", file=sys.stderr)
    windows: dict[int, list[InputFeatures]] = defaultdict(list)
    for feature in known:
        windows[feature.example_index].append(feature)
    answers = []
    for index, example in enumerate(examples):
        scored = [ScoredWindow.of(feature, by_id[feature.unique_id]) for feature in windows[index]]
        answers.append(_answer(example, scored, do_lower_case, config))
    return answers


class ScoredWindow(NamedTuple):
    """A window and its logits, one per token."""

    feature: InputFeatures
    start_logits: NDArray[np.float64]
    end_logits: NDArray[np.float64]

    @classmethod
    def of(cls, feature: InputFeatures, result: RawResult) -> ScoredWindow:
        """Check and flatten the logits of ``result``; raises UsageError as :func:`find_answers` says."""
        logits = [np.asarray(values, np.float64).reshape(-1) for values in result[1:]]
        if any(not len(values) or np.isnan(values).any() or np.isposinf(values).any() for values in logits):
            raise UsageError(f"window {result.unique_id}: its logits are missing, infinite or not a number")
        return cls(feature, *(np.maximum(values, -LARGEST) for values in logits))

    def spans(self, config: AnswerConfig) -> NDArray[np.float64]:
        """Return possible answers by rank: rows (first piece of the context, last piece, start logit, end logit)."""
        best, shift = self.feature.is_max_context, self.feature.segment_start
        both = (self.start_logits, self.end_logits)
        ranked = (np.argsort(-logits, kind="stable")[: config.n_best_size] - shift for logits in both)
        starts, ends = (places[(places >= 0) & (places < len(best))] for places in ranked)
        starts = starts[best[starts]]
        length = ends[None, :] - starts[:, None] + 1
        rows, columns = np.nonzero((length >= 1) & (length <= config.max_answer_length))
        start, end = starts[rows], ends[columns]
        table = np.column_stack([start, end, self.start_logits[start + shift], self.end_logits[end + shift]])
        return table.astype(np.float64)


def _answer(
    example: SquadExample, windows: Sequence[ScoredWindow], do_lower_case: bool, config: AnswerConfig
) -> Answer:
    null = None
    if config.version_2_with_negative:
        at_cls = [(window.start_logits[0].item(), window.end_logits[0].item()) for window in windows]
        null = min(at_cls, key=sum, default=(0.0, 0.0))
    nbest = _choose(_ranked(example, windows, null, do_lower_case, config), config.n_best_size, null)
    if null is None:
        return Answer(example.qas_id, nbest[0].text, nbest[0].text, None, nbest)
    best = next((candidate for candidate in nbest if candidate.text), None)
    if best is None:
        return Answer(example.qas_id, "", "", LARGEST, nbest)
    odds = min(max(sum(null) - best.start_logit - best.end_logit, -LARGEST), LARGEST)
    text = "" if odds > config.null_score_diff_threshold else best.text
    return Answer(example.qas_id, text, best.text, odds, nbest)


def _choose(ranked: Iterator[Candidate], size: int, null: tuple[float, float] | None) -> list[Candidate]:
    """Return the ``size`` best candidates of distinct text, and the null answer, with the softmax of their scores."""
    nbest: dict[str, Candidate] = {}
    for candidate in ranked:
        nbest.setdefault(candidate.text, candidate)
        if len(nbest) == size:
            break
    if null is not None:
        nbest.setdefault("", Candidate("", 0.0, *null))
    chosen = list(nbest.values()) or [Candidate("empty", 0.0, 0.0, 0.0)]
    scores = [candidate.start_logit + candidate.end_logit for candidate in chosen]
    weights = [math.exp(score - max(scores)) for score in scores]
    return [c._replace(probability=w / sum(weights)) for c, w in zip(chosen, weights, strict=True)]


def _ranked(
    example: SquadExample,
    windows: Sequence[ScoredWindow],
    null: tuple[float, float] | None,
    do_lower_case: bool,
    config: AnswerConfig,
) -> Iterator[Candidate]:
    """Yield all candidates of a question, highest score first; texts, which cost most, are made one at a time."""
    found = [window.spans(config) for window in windows]
    owners = [window.feature for window, rows in zip(windows, found, strict=True) for _ in range(len(rows))]
    if null is not None:
        found.append(np.array([[0.0, 0.0, *null]]))
    table = np.concatenate([*found, np.zeros((0, 4))])
    for index in np.argsort(-(table[:, 2] + table[:, 3]), kind="stable").tolist():
        start, end, start_logit, end_logit = table[index].tolist()
        if index == len(owners):
            yield Candidate("", 0.0, start_logit, end_logit)
            continue
        feature, pieces = owners[index], (int(start), int(end))
        span = feature.characters(*pieces)
        if by_offsets(config.answer_alignment):
            text = feature.windows.context.text[slice(*span)]
        else:
            text = published_text(example, feature, pieces, do_lower_case, config.verbose_logging)
        yield Candidate(text, 0.0, start_logit, end_logit, span)


def published_text(
    example: SquadExample, feature: InputFeatures, pieces: tuple[int, int], do_lower_case: bool, verbose: bool
) -> str:
    """Return the part of the words of ``pieces``, (first, last) of a window's context, that reads as they do."""
    start, end = pieces
    words, shift = feature.words, feature.segment_start
    first, last = words[start], words[end]
    original = " ".join(example.doc_tokens[first : last + 1])
    if words[max(start - 1, 0)] != first and words[min(end + 1, len(words) - 1)] != last:
        return original  # whole words for certain: aligning them would return the same
    predicted = detokenize(feature.tokens[shift + start : shift + end + 1])
    return get_final_text(predicted, original, do_lower_case, verbose)
