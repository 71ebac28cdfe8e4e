"""Kinds of sources: how each is cut and read.

A row of ``SOURCE_KINDS`` reads documents as texts, in which a blank line ends a paragraph; some texts are empty.
Documents are separated where the :class:`~bert.prepare.text.blocks.Rule` of their kind cuts::

    kind = SOURCE_KINDS["blank"]
    for cut in kind.cuts(path, 4 << 20, "text"):
        documents = list(kind.read(FileSpan("blank", str(path), *cut), "text", invalid))
"""

from __future__ import annotations

import json
import re
from collections import Counter
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
    Cut,
    FileSpan,
    Rule,
    cut_at,
    cut_file,
)
from bert.prepare.text.characters import decode
from bert.prepare.text.extracted import BOUNDARY, read_extracted
from bert.prepare.text.sentences import split_sentences
from bert.prepare.text.wikidump import next_stream, read_articles

ROWS = 256  # of a Parquet file, decoded at a time: few enough for long texts
READ_BYTES = 1 << 20
Reader = Callable[[FileSpan, str, Counter[str]], Iterable[str]]
SHORTER = "has become shorter since the work began"


@dataclass(frozen=True)
class SourceKind:
    """One kind of source. ``key`` is the name of the text in a JSON object or a table."""

    cuts: Callable[[Path, int, str], Iterable[Cut]]  # (path, block size, key); raises UsageError for an unusable file
    read: Reader  # (span, key, characters passed over by file)
    split: Callable[[str, str], list[str]] = split_sentences  # (text, language)


def _cut_by(rule: Rule) -> Callable[[Path, int, str], Iterable[Cut]]:
    return lambda path, block_size, key: cut_file(rule, path, block_size)


def _decode(span: FileSpan, invalid: Counter[str]) -> str:
    """Return the text of a span without a byte-order mark."""
    with open(span.path, "rb") as file:
        file.seek(span.start)
        data = file.read(span.stop - span.start)
    if len(data) < span.stop - span.start:
        raise UsageError(f"{span.path}: {SHORTER}")
    return decode(data, span.path, span.start, invalid)


def _separated(pattern: str) -> Reader:
    """Return a function that reads the texts between the matches of ``pattern``."""
    separator = re.compile(pattern)
    return lambda span, key, invalid: separator.split(_decode(span, invalid))


def _read_numbered(span: FileSpan, key: str, invalid: Counter[str]) -> Iterator[str]:
    """Read LDDL's lines: an identifier, a blank, and the text of a document."""
    lines = iter(_decode(span, invalid).split("\n"))
    if not span.whole:
        yield next(lines)
    for line in lines:
        yield from line.split(maxsplit=1)[1:]


def _read_json(span: FileSpan, key: str, invalid: Counter[str]) -> Iterator[str]:
    lines = _decode(span, invalid).split("\n")
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
    """Open a Parquet file; raises UsageError where it is not one or has no column of text ``key``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # With a buffer, a group of rows is read in parts.
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
    """Return (rows, bytes of text) of each group of rows."""
    metadata, column = file.metadata, [field.path for field in file.schema].index(key)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [(group.num_rows, group.column(column).total_uncompressed_size) for group in groups]


def _cut_table(path: Path, block_size: int, key: str) -> Iterator[Cut]:
    """Cut between groups of rows; cut groups larger than a block into equal numbers of rows."""
    with _table(path, key) as file:
        groups = _groups(file, key)
    start = 0
    for rows, size in groups:
        parts = min(rows, max(1, -(-size // block_size)))
        for low, high in pairwise(range(parts + 1)):
            yield start + rows * low // parts, start + rows * high // parts, size // parts, True
        start += rows


def _read_table(span: FileSpan, key: str, invalid: Counter[str]) -> Iterator[str]:
    import pyarrow as pa

    with _table(Path(span.path), key) as file:
        starts = [0, *accumulate(rows for rows, _ in _groups(file, key))]
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


def _cut_streams(path: Path, block_size: int, key: str) -> Iterable[Cut]:
    # The compressed size is about that of the text without markup.
    return cut_at(lambda x: (next_stream(path, x), True), block_size, path.stat().st_size)


def _read_dump(span: FileSpan, key: str, invalid: Counter[str]) -> Iterator[str]:
    return read_articles(Path(span.path), span.start, span.stop, invalid)


def _split_lines(text: str, language: str) -> list[str]:
    return [sentence for line in text.split("\n") if (sentence := line.strip())]


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


BLANK_LINES = r"\n(?:[ \t\r\f\v]*\n)+"  # as BLANK_LINE
NOTHING = r"(?!)"

SOURCE_KINDS = {
    "blank": SourceKind(_cut_by(Rule(BLANK_LINE, (LINE, BLANK, CHARACTER))), _separated(BLANK_LINES)),
    "line": SourceKind(_cut_by(Rule(LINE, (BLANK, CHARACTER))), _separated(r"\n")),
    "file": SourceKind(_cut_by(Rule(None, (BLANK_LINE, LINE, BLANK, CHARACTER))), _separated(NOTHING)),
    "sentences": SourceKind(_cut_by(Rule(BLANK_LINE, (LINE, BLANK, CHARACTER))), _separated(BLANK_LINES), _split_lines),
    "jsonl": SourceKind(_cut_by(Rule(LINE)), _read_json),
    "parquet": SourceKind(_cut_table, _read_table),
    "lddl": SourceKind(_cut_by(Rule(LINE, (BLANK_PAST_FIRST_WORD, CHARACTER))), _read_numbered),
    "dump": SourceKind(_cut_by(Rule(PAGE)), _read_dump),
    "extracted": SourceKind(_cut_by(Rule(BOUNDARY)), lambda span, key, invalid: read_extracted(_decode(span, invalid))),
    "dump streams": SourceKind(_cut_streams, _read_dump),
}
