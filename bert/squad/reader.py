"""One question about one text, answered by a fine-tuned model, and where in the text the answer stands.

::

    reader = load_reader(config, WindowConfig(), ReaderConfig(), world)
    reply = reader.ask("What river runs through Paris?", "The Seine runs through Paris.")
    reply.answer.text                                   # "The Seine"; "" where the text holds no answer
    reply.context[slice(*reply.span)]                   # the same, in its place

A text longer than a window is read in overlapping windows, which compete.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bert.checkpoint.open_model import InferenceConfig, StartingPoint, load_start
from bert.config import flag
from bert.distributed import World
from bert.errors import UsageError
from bert.finetune.predict import Outputs, predict
from bert.model.bert import BertForQuestionAnswering
from bert.model.objective import QuestionAnsweringObjective
from bert.squad.answers import Answer, AnswerConfig, Candidate
from bert.squad.features import check_lengths, example_from_text
from bert.squad.task import Questions, WindowConfig, answer, encode_questions
from bert.train.precision import Precision

SEARCHED = 20  # best starts and ends that are combined, however few answers are shown
BATCH_SIZE = 8  # windows


@dataclass
class ReaderConfig(AnswerConfig):
    """How an answer is chosen; the published defaults of a single question."""

    n_best_size: int = flag(1, "Answers to show; their probabilities are among the 20 best.", minimum=1)
    version_2_with_negative: bool = flag(
        False, "The text need not hold an answer; by itself where the checkpoint was trained on SQuAD 2.0."
    )
    null_score_diff_threshold: float = flag(
        -11.0, "No answer where its score exceeds the best text's by more than this."
    )


@dataclass(frozen=True)
class Reply:
    """What was found."""

    question: str
    context: str  # its words, joined by blanks
    answer: Answer
    span: tuple[int, int] | None  # characters of the answer in ``context``; None where there is no answer

    def as_json(self) -> dict[str, Any]:
        """Return the plain values of ``--json``."""
        values = {"question": self.question, "context": self.context, "answer": self.answer.text}
        odds = {} if self.answer.null_odds is None else {"null_odds": self.answer.null_odds}
        return {**values, **odds, "nbest": [candidate._asdict() for candidate in self.answer.nbest]}


@dataclass(frozen=True)
class Reader:
    """A model that answers, with all that it needs."""

    objective: QuestionAnsweringObjective
    start: StartingPoint
    windows: WindowConfig
    answers: ReaderConfig
    precision: Precision
    world: World

    def ask(self, question: str, context: str) -> Reply:
        """Answer ``question``; raises UsageError where it, or the context, is empty."""
        if not question.strip():
            raise UsageError(f"question {question!r}: expected some text")
        questions = encode_questions([example_from_text(question, context)], self.windows, self.start.tokenizer)
        if not questions.features:
            raise UsageError(f"context {context!r}: expected some text")
        outputs = predict(self.objective, questions.sequences, BATCH_SIZE, self.precision, self.world)
        shown = self.answers.n_best_size
        wide = replace(self.answers, n_best_size=max(shown, SEARCHED))
        (found,) = answer(questions, outputs, wide)
        span = locate(found, questions, outputs) if found.text else None
        return Reply(
            question, " ".join(questions.examples[0].doc_tokens), replace(found, nbest=found.nbest[:shown]), span
        )


def load_reader(config: InferenceConfig, windows: WindowConfig, answers: ReaderConfig, world: World) -> Reader:
    """Load a model that was fine-tuned on SQuAD. Raises UsageError where it has no head for answers."""
    check_lengths(**vars(windows))
    start = load_start(config.model, config.init_checkpoint, windows.max_seq_length)
    state = start.state or {}
    if not any("qa_outputs." in name for name in state.get("model", state)):
        raise UsageError(f"{start.what}: no qa_outputs, the head that answers, in it; run_squad.py trains one")
    model = BertForQuestionAnswering(start.model_config, config.model.attention)
    start.load_into(model, ("bert.pooler.*",))  # answers do not use the pooler
    version_2 = answers.version_2_with_negative or bool(state.get("version_2_with_negative"))
    return Reader(
        QuestionAnsweringObjective(model.to(world.device)),
        start,
        windows,
        replace(answers, version_2_with_negative=version_2),
        config.number_format(world.device),
        world,
    )


def locate(found: Answer, questions: Questions, outputs: Outputs) -> tuple[int, int] | None:
    """Return the characters (start, end) of ``found.text`` in the context's words joined by blanks.

    A text may stand in several places: the answer is where its start logit is.
    """
    candidate = next((each for each in found.nbest if each.text == found.text), None)
    if candidate is None:
        return None
    words, text = questions.examples[0].doc_tokens, " ".join(questions.examples[0].doc_tokens)
    for word in _first_words(candidate, questions, outputs):
        begin = len(" ".join([*words[:word], ""]))
        place = text.find(candidate.text, begin, begin + len(words[word]) + len(candidate.text))
        if place >= 0:
            return place, place + len(candidate.text)
    return None


def _first_words(candidate: Candidate, questions: Questions, outputs: Outputs) -> list[int]:
    """Return the words of the context at which an answer with the candidate's start logit may begin."""
    bounds, found = questions.sequences.offsets, []
    for number, feature in enumerate(questions.features):
        logits = outputs.values[bounds[number] : bounds[number + 1], 0]
        places = np.flatnonzero(logits == np.float32(candidate.start_logit)).tolist()
        words, best = feature.token_to_orig_map, feature.token_is_max_context
        found += [words[place] for place in places if best.get(place)]
    return found
