"""Shard files: a table from the name of a file to the module that reads and writes it.

Whatever the format, a file becomes a :class:`~bert.data.shard.Shard`. A format is a module with ``inspect``, ``read``,
``write`` and ``splice``, imported at its first use, so a run needs only the libraries of the formats that it reads::

    for path in find_shards("shards"):
        shard = read_shard(path, tokenizer.vocab)
"""

from __future__ import annotations

import glob
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.data.shard import Limits, Shard, ShardInfo, naming
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
    "format_of",
    "inspect_shard",
    "read_shard",
    "splice_shards",
    "write_shard",
]

Vocabulary = Mapping[str, int]  # piece -> id, in the order of the ids


@dataclass(frozen=True)
class Format:
    """What reads and writes one kind of file: a module, or an object in one."""

    module: str
    name: str | None = None

    def _implementation(self) -> Any:
        module = importlib.import_module(self.module)
        return getattr(module, self.name) if self.name else module

    def inspect(self, path: Path) -> ShardInfo:
        """Read what the file says of itself, without decoding it."""
        return self._implementation().inspect(path)

    def count(self, path: Path) -> int:
        """Return the number of sequences."""
        return self.inspect(path).num_samples

    def read(self, path: Path, vocab: Vocabulary | None, start: int = 0, stop: int | None = None) -> Shard:
        """Decode the rows ``start`` to ``stop``."""
        return self._implementation().read(path, vocab, start, stop)

    def write(self, path: Path, shard: Shard, limits: Limits, vocab: Vocabulary | None) -> None:
        """Write a shard that ``limits`` has approved."""
        self._implementation().write(path, shard, limits, vocab)

    def splice(self, path: Path, pieces: Sequence[tuple[Path, int, int]]) -> None:
        """Write the rows of ``pieces``, files of this kind, one after another."""
        self._implementation().splice(path, pieces)


HDF5 = Format("bert.data.formats.hdf5")  # NVIDIA's create_pretraining_data.py
PARQUET = Format("bert.data.formats.parquet")  # LDDL
TFRECORD = Format("bert.data.formats.examples", "TFRECORD")  # Google's create_pretraining_data.py
OFRECORD = Format("bert.data.formats.examples", "OFRECORD")  # OneFlow

FORMATS = {  # * stands for some characters, <n> for a number
    "*.hdf5": HDF5,
    "*.h5": HDF5,
    "*.parquet": PARQUET,
    "*.parquet_<n>": PARQUET,  # a bin of lengths
    "*.tfrecord": TFRECORD,
    "*.tfrecords": TFRECORD,
    "*.tf_record": TFRECORD,
    "*.tfrecord-<n>-of-<n>": TFRECORD,
    "*.tfrecords-<n>-of-<n>": TFRECORD,
    "*.tf_record-<n>-of-<n>": TFRECORD,
    "part-<n>-of-<n>": TFRECORD,  # MLPerf
    "*.ofrecord": OFRECORD,
    "part-<n>": OFRECORD,
}
PATTERNS = [
    (re.compile(re.escape(name).replace(r"\*", ".+").replace("<n>", r"\d+")), kind) for name, kind in FORMATS.items()
]

JOURNAL = ".balance/journal.json"  # in a folder where data/balance.py is not done with replacing the shards
UNFINISHED = {
    JOURNAL: "data/balance.py",
    ".preprocess": "data/preprocess.py",
}  # what commands leave until they are done


def find_shards(input_dir: str | Path, flag: str = "--input_dir") -> list[Path]:
    """List the shards of a directory (searched whole), a pattern or a single file, sorted by path.

    Where some HDF5 files of a directory have ``training`` in their names, the others are test shards and left out, as
    NVIDIA's scripts keep both in one place. Raises UsageError, which names ``flag``, where there are none, and where
    the command that makes them was interrupted.
    """
    root = Path(input_dir)
    if root.is_dir():
        candidates = (path for path in root.rglob("*") if not _is_hidden(path.relative_to(root)))
    else:
        candidates = [root] if root.exists() else map(Path, glob.glob(str(input_dir)))
    found = sorted(path for path in candidates if _format(path) and not path.name.startswith(".") and path.is_file())
    for folder in sorted({root, *(path.parent for path in found)}):
        for sign, command in UNFINISHED.items():
            if (folder / sign).exists():
                raise UsageError(f"{flag} {folder}: {command} was interrupted here; run it again to complete it")
    if root.is_dir():
        training = {p for p in found if "training" in p.name}
        if any(_format(p) is HDF5 for p in training):
            found = [p for p in found if p in training or _format(p) is not HDF5]
    if not found:
        raise UsageError(f"{flag} {input_dir}: no shards, expected files such as {', '.join(FORMATS)}")
    return found


def check_suffix(path: str | Path) -> None:
    """Raise UsageError unless ``path`` is named as a shard."""
    format_of(Path(path))


def format_of(path: Path) -> Format:
    """Return the format that the name tells; raises UsageError where it is that of no shard."""
    kind = _format(path)
    if kind is None:
        raise UsageError(f"{path}: unknown kind of shard, expected a name such as {', '.join(FORMATS)}")
    return kind


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
    """Write ``shard`` in the format that its name tells; the file appears whole or not at all.

    Raises UsageError where a sequence is longer or has more predictions than given, or an id is outside ``vocab``.
    """
    path = Path(path)
    kind = format_of(path)
    limits = Limits(max_seq_length, max_predictions_per_seq, None if vocab is None else len(vocab))
    limits.check(shard, path)
    with _written(path) as temporary:
        kind.write(temporary, shard, limits, vocab)


def splice_shards(target: str | Path, pieces: Sequence[tuple[Path, int, int]]) -> None:
    """Write the rows start to stop of each ``(path, start, stop)`` to one new file of the same format.

    Nothing is decoded, columns that are not read here ride along, and memory does not depend on the number of rows. The
    file appears whole or not at all. Raises UsageError naming a piece that is damaged, too short or of another layout.
    """
    target = Path(target)
    kind = format_of(target)
    for path, _, _ in pieces:
        if format_of(path) is not kind:
            raise UsageError(f"{path}: expected shards of one format, such as {target.name}")
    with _written(target) as temporary:
        kind.splice(temporary, pieces)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _format(path: Path) -> Format | None:
    return next((kind for pattern, kind in PATTERNS if pattern.fullmatch(path.name)), None)


def _guarded(path: Path, action: str, *arguments: object) -> Any:
    kind = format_of(path)
    with naming(path):
        return getattr(kind, action)(path, *arguments)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yield where to write what will be ``path``; raises UsageError where there is no room or no permission."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
