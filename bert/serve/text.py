"""Text → inputs of the engine → the reply: what stands in front of an engine, one class for each task.

    front = build_front(settings, tokenizer)
    prepared = front.prepare({"question": "Who?", "context": "Ada wrote it."})
    reply = front.reply(prepared, [engine_outputs_of(ids, types) for ids, types in prepared.inputs])
    reply["answer"], reply["start"], reply["end"]           # "Ada", 0, 3: characters of the context

Nothing here needs PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError
from bert.sequences import Sequences, encode_pairs
from bert.squad.answers import AnswerConfig, Candidate, RawResult, find_answers
from bert.squad.examples import SquadExample, check_unicode, example_from_text
from bert.squad.features import convert_examples_to_features, features_to_sequences
from bert.squad.windows import InputFeatures
from bert.tokenization import BertTokenizer

SEARCHED = 20  # best starts and ends to combine, however few answers are shown
NO_PIECES = "{}: no word of it is text to the model"  # control characters only
Values = dict[str, Any]  # by the name of an input or output


class Input(NamedTuple):
    """One sequence for the engine."""

    ids: NDArray[np.int32]  # [L]
    types: NDArray[np.int32]  # [L]
    task: str | None = None  # of several


class Prepared(Protocol):
    """What a front keeps between its two steps."""

    @property
    def inputs(self) -> list[Input]: ...


class Front(Protocol):
    """A task's text front. ``reply`` takes the engine's outputs for each of ``prepared.inputs``."""

    def prepare(self, values: Values) -> Any: ...
    def reply(self, prepared: Any, outputs: Sequence[Sequence[NDArray]]) -> Values: ...


def inputs_of(sequences: Sequences) -> list[Input]:
    """Cut a stream into one input for each sequence."""
    bounds, starts = sequences.offsets.tolist(), sequences.segment_starts.tolist()
    return [
        Input(sequences.tokens[a:b], (np.arange(b - a) >= start).astype(np.int32))
        for a, b, start in zip(bounds[:-1], bounds[1:], starts, strict=True)
    ]


def checked(values: Values, name: str) -> str:
    """Return a text; raises UsageError if it is missing, blank or not Unicode."""
    text = values.get(name, "")
    check_unicode(text, name)
    if not text.strip():
        raise UsageError(f"{name} {text!r}: expected some text")
    return text


@dataclass(frozen=True)
class Asked:
    """A question and the windows of its context."""

    example: SquadExample
    features: list[InputFeatures]
    inputs: list[Input]
    shown: int


class AnswerFront:
    """Question and context → the answer, its place and the n best."""

    def __init__(self, settings: dict[str, Any], tokenizer: BertTokenizer) -> None:
        self._tokenizer = tokenizer
        self._windows = {name: settings[name] for name in ("max_seq_length", "doc_stride", "max_query_length")}
        names = ("max_answer_length", "version_2_with_negative", "null_score_diff_threshold")
        self._config = AnswerConfig(n_best_size=SEARCHED, **{name: settings[name] for name in names})

    def prepare(self, values: Values) -> Asked:
        context = checked(values, "context")
        example = example_from_text(checked(values, "question"), context)
        features = convert_examples_to_features([example], self._tokenizer, **self._windows, is_training=False)
        if not features:
            raise UsageError(NO_PIECES.format("context"))
        if features[0].segment_start < 3:  # [CLS] [SEP]
            raise UsageError(NO_PIECES.format("question"))
        shown = int(values.get("n_best", 1))
        if not 1 <= shown <= SEARCHED:
            raise UsageError(f"n_best {shown}: expected 1 to {SEARCHED}")
        return Asked(example, features, inputs_of(features_to_sequences(features)), shown)

    def reply(self, prepared: Asked, outputs: Sequence[Sequence[NDArray]]) -> Values:
        results = [
            RawResult(feature.unique_id, *logits) for feature, logits in zip(prepared.features, outputs, strict=True)
        ]
        lower = self._tokenizer.do_lower_case
        (found,) = find_answers([prepared.example], prepared.features, results, lower, self._config)
        best = found.chosen
        start, end = best.span or (-1, -1)
        nbest = json.dumps([_entry(candidate) for candidate in found.nbest[: prepared.shown]])
        return {"answer": best.text, "start": start, "end": end, "probability": best.probability, "nbest": nbest}


def _entry(candidate: Candidate) -> Values:
    start, end = candidate.span or (None, None)
    return {"text": candidate.text, "start": start, "end": end, "probability": candidate.probability}


@dataclass(frozen=True)
class Encoded:
    """One text or pair."""

    inputs: list[Input]


class _TextFront:
    """What classification and embedding share: a text, or a pair, in one input that is cut at its end."""

    def __init__(self, settings: dict[str, Any], tokenizer: BertTokenizer) -> None:
        self.settings, self._tokenizer = settings, tokenizer

    def prepare(self, values: Values) -> Encoded:
        names = ["text", *(["text_pair"] if values.get("text_pair") is not None else [])]
        encoded = self._tokenizer.encode_batch([checked(values, name) for name in names])
        for name, pieces in zip(names, encoded, strict=True):
            if not pieces:
                raise UsageError(NO_PIECES.format(name))
        pair = encoded[1:] or None
        return Encoded(inputs_of(encode_pairs(encoded[:1], pair, self.settings["max_seq_length"], self._tokenizer)))


def ranked(logits: NDArray, labels: Sequence[str]) -> Values:
    """Return the best label, its probability and all scores; without labels, a regression's value."""
    logits = logits.astype(np.float64).reshape(-1)
    weights = np.exp(logits - logits.max())
    named = zip((weights / weights.sum()).tolist(), labels or [f"{logits[0]:.4f}"], strict=True)
    scores = [{"label": label, "probability": share} for share, label in sorted(named, key=lambda each: -each[0])]
    return {**scores[0], "scores": json.dumps(scores)}


class ClassifyFront(_TextFront):
    """Text, or a pair, → the label and the probability of each; a regression's label is its value."""

    def reply(self, prepared: Encoded, outputs: Sequence[Sequence[NDArray]]) -> Values:
        del prepared
        return ranked(outputs[0][0], self.settings["labels"])


class MultiTaskFront(_TextFront):
    """A task's name and its text, or pair, → the label and the probability of each; without a name, the tasks."""

    def prepare(self, values: Values) -> Encoded:
        task = checked(values, "task") if values.get("task") is not None else ""
        values = {**values, "text_pair": values.get("text_pair") or None}
        return Encoded([one._replace(task=task) for one in super().prepare(values).inputs])

    def reply(self, prepared: Encoded, outputs: Sequence[Sequence[Any]]) -> Values:
        logits, facts = outputs[0]
        if not prepared.inputs[0].task:
            return {"label": "", "probability": 0.0, "scores": "[]", "tasks": facts.item().decode()}
        return {**ranked(logits, json.loads(facts.item())["labels"]), "tasks": ""}


class EmbedFront(_TextFront):
    """Text → a vector of unit length."""

    def reply(self, prepared: Encoded, outputs: Sequence[Sequence[NDArray]]) -> Values:
        del prepared
        return {"embedding": outputs[0][0].reshape(-1)}


FRONTS = {"qa": AnswerFront, "classify": ClassifyFront, "embed": EmbedFront, "multitask": MultiTaskFront}


def build_front(settings: dict[str, Any], tokenizer: BertTokenizer) -> Front:
    """Return the front of ``settings["task"]``."""
    return FRONTS[settings["task"]](settings, tokenizer)
