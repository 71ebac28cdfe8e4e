"""Start and end logits of all windows → the answer to each question, its n best rivals and its null odds.

The windows of a question compete with one another. In version 2 the null answer, whose score is start + end logit of
``[CLS]``, takes part with the window where it is lowest; the question is unanswerable where that score exceeds the best
text's by more than a threshold::

    results = [RawResult(feature.unique_id, start_logits, end_logits) for feature in features]
    answers = find_answers(examples, features, results, do_lower_case=True, config=AnswerConfig())
    answers[0].text, answers[0].nbest[0].probability

Equal scores keep their order: window, rank of the start, rank of the end; equal logits that of their positions.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bert.config import flag
from bert.errors import UsageError
from bert.files import replacing
from bert.squad.align import detokenize, get_final_text
from bert.squad.examples import SquadExample
from bert.squad.windows import InputFeatures

LARGEST = 1e6  # stands for infinity where a value must fit JSON: the null odds of a question without any text


@dataclass
class AnswerConfig:
    """How answers are chosen."""

    n_best_size: int = flag(20, "Starts, ends and answers of a question to keep.", minimum=1)
    max_answer_length: int = flag(30, "Longest answer, in word pieces.", minimum=1)
    version_2_with_negative: bool = flag(False, "SQuAD 2.0: questions may have no answer.")
    null_score_diff_threshold: float = flag(
        0.0, "No answer where its score exceeds the best text's by more than this; see best_f1_thresh."
    )
    verbose_logging: bool = flag(False, "Say which answers could not be traced back to the original text.")


class RawResult(NamedTuple):
    """The model's logits of one window, one a position, with or without those of the padding."""

    unique_id: int
    start_logits: ArrayLike
    end_logits: ArrayLike


class Candidate(NamedTuple):
    """A possible answer; ``text`` "" stands for none."""

    text: str
    probability: float  # among the n best
    start_logit: float
    end_logit: float


@dataclass(frozen=True)
class Answer:
    """What was found for one question."""

    qas_id: str
    text: str  # the prediction; "" = unanswerable
    best_text: str  # the prediction before any threshold, from which a threshold is tuned
    null_odds: float | None  # version 2: score of no answer less score of ``best_text``
    nbest: list[Candidate]  # best first; at most n_best_size, and one more where the null answer came too late


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
) -> list[Answer]:
    """Find the answers and write ``{id: text}``, ``{id: n best}`` and, in version 2, ``{id: null odds}`` as JSON.

    In version 2 ``output_best_file`` gets ``{id: best_text}``, from which the threshold is to be tuned. A file that is
    None is not written.
    """
    config = AnswerConfig(
        n_best_size, max_answer_length, version_2_with_negative, null_score_diff_threshold, verbose_logging
    )
    answers = find_answers(all_examples, all_features, all_results, do_lower_case, config)
    write_json(output_prediction_file, {answer.qas_id: answer.text for answer in answers})
    write_json(output_nbest_file, {answer.qas_id: [c._asdict() for c in answer.nbest] for answer in answers})
    if version_2_with_negative:
        write_json(output_null_log_odds_file, {answer.qas_id: answer.null_odds for answer in answers})
        write_json(output_best_file, {answer.qas_id: answer.best_text for answer in answers})
    return answers


def write_json(path: str | Path | None, value: Any) -> None:
    """Write ``value`` to ``path``, unless that is None, as the published scripts do; raises UsageError naming it."""
    if path is None:
        return
    try:
        with replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps(value, indent=4) + "\n", encoding="utf8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def find_answers(
    examples: Sequence[SquadExample],
    features: Sequence[InputFeatures],
    results: Sequence[RawResult],
    do_lower_case: bool,
    config: AnswerConfig,
) -> list[Answer]:
    """Answer every question, in order. A window without a result is passed over, with a notice on stderr.

    Raises UsageError where no window has a result, and for logits that are infinite or not a number (minus infinity,
    as a mask leaves it, is fine).
    """
    by_id = {result.unique_id: result for result in results}
    known = [feature for feature in features if feature.unique_id in by_id]
    if features and not known:
        raise UsageError(f"none of {len(results)} results belongs to one of the {len(features)} windows")
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
    """A window and its logits, one a position."""

    feature: InputFeatures
    start_logits: NDArray[np.float64]
    end_logits: NDArray[np.float64]

    @classmethod
    def of(cls, feature: InputFeatures, result: RawResult) -> ScoredWindow:
        """Bring the logits of ``result`` in shape; raises UsageError for such as a sound model does not make."""
        logits = [np.asarray(values, np.float64).reshape(-1) for values in result[1:]]
        if any(not len(values) or np.isnan(values).any() or np.isposinf(values).any() for values in logits):
            raise UsageError(f"window {result.unique_id}: its logits are missing, infinite or not a number")
        return cls(feature, *(np.maximum(values, -LARGEST) for values in logits))

    @property
    def null(self) -> tuple[float, float]:
        """The logits of [CLS]."""
        return self.start_logits[0].item(), self.end_logits[0].item()

    def spans(self, config: AnswerConfig) -> NDArray[np.float64]:
        """Return the possible answers as rows (start, end, start logit, end logit), by rank of start, then of end."""
        inside, best = self.feature.token_to_orig_map, self.feature.token_is_max_context
        ranks = [best_indices(logits, config.n_best_size).tolist() for logits in (self.start_logits, self.end_logits)]
        starts = np.array([i for i in ranks[0] if i in inside and best.get(i, False)], np.int64)
        ends = np.array([i for i in ranks[1] if i in inside], np.int64)
        length = ends[None, :] - starts[:, None] + 1
        rows, columns = np.nonzero((length >= 1) & (length <= config.max_answer_length))
        start, end = starts[rows], ends[columns]
        return np.column_stack([start, end, self.start_logits[start], self.end_logits[end]]).astype(np.float64)


def best_indices(logits: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the places of the ``count`` highest logits, highest first, equal ones in their order."""
    return np.argsort(-logits, kind="stable")[:count]


def _answer(
    example: SquadExample, windows: Sequence[ScoredWindow], do_lower_case: bool, config: AnswerConfig
) -> Answer:
    null = None
    if config.version_2_with_negative:
        null = min((window.null for window in windows), key=sum, default=(0.0, 0.0))
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
    """Return the ``size`` best of different text, with probabilities, and the null answer if it is not among them."""
    nbest: dict[str, Candidate] = {}
    for candidate in ranked:
        nbest.setdefault(candidate.text, candidate)
        if len(nbest) == size:
            break
    if null is not None:
        nbest.setdefault("", Candidate("", 0.0, *null))
    return _with_probabilities(list(nbest.values()) or [Candidate("empty", 0.0, 0.0, 0.0)])


def _ranked(
    example: SquadExample,
    windows: Sequence[ScoredWindow],
    null: tuple[float, float] | None,
    do_lower_case: bool,
    config: AnswerConfig,
) -> Iterator[Candidate]:
    """Yield all candidates of a question, highest score first; texts are made as they are asked for."""
    found = [window.spans(config) for window in windows]
    owners = [window.feature for window, rows in zip(windows, found, strict=True) for _ in range(len(rows))]
    if null is not None:
        found.append(np.array([[0.0, 0.0, *null]]))
    table = np.concatenate([*found, np.zeros((0, 4))])
    for index in best_indices(table[:, 2] + table[:, 3], len(table)).tolist():
        start, end, start_logit, end_logit = table[index].tolist()
        is_null = index == len(owners)
        text = "" if is_null else span_text(example, owners[index], int(start), int(end), do_lower_case, config)
        yield Candidate(text, 0.0, start_logit, end_logit)


def span_text(
    example: SquadExample, feature: InputFeatures, start: int, end: int, do_lower_case: bool, config: AnswerConfig
) -> str:
    """Return what stands in the original text at tokens ``start`` to ``end`` of a window."""
    words = feature.token_to_orig_map
    first, last = words[start], words[end]
    original = " ".join(example.doc_tokens[first : last + 1])
    if _differs(words, start - 1, first) and _differs(words, end + 1, last):
        return original  # whole words: aligning them would give the same
    pieces = detokenize(feature.tokens[start : end + 1])
    return get_final_text(pieces, original, do_lower_case, config.verbose_logging)


def _differs(words: Mapping[int, int], position: int, word: int) -> bool:
    """Whether the token at ``position`` is known to be of another word; beyond the window nothing is known."""
    return words.get(position, word) != word


def _with_probabilities(candidates: list[Candidate]) -> list[Candidate]:
    """Fill in the softmax of the candidates' scores."""
    scores = [candidate.start_logit + candidate.end_logit for candidate in candidates]
    weights = [math.exp(score - max(scores)) for score in scores]
    return [c._replace(probability=w / sum(weights)) for c, w in zip(candidates, weights, strict=True)]
