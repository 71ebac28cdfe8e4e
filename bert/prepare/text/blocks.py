"""Where files are cut, and how the parts make blocks of one size.

A cut near byte x depends on the file, x and the block size alone: it is the first beginning of a document from x on
or, where a document is longer than a block, the first place in it where a cut does little harm. Only windows around
the cuts are read. Small parts share a block, in their order. No block is larger than about twice the block size, except
for a single document of a kind that is never cut (a line of JSON, an article)::

    for start, stop, size, whole in cut_file(Rule(LINE), Path("a.jsonl"), block_size=4 << 20): ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

LOOK_BACK = 4096  # bytes before x that decide whether a document begins at x: a line of blanks, rarely this long
WINDOW = 1 << 16  # bytes of the first look; each further look reaches WIDEN times as far
WIDEN = 4

Cut = tuple[int, int, int, bool]  # start, stop, size and whole of a FileSpan


class FileSpan(NamedTuple):
    """A part of a file: bytes, or rows of a Parquet file, from ``start`` up to ``stop``."""

    kind: str  # row of bert.prepare.text.readers.SOURCE_KINDS
    path: str
    start: int
    stop: int
    size: int  # bytes of text, about
    whole: bool  # whether a document begins at ``start``


@dataclass(frozen=True)
class Block:
    """What one worker reads at a time.

    ``origin`` is ``index`` or, if the block continues a document and holds nothing else, the index of the block in
    which that document begins.
    """

    index: int
    spans: tuple[FileSpan, ...]
    origin: int


@dataclass(frozen=True)
class Rule:
    """Where a text file may be cut: at the end of a pattern's first group.

    ``document`` matches where a document begins; None: the file is one document. Within a document that is longer than
    a block, the patterns of ``inside`` are tried in turn; if there are none, a document is never cut.
    """

    document: re.Pattern[bytes] | None
    inside: tuple[re.Pattern[bytes], ...] = ()

    def find(self, file: BinaryIO, x: int, reach: int, size: int) -> tuple[int, bool]:
        """Return the cut for byte ``x`` of a file of ``size`` bytes and whether a document begins there.

        A cut less than ``reach`` bytes after ``x`` is preferred to one further away.
        """
        patterns = [pattern for pattern in (self.document, *self.inside) if pattern]
        for pattern in patterns:
            last = size if pattern is patterns[-1] else min(x + reach - 1, size)
            found = _first(file, pattern, x, last)
            if found is not None:
                return found, pattern is self.document
        return size, True


LINE = re.compile(rb"(\n)")
BLANK_LINE = re.compile(rb"\n(?=([ \t\r\f\v]*\n))")
BLANK = re.compile(rb"([ \t])")
# An identifier at the beginning of a line matches without the group, whose end is then -1.
BLANK_PAST_FIRST_WORD = re.compile(rb"(?:\A|\n)[ \t\r]*+\S++[ \t]+|([ \t])")
CHARACTER = re.compile(rb"()[^\x80-\xbf]")
PAGE = re.compile(rb"()<page>")


def cut_file(rule: Rule, path: Path, block_size: int) -> Iterator[Cut]:
    """Cut a text file into parts of about ``block_size`` bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        yield from cut_at(lambda x: rule.find(file, x, block_size, size), block_size, size)


def cut_at(find: Callable[[int], tuple[int, bool]], step: int, size: int) -> Iterator[Cut]:
    """Yield the parts between the cuts that ``find`` returns for every ``step`` up to ``size``.

    Where two cuts coincide, the part between them is empty.
    """
    start, whole = 0, True
    for x in range(step, size, step):
        if x <= start and whole:
            continue  # the last cut is also the one for this x
        stop, next_whole = find(x)
        if stop >= size:
            break
        yield start, stop, stop - start, whole
        start, whole = stop, next_whole
    if start < size:
        yield start, size, size - start, whole


def pack(spans: Iterable[FileSpan], block_size: int) -> list[Block]:
    """Put the spans into blocks, in their order.

    A span joins the block before it if at least half of it has room there, so the blocks have about ``block_size`` on
    average. The rest of a document that was cut gets a block of its own. Empty spans are left out.
    """
    packed: list[tuple[list[FileSpan], int]] = []  # spans and origin of each block
    room = 0
    for span in spans:
        if not span.size:
            continue
        alone = not span.whole or not packed or packed[-1][1] != len(packed) - 1
        if alone or span.size > 2 * room:
            origin = len(packed) if span.whole else packed[-1][1]
            packed.append(([], origin))
            room = block_size
        block = packed[-1][0]
        last = block[-1] if block else None
        if last and (last.kind, last.path, last.stop) == (span.kind, span.path, span.start):  # the next part of a file
            block[-1] = last._replace(stop=span.stop, size=last.size + span.size)
        else:
            block.append(span)
        room -= span.size
    return [Block(index, tuple(spans), origin) for index, (spans, origin) in enumerate(packed)]


def _first(file: BinaryIO, pattern: re.Pattern[bytes], x: int, last: int) -> int | None:
    """Return the first end of the group of ``pattern`` from byte ``x`` to ``last``."""
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
