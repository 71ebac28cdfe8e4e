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
from bert.tasks.final_text import detokenize, get_final_text
from bert.tasks.squad_examples import SquadExample
from bert.tasks.windows import InputFeatures

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
    windows: dict[int, list[tuple[InputFeatures, RawResult]]] = defaultdict(list)
    for feature in features:
        if feature.unique_id in by_id:
            windows[feature.example_index].append((feature, by_id[feature.unique_id]))
    found = sum(map(len, windows.values()))
    if features and not found:
        raise UsageError(f"none of {len(results)} results belongs to one of the {len(features)} windows")
    if found < len(features):
        print(f"warning: {len(features) - found} of {len(features)} windows have no result", file=sys.stderr)
    return [_answer(example, windows[index], do_lower_case, config) for index, example in enumerate(examples)]


def best_indices(logits: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the places of the ``count`` highest logits, highest first, equal ones in their order."""
    return np.argsort(-logits, kind="stable")[:count]


def window_candidates(
    feature: InputFeatures, start_logits: NDArray[np.float64], end_logits: NDArray[np.float64], config: AnswerConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts and ends of a window's possible answers, [c] each, by rank of the start, then of the end."""
    inside, best = feature.token_to_orig_map, feature.token_is_max_context
    starts = [i for i in best_indices(start_logits, config.n_best_size).tolist() if i in inside and best.get(i, False)]
    ends = [i for i in best_indices(end_logits, config.n_best_size).tolist() if i in inside]
    start, end = np.array(starts, np.int64), np.array(ends, np.int64)
    length = end[None, :] - start[:, None] + 1
    rows, columns = np.nonzero((length >= 1) & (length <= config.max_answer_length))
    return start[rows], end[columns]


def _answer(
    example: SquadExample, windows: list[tuple[InputFeatures, RawResult]], do_lower_case: bool, config: AnswerConfig
) -> Answer:
    logits = [(_finite(result.start_logits, result), _finite(result.end_logits, result)) for _, result in windows]
    nulls = [(float(start[0]), float(end[0])) for start, end in logits]
    null = min(nulls, key=sum, default=(0.0, 0.0)) if config.version_2_with_negative else None
    nbest, best = _choose(_ranked(example, windows, logits, null, do_lower_case, config), config.n_best_size, null)
    if null is None:
        return Answer(example.qas_id, nbest[0].text, nbest[0].text, None, nbest)
    odds = LARGEST if best is None else min(max(sum(null) - best.start_logit - best.end_logit, -LARGEST), LARGEST)
    best_text = "" if best is None else best.text
    answerable = odds <= config.null_score_diff_threshold
    return Answer(example.qas_id, best_text if answerable else "", best_text, odds, nbest)


def _choose(
    ranked: Iterator[Candidate], size: int, null: tuple[float, float] | None
) -> tuple[list[Candidate], Candidate | None]:
    """Return the n best of different text, with probabilities, and the best that is a text, even if not among them."""
    nbest: list[Candidate] = []
    best: Candidate | None = None
    seen: set[str] = set()
    for candidate in ranked:
        if len(nbest) >= size and (best or null is None):
            break
        if candidate.text in seen:
            continue
        seen.add(candidate.text)
        best = best or (candidate if candidate.text else None)
        if len(nbest) < size:
            nbest.append(candidate)
    if null is not None and all(candidate.text for candidate in nbest):
        nbest.append(Candidate("", 0.0, *null))
    return _with_probabilities(nbest or [Candidate("empty", 0.0, 0.0, 0.0)]), best


def _ranked(
    example: SquadExample,
    windows: list[tuple[InputFeatures, RawResult]],
    logits: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    null: tuple[float, float] | None,
    do_lower_case: bool,
    config: AnswerConfig,
) -> Iterator[Candidate]:
    """Yield all candidates of a question, highest score first; texts are made as they are asked for."""
    found = [window_candidates(f, *pair, config) for (f, _), pair in zip(windows, logits, strict=True)]
    places = [(w, s, e) for w, pair in enumerate(found) for s, e in zip(*(x.tolist() for x in pair), strict=True)]
    start_logits = [logits[w][0][pair[0]] for w, pair in enumerate(found)]
    end_logits = [logits[w][1][pair[1]] for w, pair in enumerate(found)]
    if null is not None:
        places.append((-1, 0, 0))
        start_logits.append(np.array(null[:1]))
        end_logits.append(np.array(null[1:]))
    if not places:
        return
    start_logit, end_logit = np.concatenate(start_logits), np.concatenate(end_logits)
    for index in best_indices(start_logit + end_logit, len(places)).tolist():
        window, start, end = places[index]
        text = "" if window < 0 else span_text(example, windows[window][0], start, end, do_lower_case, config)
        yield Candidate(text, 0.0, start_logit[index].item(), end_logit[index].item())


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


def _finite(logits: ArrayLike, result: RawResult) -> NDArray[np.float64]:
    values = np.asarray(logits, np.float64).reshape(-1)
    if not len(values) or np.isnan(values).any() or np.isposinf(values).any():
        raise UsageError(f"window {result.unique_id}: its logits are missing, infinite or not a number")
    return np.maximum(values, -LARGEST)
