"""Questions and answers at a terminal or through a pipe.

First comes a context: lines up to an empty one, or ``@FILE``. Then come questions, one per line, until an empty line
starts the next context. Ctrl-D, or the end of the pipe, ends the conversation. Only a terminal gets prompts::

    converse(reader.ask, show=lambda reply: print(render(reply, color=False)))
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from bert.errors import UsageError
from bert.files import decode
from bert.prepare.text.sentences import split_sentences
from bert.squad.reader import Reply

NO_ANSWER = "(no answer)"
BOLD, PLAIN = "\x1b[1;32m", "\x1b[0m"


def converse(ask: Callable[[str, str], Reply], show: Callable[[Reply], None]) -> None:
    """Read contexts and questions from stdin and show the answers until stdin ends; bad input prints one line."""
    if sys.stdin.isatty():
        with suppress(ImportError):  # not available on every system
            import readline  # noqa: F401  # adds line editing and history to input()
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
    """Return the next context, or "" if its file cannot be read; raises EOFError at the end."""
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
        text = decode(Path(path).expanduser().read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}", file=sys.stderr)
        return ""
    if not text.strip():
        print(f"error: {path}: expected some text", file=sys.stderr)
        return ""
    return text


def _line(prompt: str) -> str:
    """Return a line of stdin; raises EOFError at the end and UsageError for bytes that are not text."""
    try:
        return input(prompt if sys.stdin.isatty() else "").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin: not {error.encoding} text ({error.reason})") from error


def render(reply: Reply, color: bool) -> str:
    """Return the sentence of the answer, then a line for each of the n best with its probability."""
    nbest = [f"  {each.probability:6.1%}  {on_one_line(each.text) or NO_ANSWER}" for each in reply.answer.nbest]
    return "\n".join([highlighted(reply, color), *nbest, ""])


def highlighted(reply: Reply, color: bool) -> str:
    """Return the sentence of the answer, on one line, with the answer marked by colour or brackets."""
    if reply.span is None:
        return reply.answer.text or NO_ANSWER
    start, end = reply.span
    first, last = sentence_around(reply.context, start, end)
    opening, closing = (BOLD, PLAIN) if color else ("[", "]")
    context = reply.context
    return on_one_line(f"{context[first:start]}{opening}{context[start:end]}{closing}{context[end:last]}")


def on_one_line(text: str) -> str:
    """Replace each run of white space by a blank."""
    return " ".join(text.split())


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the characters (first, last) of the sentence or sentences that contain ``text[start:end]``."""
    first = last = 0
    for sentence in split_sentences(text):
        # The splitter makes any white space one blank.
        found = re.compile(r"\s+".join(map(re.escape, sentence.split()))).search(text, last)
        if found is None:
            break
        first, last = found.start() if found.start() <= start else first, found.end()
        if end <= last:
            return first, last
    return 0, len(text)


def wants_color(stream: TextIO) -> bool:
    """Return whether to use colours: at a terminal that has them, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
