"""Tables in files, by suffix: tab-separated values without quoting (as GLUE publishes them), CSV, JSON lines.

Lines of .tsv and .jsonl end only at ``\\n`` or ``\\r\\n``, since texts contain other line separators of Unicode. The
first row names the columns, unless the caller does. A row that does not fit is an error that names file and line::

    for row in read_table(Path("train.tsv"), ["sentence", "label"]):
        print(row.line, row.values)             # 2 ('a stirring , funny film', '1')
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert.errors import UsageError, naming_os_errors
from bert.files import decode

SUFFIXES = (".tsv", ".csv", ".jsonl")


class TableRow(NamedTuple):
    """The requested columns of a row, and the line on which it begins, counted from 1."""

    line: int
    values: tuple[str, ...]


def read_table(
    path: Path, columns: Sequence[str], *, names: Sequence[str] = (), broken: list[int] | None = None
) -> Iterator[TableRow]:
    """Yield the given ``columns`` of each row.

    ``names`` are the columns of a file without a header. A row with a wrong number of columns raises UsageError, as
    does anything else that is wrong; but if ``broken`` is given, such a row is skipped and its line added to it.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}")
    text = _read(path)
    if not text.strip():
        raise UsageError(f"{path}: the file is empty, expected one example per line")
    if path.suffix == ".jsonl":
        return _json_rows(path, text, columns)
    return _select(path, _tsv_rows(text) if path.suffix == ".tsv" else _csv_rows(path, text), columns, names, broken)


def _read(path: Path) -> str:
    with naming_os_errors(str(path)):
        data = path.read_bytes()
    try:
        return decode(data)
    except UnicodeDecodeError as error:  # its object is the text without a byte-order mark
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {line}: byte 0x{error.object[error.start]:02x}, expected UTF-8 text") from error


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.rstrip("\r\n").split("\n"), 1):
        yield number, line.removesuffix("\r").split("\t")


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1  # a quoted field may hold line ends
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{path}: line {line}: {error}, expected comma-separated values") from error


def _select(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    names: Sequence[str],
    broken: list[int] | None,
) -> Iterator[TableRow]:
    header = list(names) or next(rows)[1]
    for column in columns:
        if header.count(column) != 1:
            found = "is repeated" if column in header else "is missing"
            raise UsageError(f"{path}: line 1: column {column!r} {found}, the columns are {', '.join(header)}")
    places = [header.index(column) for column in columns]
    for line, fields in rows:
        if len(fields) == len(header):
            yield TableRow(line, tuple([fields[place] for place in places]))
        elif broken is not None:
            broken.append(line)
        else:
            raise UsageError(f"{path}: line {line}: {len(fields)} columns, expected {len(header)}: {', '.join(header)}")


def _json_rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[TableRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}: line {number}"
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{where}: not JSON ({error}), expected one object per line") from error
            if not isinstance(fields, dict):
                raise UsageError(f"{where}: a JSON {type(fields).__name__}, expected an object")
            yield TableRow(number, tuple([_scalar(where, fields, column) for column in columns]))


def _scalar(where: str, fields: dict[str, Any], column: str) -> str:
    if column not in fields:
        raise UsageError(f"{where}: key {column!r} is missing, the keys are {', '.join(fields)}")
    value = fields[column]
    if value is None or isinstance(value, list | dict):
        raise UsageError(f"{where}: {column!r} is {json.dumps(value)[:40]}, expected a string or a number")
    text = value if isinstance(value, str) else json.dumps(value)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"{where}: {column!r} has a lone surrogate, expected Unicode text")
    return text
