"""A fine-tuned model that answers one question about one text, and locates the answer in it.

::

    reader = Reader(config, WindowConfig(), ReaderConfig(), world)
    reply = reader.ask("What river runs through Paris?", "The Seine runs through Paris.")
    reply.answer.text                                   # "The Seine"; "" if the text holds no answer
    reply.context[slice(*reply.span)]                   # the same, at its place in the text

A text longer than a window is read in overlapping windows, whose answers compete.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bert.checkpoint.open_model import InferenceConfig, load_start
from bert.config import flag
from bert.distributed import World
from bert.errors import UsageError
from bert.finetune.predict import predict
from bert.model.bert import BertForQuestionAnswering
from bert.model.objective import QuestionAnsweringObjective
from bert.squad.answers import Answer, AnswerConfig
from bert.squad.examples import example_from_text
from bert.squad.features import check_lengths
from bert.squad.task import WindowConfig, answer, encode_questions

SEARCHED = 20  # best starts and ends to combine, however few answers are shown
BATCH_SIZE = 8  # windows


@dataclass
class ReaderConfig(AnswerConfig):
    """How an answer is chosen; the published scripts' defaults for a single question."""

    n_best_size: int = flag(1, f"Answers to show; their probabilities are among the {SEARCHED} best.", minimum=1)
    version_2_with_negative: bool = flag(
        False, "The text may hold no answer; the default for checkpoints trained on SQuAD 2.0."
    )
    null_score_diff_threshold: float = flag(
        -11.0, "Give no answer if its score exceeds the best text's by more than this."
    )


@dataclass(frozen=True)
class Reply:
    """The answer to a question, and where it is."""

    question: str
    context: str
    answer: Answer
    span: tuple[int, int] | None  # characters of the answer in ``context``; None if there is no answer

    def as_json(self) -> dict[str, Any]:
        """Return the plain values that ``--json`` prints."""
        values = {"question": self.question, "context": self.context, "answer": self.answer.text}
        odds = {} if self.answer.null_odds is None else {"null_odds": self.answer.null_odds}
        return {**values, **odds, "nbest": [candidate.as_json() for candidate in self.answer.nbest]}


class Reader:
    """A model fine-tuned on SQuAD. Raises UsageError if the checkpoint has no question-answering head."""

    def __init__(self, config: InferenceConfig, windows: WindowConfig, answers: ReaderConfig, world: World):
        check_lengths(**vars(windows))
        start = load_start(config.model, config.init_checkpoint, windows.max_seq_length)
        state = start.state or {}
        if not any("qa_outputs." in name for name in state.get("model", state)):
            raise UsageError(f"{start.what}: has no question-answering head (qa_outputs); run_squad.py trains one")
        model = BertForQuestionAnswering(start.model_config, config.model.attention)
        start.load_into(model, ("bert.pooler.*",))  # answers do not use the pooler
        version_2 = answers.version_2_with_negative or bool(state.get("version_2_with_negative"))
        self._objective = QuestionAnsweringObjective(model.to(world.device))
        self._tokenizer, self._windows, self._world = start.tokenizer, windows, world
        self._answers = replace(answers, version_2_with_negative=version_2)
        self._precision = config.number_format(world.device)

    def ask(self, question: str, context: str) -> Reply:
        """Answer ``question``; raises UsageError if it, or the context, is empty."""
        if not question.strip():
            raise UsageError(f"question {question!r}: expected some text")
        questions = encode_questions([example_from_text(question, context)], self._windows, self._tokenizer)
        if not questions.features:
            raise UsageError(f"context {context!r}: expected some text")
        outputs = predict(self._objective, questions.sequences, BATCH_SIZE, self._precision, self._world)
        shown = self._answers.n_best_size
        (found,) = answer(questions, outputs, replace(self._answers, n_best_size=max(shown, SEARCHED)))
        return Reply(question, context, replace(found, nbest=found.nbest[:shown]), found.chosen.span)
