"""Shard files: a table from the name of a file to what reads and writes it.

Whatever the format, a file becomes a :class:`~bert.data.shard.Shard`. A format is imported at its first use, so a run
needs only the libraries of the formats that it reads::

    for path in find_shards("shards"):
        shard = read_shard(path, tokenizer.vocab)
"""

from __future__ import annotations

import glob
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.data.shard import Limits, RowRange, Shard, ShardInfo, naming
from bert.errors import UsageError
from bert.files import files_below, replacing, warn

READERS = 8  # files inspected at a time

Vocabulary = Mapping[str, int]  # piece -> id, in the order of the ids


@dataclass(frozen=True)
class Format:
    """Where to find what reads and writes one kind of file: a module, or an object in one, with four functions.

    ``inspect(path) -> ShardInfo`` decodes nothing; ``read(path, vocab, start, stop) -> Shard`` decodes rows; ``write(
    path, shard, limits, vocab)`` writes a shard that ``limits`` has approved; ``splice(path, parts)`` joins rows.
    """

    module: str
    name: str | None = None

    def load(self) -> Any:
        """Import it."""
        module = importlib.import_module(self.module)
        return getattr(module, self.name) if self.name else module


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

SWAP = ".balance/swap.json"  # in a folder where data/balance.py has begun to replace the shards
UNFINISHED = {SWAP: "data/balance.py", ".preprocess": "data/preprocess.py"}  # what commands leave until they are done


def find_shards(input_dir: str | Path, flag: str = "--input_dir", notice: Callable[[str], None] = warn) -> list[Path]:
    """List the shards of a directory (searched recursively), a pattern or a single file, sorted by path.

    Where some HDF5 files of a directory have ``training`` in their names, the others are left out: NVIDIA's scripts
    keep training and test shards in one place. ``notice`` gets what :func:`files_below` passes over. Raises UsageError,
    which names ``flag``, where there are no shards, and where the command that makes them was interrupted.
    """
    root = Path(input_dir)
    if root.is_dir():
        found = files_below(root, lambda name: _format(name) is not None, lambda line: notice(f"{flag} {line}"))
    else:
        candidates = [root] if root.exists() else map(Path, glob.glob(str(input_dir)))
        found = sorted(p for p in candidates if _format(p.name) and not p.name.startswith(".") and p.is_file())
    for folder in sorted({root, *(path.parent for path in found)}):
        for sign, command in UNFINISHED.items():
            if (folder / sign).exists():
                raise UsageError(f"{flag} {folder}: {command} was interrupted here; run it again to complete it")
    if root.is_dir():
        training = {p for p in found if "training" in p.name}
        if any(_format(p.name) is HDF5 for p in training):
            found = [p for p in found if p in training or _format(p.name) is not HDF5]
    if not found:
        raise UsageError(f"{flag} {input_dir}: no shards, expected files such as {', '.join(FORMATS)}")
    return found


def format_of(path: Path) -> Format:
    """Return the format by the file's name; raises UsageError where the name is not that of a shard."""
    kind = _format(path.name)
    if kind is None:
        raise UsageError(f"{path}: unknown kind of shard, expected a name such as {', '.join(FORMATS)}")
    return kind


def inspect_shard(path: Path) -> ShardInfo:
    """Read what a shard tells without being decoded; raises UsageError naming it if that cannot be read."""
    with naming(path):
        return format_of(path).load().inspect(path)


def inspect_shards(paths: Sequence[Path]) -> Iterator[ShardInfo]:
    """Inspect ``paths``, several at a time: network file systems answer slowly, but many requests at once."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(inspect_shard, paths)


def read_shard(path: Path, vocab: Vocabulary | None = None, start: int = 0, stop: int | None = None) -> Shard:
    """Decode the rows ``start`` to ``stop`` of a shard; formats that hold text need ``vocab``.

    Raises UsageError naming the file where it is damaged, of another kind, or holds a piece outside ``vocab``.
    """
    with naming(path):
        return format_of(path).load().read(path, vocab, start, stop)


def write_shard(
    path: Path, shard: Shard, max_seq_length: int, max_predictions_per_seq: int, vocab: Vocabulary | None = None
) -> None:
    """Write ``shard`` in the format of its name; the file appears whole or not at all.

    Raises UsageError where a sequence is longer or has more predictions than given, or an id is outside ``vocab``.
    """
    kind = format_of(path)
    limits = Limits(max_seq_length, max_predictions_per_seq, None if vocab is None else len(vocab))
    limits.check(shard, path)
    with writing(path) as temporary:
        kind.load().write(temporary, shard, limits, vocab)


def splice_shards(target: Path, parts: Sequence[RowRange]) -> None:
    """Write the rows of ``parts``, one after another, to a new file of the same format.

    Nothing is decoded, all columns are copied, and memory does not depend on the number of rows. The file appears whole
    or not at all. Raises UsageError naming a part that is damaged, too short or of another layout.
    """
    kind = format_of(target)
    for path, _, _ in parts:
        if format_of(path) is not kind:
            raise UsageError(f"{path}: expected shards of one format, such as {target.name}")
    with writing(target) as temporary:
        kind.load().splice(temporary, parts)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield where to write what will be ``path``; raises UsageError where there is no room or no permission."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _format(name: str) -> Format | None:
    return next((kind for pattern, kind in PATTERNS if pattern.fullmatch(name)), None)
