"""Questions and answers at a terminal, or through a pipe.

A context comes first: lines up to an empty one, or ``@FILE``; then questions, a line each, until an empty line asks for
the next context. Ctrl-D, or the end of the pipe, ends it all. Prompts are shown at a terminal only::

    converse(reader.ask, show=lambda reply: print(render(reply, color=False)))
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from bert.errors import UsageError
from bert.prepare.text.sentences import split_sentences
from bert.squad.answers import Candidate
from bert.squad.reader import Reply

NO_ANSWER = "(no answer)"
BOLD, PLAIN = "\x1b[1;32m", "\x1b[0m"

Ask = Callable[[str, str], Reply]


def converse(ask: Ask, show: Callable[[Reply], None]) -> None:
    """Read contexts and questions from stdin and show the answers, until stdin ends; bad input costs a line."""
    if sys.stdin.isatty():
        with suppress(ImportError):  # not on every system
            import readline  # noqa: F401  # gives input() its line editing and history
    try:
        while True:
            context = _read_context()
            while context and (question := _line("Question (empty: another text): ").strip()):
                try:
                    show(ask(question, context))
                except UsageError as error:
                    print(f"error: {error}", file=sys.stderr)
    except EOFError:
        if sys.stdin.isatty():
            print()


def _read_context() -> str:
    """Return the next context, "" where a file could not be read; raises EOFError at the end."""
    lines: list[str] = []
    prompt = "Text, then an empty line, or @FILE: "
    while (line := _line(prompt)).strip() or not lines:
        if not lines and line.startswith("@"):
            return _read_file(line[1:].strip())
        lines += [line] if line.strip() else []
        prompt = ""
    return "\n".join(lines)


def _read_file(path: str) -> str:
    try:
        text = Path(path).expanduser().read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}", file=sys.stderr)
        return ""
    if not text.strip():
        print(f"error: {path}: expected some text", file=sys.stderr)
        return ""
    return text


def _line(prompt: str) -> str:
    """Return a line; raises EOFError, and UsageError where it is not text."""
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin: not {error.encoding} text ({error.reason})") from error


def render(reply: Reply, color: bool) -> str:
    """Return the answer in its sentence, in colour or in brackets, and below it the rivals with their probabilities."""
    return "\n".join([highlighted(reply, color), *map(_ranked, reply.answer.nbest), ""])


def highlighted(reply: Reply, color: bool) -> str:
    """Return the sentence around the answer with the answer marked."""
    if reply.span is None:
        return reply.answer.text or NO_ANSWER
    start, end = reply.span
    first, last = sentence_around(reply.context, start, end)
    opening, closing = (BOLD, PLAIN) if color else ("[", "]")
    before, after = reply.context[first:start], reply.context[end:last]
    return f"{before}{opening}{reply.answer.text}{closing}{after}"


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the characters of the sentence, or the sentences, that hold ``text[start:end]``."""
    for first, last in _joined(_bounds(text), start):
        if end <= last:
            return first, last
    return 0, len(text)


def _joined(bounds: Iterator[tuple[int, int]], start: int) -> Iterator[tuple[int, int]]:
    """Yield the sentences up to each end, from the last one that begins before or at ``start``."""
    begin = 0
    for first, last in bounds:
        begin = first if first <= start else begin
        yield begin, last


def _bounds(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each sentence stands; ends early where one was changed by the splitter."""
    cursor = 0
    for sentence in split_sentences(text):
        first = text.find(sentence, cursor)
        if first < 0:
            return
        cursor = first + len(sentence)
        yield first, cursor


def _ranked(candidate: Candidate) -> str:
    return f"  {candidate.probability:6.1%}  {candidate.text or NO_ANSWER}"


def wants_color(stream: TextIO) -> bool:
    """Tell whether colours are welcome: at a terminal, unless NO_COLOR is set (no-color.org) or it has none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
