"""SQuAD 1.1 and 2.0 files, or one question and its context → questions with their contexts as words.

A file is ``{"version": "1.1", "data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers":
[{"text", "answer_start"}], "is_impossible"}]}]}]}``; ``answer_start`` counts characters. Only blank, tab, line feed,
carriage return and narrow no-break space (U+202F) separate words. All questions of a paragraph share its words.
A training answer is the characters at ``answer_start``; aligned as the published scripts do, it is some words::

    examples = read_squad_examples("train-v2.0.json", is_training=True, version_2_with_negative=True)
    example = example_from_text("What river runs through Paris?", "The Seine runs through Paris.")
    example.doc_tokens                                  # ['The', 'Seine', 'runs', 'through', 'Paris.']
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from bert.config import load_json
from bert.errors import UsageError

WORD = re.compile("[^ \t\r\n\u202f]+")
OFFSETS, PUBLISHED = ALIGNMENTS = ("offsets", "published")
KINDS = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


@dataclass(slots=True)
class SquadExample:
    """A question about a context; only training knows the answer."""

    qas_id: str
    question_text: str
    doc_tokens: list[str]  # the context's words
    orig_answer_text: str | None = None  # "" if there is no answer
    start_position: int | None = None  # the answer's first word, -1 if there is no answer
    end_position: int | None = None  # its last word, -1 if there is no answer
    is_impossible: bool = False
    answer_span: tuple[int, int] | None = None  # the answer's characters in the context; None: aligned as published
    words: Words | None = field(default=None, repr=False, compare=False)  # None: ``doc_tokens`` joined by blanks


@dataclass(frozen=True)
class Paragraph:
    """A context and its questions as in the file, each with its path in the JSON for messages."""

    context: str
    questions: list[tuple[str, dict[str, Any]]]  # only "id" and "question" are checked


def read_squad_examples(
    input_file: str | Path, is_training: bool, version_2_with_negative: bool, answer_alignment: str = OFFSETS
) -> list[SquadExample]:
    """Read the questions of a SQuAD file in order; only training of version 2 looks at ``is_impossible``.

    Training needs exactly one answer per question. It skips, with a warning on stderr, questions whose answer is not
    where the file says; ``answer_alignment`` "published" also skips those that hold blanks of other kinds. Raises
    UsageError for a file of another structure, or if no question is left.
    """
    exact = by_offsets(answer_alignment)
    examples, outside = [], []
    for paragraph in paragraphs(load_dataset(input_file), str(input_file)):
        words = Words.of(paragraph.context)
        for where, question in paragraph.questions:
            example = SquadExample(question["id"], question["question"], words.texts, words=words)
            if is_training and not _find_answer(example, words, question, where, version_2_with_negative, exact):
                outside.append(f"{example.qas_id!r}, answer {example.orig_answer_text!r}")
            else:
                examples.append(example)
    if outside:
        text = f"{len(outside)} answers are not where the file says (first: {outside[0]})"
        if not examples:
            raise UsageError(f"{input_file}: {text}, and no question is left")
        print(f"warning: {input_file}: {text}; skipping their questions", file=sys.stderr)
    return examples


def example_from_text(question: str, context: str, qas_id: str = "0") -> SquadExample:
    """Return a question to answer; raises UsageError for text that is not Unicode."""
    check_unicode(question, "question")
    check_unicode(context, "context")
    words = Words.of(context)
    return SquadExample(qas_id, question, words.texts, words=words)


def by_offsets(answer_alignment: str) -> bool:
    """Return whether answers are aligned by offsets; raises UsageError for an unknown name."""
    if answer_alignment not in ALIGNMENTS:
        raise UsageError(f"--answer_alignment {answer_alignment}: expected {' or '.join(ALIGNMENTS)}")
    return answer_alignment == OFFSETS


@dataclass(frozen=True)
class Words:
    """A text's words and the character at which each begins."""

    text: str
    texts: list[str]
    starts: array[int]

    @classmethod
    def of(cls, text: str) -> Words:
        """Cut ``text`` into words."""
        found = [(match[0], match.start()) for match in WORD.finditer(text)]
        return cls(text, [word for word, _ in found], array("i", [start for _, start in found]))

    @classmethod
    def joined(cls, texts: list[str]) -> Words:
        """Join ``texts`` by blanks."""
        return cls(" ".join(texts), texts, array("i", [0, *accumulate(len(word) + 1 for word in texts)][:-1]))

    def at(self, character: int) -> int:
        """Return the word that contains ``character``, else the one before it, else the first."""
        return max(bisect_right(self.starts, character) - 1, 0)

    def place_of(self, answer: str, start: int) -> tuple[int, int] | None:
        """Return the characters (first, last + 1) of ``answer``, which is not blank.

        If it does not begin at ``start``, that is its nearest place within the words there, or None. Any run of blanks
        equals any other.
        """
        end = start + len(answer)
        if self.text[start:end] == answer:
            return start, end
        first, last = self.at(start), self.at(end - 1)
        pattern = re.compile(r"\s+".join(map(re.escape, answer.split())))
        found = pattern.finditer(self.text, self.starts[first], self.starts[last] + len(self.texts[last]))
        wanted = start + len(answer) - len(answer.lstrip())
        return min((each.span() for each in found), key=lambda span: abs(span[0] - wanted), default=None)


def load_dataset(input_file: str | Path) -> dict[str, Any]:
    """Read the JSON object of a SQuAD file; raises UsageError."""
    path = Path(input_file)
    if path.is_file() and path.stat().st_size == 0:
        raise UsageError(f"SQuAD file {path}: the file is empty")
    return load_json(path, "SQuAD file")


def paragraphs(dataset: dict[str, Any], source: str) -> Iterator[Paragraph]:
    """Yield the paragraphs; raises UsageError for a missing or mistyped field, a repeated id, or no question at all."""
    places: dict[str, str] = {}
    for i, article in enumerate(member(dataset, "data", list, source)):
        for j, paragraph in enumerate(member(article, "paragraphs", list, f"{source}: data[{i}]")):
            above = f"{source}: data[{i}].paragraphs[{j}]"
            context = member(paragraph, "context", str, above)
            questions = []
            for k, question in enumerate(member(paragraph, "qas", list, above)):
                where = f"{above}.qas[{k}]"
                member(question, "question", str, where)
                qas_id = member(question, "id", str, where)
                if qas_id in places:
                    raise UsageError(f"{where}: id {qas_id!r} repeats that of {places[qas_id].rpartition(': ')[2]}")
                places[qas_id] = where
                questions.append((where, question))
            yield Paragraph(context, questions)
    if not places:
        raise UsageError(f"{source}: has no questions")


def member(parent: Any, key: str, kind: type, where: str) -> Any:
    """Return ``parent[key]``; raises UsageError, beginning with ``where``, if it is missing or not of ``kind``."""
    if not isinstance(parent, dict):
        raise UsageError(f"{where}: expected an object with {key!r}, found {type(parent).__name__}")
    if key not in parent:
        raise UsageError(f"{where}: {key!r} is missing; is this a SQuAD file?")
    value = parent[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where}: {key!r} should be {KINDS[kind]}, found {type(value).__name__}")
    if isinstance(value, str):
        check_unicode(value, f"{where}: {key!r}")
    return value


def check_unicode(text: str, where: str) -> None:
    """Raise UsageError for a lone surrogate, which JSON can contain and which undecodable bytes of flags become."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} is not Unicode text (lone surrogate at character {error.start})") from error


def _find_answer(example: SquadExample, words: Words, question: dict, where: str, version_2: bool, exact: bool) -> bool:
    """Fill in the answer of a training question, ``exact`` by offsets; return whether it is where the file says."""
    if version_2 and member(question, "is_impossible", bool, where):
        example.orig_answer_text, example.is_impossible = "", True
        example.start_position = example.end_position = -1
        return True
    answers = member(question, "answers", list, where)
    if len(answers) != 1:
        hint = "" if version_2 or not question.get("is_impossible") else " (SQuAD 2.0 needs --version_2_with_negative)"
        raise UsageError(f"{where}: {len(answers)} answers, expected exactly one in training{hint}")
    example.orig_answer_text = text = member(answers[0], "text", str, f"{where}.answers[0]")
    first = member(answers[0], "answer_start", int, f"{where}.answers[0]")
    last = first + len(text) - 1
    if not (text.strip() and first >= 0 and last < len(words.text)):
        return False
    example.start_position, example.end_position = words.at(first), words.at(last)
    if exact:
        example.answer_span = words.place_of(text, first)
        return example.answer_span is not None
    found = words.texts[example.start_position : example.end_position + 1]
    return " ".join(text.split()) in " ".join(found)
