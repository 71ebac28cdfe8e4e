"""Kinds of sources: how each is measured, cut and read.

A row of ``READERS`` gives documents as texts, in which a blank line ends a paragraph; some of them are empty. What
separates documents when a file is read is what its :class:`~bert.prepare.text.blocks.Rule` cuts at::

    reader = READERS["blank"]
    for piece in reader.pieces("blank", path, block_size=4 << 20, key="text"):
        documents = list(reader.read(piece.span, not piece.whole, "text"))
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from bert.errors import UsageError
from bert.prepare.text.blocks import (
    BLANK,
    BLANK_LINE,
    BLANK_PAST_FIRST_WORD,
    CHARACTER,
    LINE,
    PAGE,
    Piece,
    Rule,
    Span,
    cut,
    cut_at,
)
from bert.prepare.text.wikidump import next_stream, read_articles

Cuts = Iterable[tuple[int, int, int, bool]]  # start, stop, bytes of text, whether a document begins at start

BETWEEN_DOCUMENTS = re.compile(r"\n(?:[ \t\r\f\v]*\n)+")  # as BLANK_LINE
ROWS = 256  # of a Parquet file, decoded at a time: few enough for long texts
READ_BYTES = 1 << 20
SHORTER = "has become shorter since the work began"


@dataclass(frozen=True)
class Reader:
    """One kind of source. ``key`` is the name of the text in a JSON object or a table."""

    cuts: Callable[[Path, int, str], Cuts]  # (path, block size, key); raises UsageError where the file is of no use
    read: Callable[[Span, bool, str], Iterable[str]]  # (span, whether it begins within a document, key)
    measure: Callable[[Path, str], int] = lambda path, key: path.stat().st_size  # bytes of text, about
    segmented: bool = False  # its lines are sentences

    def pieces(self, name: str, path: Path, block_size: int, key: str) -> Iterator[Piece]:
        """Cut a file; ``name`` is that of this row."""
        for start, stop, size, whole in self.cuts(path, block_size, key):
            yield Piece(Span(name, str(path.absolute()), start, stop), size, whole)


def _by(rule: Rule) -> Callable[[Path, int, str], Cuts]:
    def cuts(path: Path, block_size: int, key: str) -> Cuts:
        return ((start, stop, stop - start, whole) for start, stop, whole in cut(rule, path, block_size))

    return cuts


def _decode(span: Span) -> str:
    """Return the text of a span without a byte-order mark."""
    with open(span.path, "rb") as file:
        file.seek(span.start)
        data = file.read(span.stop - span.start)
    if len(data) < span.stop - span.start:
        raise UsageError(f"{span.path}: {SHORTER}")
    try:
        text = data.decode("utf8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{span.path}: not UTF-8 text (byte {span.start + error.start})") from error
    return text.removeprefix("\ufeff") if span.start == 0 else text


def _read_blank(span: Span, continues: bool, key: str) -> Iterable[str]:
    return BETWEEN_DOCUMENTS.split(_decode(span))


def _read_lines(span: Span, continues: bool, key: str) -> Iterable[str]:
    return _decode(span).split("\n")


def _read_whole(span: Span, continues: bool, key: str) -> Iterable[str]:
    return [_decode(span)]


def _read_numbered(span: Span, continues: bool, key: str) -> Iterator[str]:
    """Read LDDL's lines: an identifier, a blank, and the text of a document."""
    for number, line in enumerate(_decode(span).split("\n")):
        if number == 0 and continues:
            yield line
        else:
            yield from line.split(maxsplit=1)[1:]


def _read_json(span: Span, continues: bool, key: str) -> Iterator[str]:
    lines = _decode(span).split("\n")
    for number, line in enumerate(lines):
        if not line or line.isspace():
            continue
        try:
            text = _json_text(line, key)
        except (ValueError, RecursionError) as error:
            place = span.stop - len("\n".join(lines[number:]).encode())
            reason = getattr(error, "msg", error)  # without the place in the line
            what = reason if isinstance(error, UsageError) else f"not JSON, expected one object a line ({reason})"
            raise UsageError(f"{span.path}: line at byte {place}: {what}") from error
        yield text


def _json_text(line: str, key: str) -> str:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise UsageError(f"expected a JSON object, found {type(value).__name__}")
    if key not in value:
        raise UsageError(f"no --text_key {key} among {', '.join(value) or 'no keys'}")
    text = value[key]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UsageError(f"--text_key {key}: expected a text, found {type(text).__name__}")
    return text


def _table(path: Path, key: str) -> Any:
    """Open a Parquet file; raises UsageError where it is none or has no column of text ``key``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # A buffer lets a group of rows be read bit by bit.
        file = pq.ParquetFile(path, buffer_size=READ_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: not a Parquet file ({_line(error)})") from error
    schema = file.schema_arrow
    if key not in schema.names:
        raise UsageError(f"{path}: no column --text_key {key} among {', '.join(schema.names)}")
    kind = schema.field(key).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise UsageError(f"{path}: --text_key {key}: expected a column of text, found {kind}")
    return file


def _groups(file: Any, key: str) -> list[tuple[int, int]]:
    """Return (rows, bytes of text) of the groups of rows."""
    metadata, column = file.metadata, [field.path for field in file.schema].index(key)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [(group.num_rows, group.column(column).total_uncompressed_size) for group in groups if group.num_rows]


def _measure_table(path: Path, key: str) -> int:
    with _table(path, key) as file:
        return sum(size for _, size in _groups(file, key))


def _cut_table(path: Path, block_size: int, key: str) -> Cuts:
    """Cut at groups of rows; those larger than a block, into equal numbers of rows."""
    with _table(path, key) as file:
        groups = _groups(file, key)
    start = 0
    for rows, size in groups:
        parts = max(1, min(rows, -(-size // block_size)))
        for low, high in pairwise(range(parts + 1)):
            yield start + rows * low // parts, start + rows * high // parts, size // parts, True
        start += rows


def _read_table(span: Span, continues: bool, key: str) -> Iterator[str]:
    import pyarrow as pa

    with _table(Path(span.path), key) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        starts = [0, *accumulate(sizes)]
        if starts[-1] < span.stop:
            raise UsageError(f"{span.path}: {SHORTER}")
        groups = [g for g, (low, high) in enumerate(pairwise(starts)) if low < span.stop and high > span.start]
        row = starts[groups[0]]
        try:
            for batch in file.iter_batches(ROWS, groups, [key], use_threads=False):
                if row >= span.stop:
                    break
                low, high = max(span.start - row, 0), min(span.stop - row, len(batch))
                row += len(batch)
                if low < high:
                    yield from (text or "" for text in batch.column(0)[low:high].to_pylist())
        except UnicodeDecodeError as error:
            raise UsageError(f"{span.path}: not UTF-8 text (before row {row})") from error
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{span.path}: damaged Parquet file ({_line(error)})") from error


def _cut_streams(path: Path, block_size: int, key: str) -> Cuts:
    size = path.stat().st_size  # packed, which is about that of the text without markup
    found = cut_at(lambda x: (next_stream(path, x), True), block_size, size)
    return ((start, stop, stop - start, whole) for start, stop, whole in found)


def _read_dump(span: Span, continues: bool, key: str) -> Iterator[str]:
    return read_articles(Path(span.path), span.start, span.stop)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


READERS = {
    "blank": Reader(_by(Rule(BLANK_LINE, (LINE, BLANK, CHARACTER))), _read_blank),
    "line": Reader(_by(Rule(LINE, (BLANK, CHARACTER))), _read_lines),
    "file": Reader(_by(Rule(None, (BLANK_LINE, LINE, BLANK, CHARACTER))), _read_whole),
    "sentences": Reader(_by(Rule(BLANK_LINE, (LINE, BLANK, CHARACTER))), _read_blank, segmented=True),
    "jsonl": Reader(_by(Rule(LINE)), _read_json),
    "parquet": Reader(_cut_table, _read_table, _measure_table),
    "lddl": Reader(_by(Rule(LINE, (BLANK_PAST_FIRST_WORD, CHARACTER))), _read_numbered),
    "dump": Reader(_by(Rule(PAGE)), _read_dump),
    "dump streams": Reader(_cut_streams, _read_dump),
}
