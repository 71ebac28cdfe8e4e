"""Where files are cut, and how the pieces make blocks of one size.

A cut near byte x depends on the file, x and the block size alone: it is the first beginning of a document from x on,
or, where a document is longer than a block, the first place in it that hurts little. Only windows around the cuts are
read. Small pieces share a block, in their order. No block is larger than about twice the block size, but for a single
document of a kind that cannot be cut (a line of JSON, an article)::

    for start, stop, whole in cut(Rule(LINE), Path("a.jsonl"), block_size=4 << 20): ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

LOOK_BACK = 4096  # bytes before x that decide whether a document begins at x: a line of blanks, rarely this long
WINDOW = 1 << 16  # bytes of the first look; each next one is WIDEN times as far
WIDEN = 4


@dataclass(frozen=True)
class Span:
    """A part of a file: bytes, or rows of a Parquet file, from ``start`` up to ``stop``."""

    reader: str  # row of bert.prepare.text.readers.READERS
    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """What one worker reads at a time.

    ``origin`` is ``index``, or, where the block goes on with a document and holds nothing else, the index of the block
    in which that document begins.
    """

    index: int
    spans: tuple[Span, ...]
    origin: int

    @property
    def continues(self) -> bool:
        """Whether the block begins within a document."""
        return self.origin != self.index


class Piece(NamedTuple):
    """A span, its size in bytes of text, and whether it begins with the beginning of a document."""

    span: Span
    size: int
    whole: bool


@dataclass(frozen=True)
class Rule:
    """Where a text file may be cut: at the end of a pattern's first group.

    Documents begin at ``document``; None: the file is one. Within a document that is longer than a block the patterns
    of ``inside`` are tried in turn; where there are none, a document is never cut.
    """

    document: re.Pattern[bytes] | None
    inside: tuple[re.Pattern[bytes], ...] = ()

    def find(self, file: BinaryIO, x: int, reach: int, size: int) -> tuple[int, bool]:
        """Return the cut for byte ``x`` of a file of ``size`` bytes and whether a document begins there.

        A cut less than ``reach`` bytes after ``x`` is preferred to one further away.
        """
        near = min(x + reach - 1, size)
        if self.document:
            found = _first(file, self.document, x, near if self.inside else size)
            if found is not None or not self.inside:
                return size if found is None else found, True
        for pattern in self.inside:
            found = _first(file, pattern, x, size if pattern is CHARACTER else near)
            if found is not None:
                return found, False
        return size, False


LINE = re.compile(rb"(\n)")
BLANK_LINE = re.compile(rb"\n(?=([ \t\r\f\v]*\n))")
BLANK = re.compile(rb"([ \t])")
BLANK_PAST_FIRST_WORD = re.compile(rb"(?:\A|\n)[ \t\r]*+\S++[ \t]+|([ \t])")  # without a group, its end is -1
CHARACTER = re.compile(rb"()[^\x80-\xbf]")
PAGE = re.compile(rb"()<page>")


def cut(rule: Rule, path: Path, block_size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, whole) of the pieces of a text file, each of about ``block_size`` bytes."""
    size = path.stat().st_size
    if size <= block_size:
        yield 0, size, True
        return
    with path.open("rb") as file:
        yield from cut_at(lambda x: rule.find(file, x, block_size, size), block_size, size)


def cut_at(find: Callable[[int], tuple[int, bool]], step: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, whole) between the cuts that ``find`` names for every ``step`` up to ``size``.

    Where two cuts fall together a piece between them is empty.
    """
    start, whole = 0, True
    for x in range(step, size, step):
        if x <= start and whole:
            continue  # the last cut is the one for this x, too
        stop, next_whole = find(x)
        if stop >= size:
            break
        yield start, stop, whole
        start, whole = stop, next_whole
    if start < size:
        yield start, size, whole


def pack(pieces: Iterable[Piece], block_size: int) -> list[Block]:
    """Put the pieces into blocks, in their order.

    A piece joins the block before it if at least half of it has room there, so the blocks have about ``block_size`` on
    average. Where a document goes on, it does so in a block of its own. Empty pieces are left out.
    """
    packed: list[tuple[list[Span], int]] = []  # spans and origin of each block
    room = 0
    for piece in pieces:
        if not piece.size:
            continue
        alone = not piece.whole or not packed or packed[-1][1] != len(packed) - 1
        if alone or piece.size > 2 * room:
            origin = len(packed) if piece.whole else packed[-1][1]
            packed.append(([], origin))
            room = block_size
        _append(packed[-1][0], piece.span)
        room -= piece.size
    return [Block(index, tuple(spans), origin) for index, (spans, origin) in enumerate(packed)]


def _append(spans: list[Span], span: Span) -> None:
    """Append ``span``, or extend the last span by it where it is the next part of the same file."""
    last = spans[-1] if spans else None
    if last and (last.reader, last.path, last.stop) == (span.reader, span.path, span.start):
        spans[-1] = Span(span.reader, span.path, last.start, span.stop)
    else:
        spans.append(span)


def _first(file: BinaryIO, pattern: re.Pattern[bytes], x: int, last: int) -> int | None:
    """Return the first place from byte ``x`` to ``last`` where ``pattern`` ends its group."""
    start = max(0, x - LOOK_BACK)
    reach = WINDOW
    while True:
        stop = min(x + reach, last)
        file.seek(start)
        data = file.read(stop - start)
        for match in pattern.finditer(data):
            if start + match.end(1) >= x:
                return start + match.end(1)
        if stop >= last:
            return None
        reach *= WIDEN
