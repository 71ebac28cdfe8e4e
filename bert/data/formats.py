"""Shard files: a table from the suffix of a file to the module that reads and writes it.

Whatever the format, a file becomes a :class:`~bert.data.shard.Shard`. A format is a module with ``inspect``, ``read``
and ``write``, imported at its first use, so a run needs only the libraries of the formats that it reads::

    for path in find_shards("shards"):
        shard = read_shard(path, tokenizer.vocab)
"""

from __future__ import annotations

import glob
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.data.shard import Limits, Shard, ShardInfo
from bert.errors import UsageError
from bert.files import replacing

__all__ = [
    "FORMATS",
    "Format",
    "Limits",
    "Shard",
    "ShardInfo",
    "check_suffix",
    "count_samples",
    "find_shards",
    "inspect_shard",
    "read_shard",
    "write_shard",
]

Vocabulary = Mapping[str, int]  # piece -> id, in the order of the ids


@dataclass(frozen=True)
class Format:
    """A module that reads and writes one kind of file."""

    module: str

    def inspect(self, path: Path) -> ShardInfo:
        """Read what the file says of itself, without decoding it."""
        return importlib.import_module(self.module).inspect(path)

    def count(self, path: Path) -> int:
        """Return the number of sequences."""
        return self.inspect(path).num_samples

    def read(self, path: Path, vocab: Vocabulary | None, start: int = 0, stop: int | None = None) -> Shard:
        """Decode the rows ``start`` to ``stop``."""
        return importlib.import_module(self.module).read(path, vocab, start, stop)

    def write(self, path: Path, shard: Shard, limits: Limits, vocab: Vocabulary | None) -> None:
        """Write a shard that ``limits`` has approved."""
        importlib.import_module(self.module).write(path, shard, limits, vocab)


HDF5 = Format("bert.data.hdf5")  # NVIDIA's create_pretraining_data.py
PARQUET = Format("bert.data.parquet")  # LDDL

FORMATS = {".hdf5": HDF5, ".h5": HDF5, ".parquet": PARQUET, ".parquet_<bin>": PARQUET}

# What the libraries raise on a truncated, foreign or damaged file; pyarrow's own errors derive from these.
UNREADABLE = (OSError, EOFError, KeyError, IndexError, TypeError, ValueError, RuntimeError)


def find_shards(input_dir: str | Path) -> list[Path]:
    """List the shards of a directory (searched whole), a pattern or a single file, sorted by path.

    Where some HDF5 files of a directory have ``training`` in their names, the others are test shards and left out, as
    NVIDIA's scripts keep both in one place. Raises UsageError where there are none.
    """
    root = Path(input_dir)
    candidates = root.rglob("*") if root.is_dir() else [root] if root.exists() else map(Path, glob.glob(str(input_dir)))
    found = sorted(p for p in candidates if _format(p) and not p.name.startswith(".") and p.is_file())
    if root.is_dir():
        training = {p for p in found if "training" in p.name}
        if any(_format(p) is HDF5 for p in training):
            found = [p for p in found if p in training or _format(p) is not HDF5]
    if not found:
        raise UsageError(f"--input_dir {input_dir}: no shards, expected files that end in {', '.join(FORMATS)}")
    return found


def check_suffix(path: str | Path) -> None:
    """Raise UsageError unless the name of ``path`` ends as that of a shard."""
    if _format(Path(path)) is None:
        raise UsageError(f"{path}: unknown kind of shard, expected a name that ends in {', '.join(FORMATS)}")


def inspect_shard(path: str | Path) -> ShardInfo:
    """Read what a shard says of itself; raises UsageError naming it if that cannot be read."""
    return _guarded(Path(path), "inspect")


def count_samples(path: str | Path) -> int:
    """Return the number of sequences in a shard."""
    return inspect_shard(path).num_samples


def read_shard(path: str | Path, vocab: Vocabulary | None = None, start: int = 0, stop: int | None = None) -> Shard:
    """Decode the rows ``start`` to ``stop`` of a shard; formats that hold text need ``vocab``.

    Raises UsageError naming the file where it is damaged, foreign, or holds a piece outside ``vocab``.
    """
    return _guarded(Path(path), "read", vocab, start, stop)


def write_shard(
    path: str | Path,
    shard: Shard,
    max_seq_length: int,
    max_predictions_per_seq: int,
    vocab: Vocabulary | None = None,
) -> None:
    """Write ``shard`` in the format of the suffix; the file appears whole or not at all.

    Raises UsageError where a sequence is longer or has more predictions than given, or an id is outside ``vocab``.
    """
    path = Path(path)
    check_suffix(path)
    limits = Limits(max_seq_length, max_predictions_per_seq, None if vocab is None else len(vocab))
    limits.check(shard, path)
    try:
        with replacing(path) as temporary:
            FORMATS[_suffix(path)].write(temporary, shard, limits, vocab)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def _suffix(path: Path) -> str:
    return re.sub(r"_\d+$", "_<bin>", path.suffix)


def _format(path: Path) -> Format | None:
    return FORMATS.get(_suffix(path))


def _guarded(path: Path, action: str, *arguments: object) -> Any:
    check_suffix(path)
    try:
        return getattr(FORMATS[_suffix(path)], action)(path, *arguments)
    except UsageError:
        raise
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: unreadable shard ({reason})") from error
