"""Reads the TOML files of ``text/``, which hold the words and sentence templates of the encyclopedia."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bert.errors import UsageError

TEXT = Path(__file__).parent / "text"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises UsageError if it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # malformed TOML or UTF-8
        raise UsageError(f"{path}: not a TOML file ({error})") from error


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Turn a ValueError about the content of a file into a UsageError that names the file."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def check_keys(table: Mapping[str, Any], keys: Collection[str]) -> None:
    """Raise ValueError unless the table has these keys and no others, each with text or a list that is not empty."""
    if set(table) != set(keys):
        raise ValueError(f"{dict(table)}: expected the keys {', '.join(keys)}")
    for key, value in table.items():
        if not value:
            raise ValueError(f"{key} = {value!r}: expected at least one value")
