"""A directory of shards: what it holds, checked as far as that goes without decoding, and a cache of decoded parts.

Large shards are decoded in pieces of at most 65,536 sequences, so that memory does not depend on the size of a file.
The pieces are what :class:`~bert.data.order.GlobalOrder` calls shards::

    dataset = Dataset.open(config, tokenizer.vocab)
    order = GlobalOrder(dataset.piece_sizes, ...)
    dataset.piece(3).rows["length"]     # decoded, checked, shared by all threads
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bert.config import flag
from bert.data.formats.table import Limits, Shard, Vocabulary, find_shards, inspect_shard, read_shard
from bert.data.shard import offsets_of
from bert.errors import UsageError

PIECE = 65536  # sequences; part of the global order, so a checkpoint's position depends on it
READERS = 8  # files opened at a time while counting: network file systems answer slowly, but many at once


@dataclass
class LoaderConfig:
    input_dir: str = flag(help="Directory, pattern or file of shards: HDF5, Parquet (LDDL's), TFRecord or OFRecord.")
    max_seq_length: int = flag(512, "Longest sequence, in tokens, that the shards may hold.", minimum=5)
    max_predictions_per_seq: int = flag(80, "Most masked tokens in a sequence.", minimum=1)
    num_workers: int = flag(
        4, "Threads that assemble batches ahead of the training loop; 0 = assemble when asked.", minimum=0
    )
    shard_cache_gb: float = flag(
        4.0,
        "Memory for decoded shards, in GB per process. Enough for 32 shards on one device, fewer on several.",
        minimum=0,
    )


ROW = np.dtype(
    [
        ("start", "i8"),  # first token
        ("length", "i4"),
        ("segment_start", "i4"),
        ("masked_start", "i8"),  # first prediction
        ("masked_count", "i4"),
        ("next_sentence_label", "i4"),
    ]
)


@dataclass(frozen=True)
class Decoded:
    """A piece laid out for gathering: a table with one row per sequence, and values in narrow types."""

    path: Path
    rows: NDArray  # ROW [n]
    tokens: NDArray  # [T]
    predictions: NDArray | None  # [M, 2]: place in its sequence, original id; None = masked while loading

    @classmethod
    def of(cls, shard: Shard, path: Path) -> Decoded:
        """Lay out ``shard``, which was read from ``path``."""
        rows = np.zeros(shard.num_samples, ROW)
        rows["start"], rows["length"] = shard.offsets[:-1], shard.lengths
        rows["segment_start"], rows["next_sentence_label"] = shard.segment_starts, shard.next_sentence_labels
        masks = shard.masks
        if masks is None:
            return cls(path, rows, _narrowed(shard.tokens), None)
        positions, labels, offsets = masks
        rows["masked_start"], rows["masked_count"] = offsets[:-1], np.diff(offsets)
        return cls(path, rows, _narrowed(shard.tokens), _narrowed(np.stack([positions, labels], axis=1)))

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.tokens.nbytes + (0 if self.predictions is None else self.predictions.nbytes)


@dataclass(frozen=True)
class Piece:
    """Rows ``start`` to ``stop`` of a file."""

    path: Path
    start: int
    stop: int


class Dataset:
    """The shards of one directory. Safe to use from several threads."""

    def __init__(
        self,
        paths: Sequence[Path],
        vocab: Vocabulary | None,
        limits: Limits,
        *,
        root: Path | None = None,
        cache_bytes: float = 4e9,
    ) -> None:
        """Count ``paths``; raises UsageError naming a shard that is damaged or exceeds ``limits``."""
        self.paths, self.vocab, self.limits, self.cache_bytes = list(paths), vocab, limits, cache_bytes
        with ThreadPoolExecutor(READERS) as pool:
            infos = list(pool.map(inspect_shard, self.paths))
        for path, info in zip(self.paths, infos, strict=True):
            limits.check_info(info, path)
        self.counts = [info.num_samples for info in infos]
        self.num_samples = sum(self.counts)
        if not self.num_samples:
            raise UsageError(f"--input_dir {root or self.paths[0]}: {len(self.paths)} shards without a sequence")
        self.notices = _notices(self.paths, self.counts)
        self.fingerprint = _fingerprint(self.paths, self.counts, root)
        self.pieces = [p for path, n in zip(self.paths, self.counts, strict=True) for p in _cut(path, n)]
        self.piece_sizes: NDArray[np.int64] = np.array([p.stop - p.start for p in self.pieces])
        self.first_samples = offsets_of(self.piece_sizes)  # number of a piece's first sequence within the data set
        self._decoded: OrderedDict[int, Future[Decoded]] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    @classmethod
    def open(cls, config: LoaderConfig, vocab: Vocabulary | None) -> Dataset:
        """Find and count the shards that ``config`` names; token ids are checked against ``vocab`` when decoded."""
        size = None if vocab is None else len(vocab)
        limits = Limits(config.max_seq_length, config.max_predictions_per_seq, size)
        paths = find_shards(config.input_dir)
        return cls(paths, vocab, limits, root=Path(config.input_dir), cache_bytes=config.shard_cache_gb * 1e9)

    def piece(self, index: int) -> Decoded:
        """Return a piece, decoded by this call unless another one did or is doing it."""
        future, is_mine = self._claim(index)
        if is_mine:
            self._decode(index, future)
        return future.result()

    def prefetch(self, index: int) -> None:
        """Decode a piece unless that is done or being done; an error waits for whoever needs the piece."""
        future, is_mine = self._claim(index)
        if is_mine:
            self._decode(index, future)

    def _claim(self, index: int) -> tuple[Future[Decoded], bool]:
        with self._lock:
            future = self._decoded.get(index)
            if future is None:
                future = self._decoded[index] = Future()
                return future, True
            self._decoded.move_to_end(index)
            return future, False

    def _decode(self, index: int, future: Future[Decoded]) -> None:
        piece = self.pieces[index]
        try:
            shard = read_shard(piece.path, self.vocab, piece.start, piece.stop)
            self._check(shard, piece)
        except BaseException as error:
            with self._lock:
                del self._decoded[index]
            future.set_exception(error)
            return
        future.set_result(Decoded.of(shard, piece.path))
        self._evict(keep=index)

    def _check(self, shard: Shard, piece: Piece) -> None:
        if shard.num_samples != piece.stop - piece.start:
            raise UsageError(f"{piece.path}: changed while in use, rows {piece.start} to {piece.stop} are not there")
        self.limits.check(shard, piece.path)

    def _evict(self, keep: int) -> None:
        """Forget the least recently used pieces until the rest fit; the newest stays even if it alone does not."""
        with self._lock:
            sizes = {i: future.result().nbytes for i, future in self._decoded.items() if _is_decoded(future)}
            excess = sum(sizes.values()) - self.cache_bytes
            for index, size in sizes.items():
                if excess > 0 and index != keep:
                    del self._decoded[index]
                    excess -= size


def _is_decoded(future: Future[Decoded]) -> bool:
    return future.done() and future.exception() is None


def _cut(path: Path, samples: int) -> list[Piece]:
    """Cut a file into pieces of near-equal size; an empty one has none."""
    pieces = -(-samples // PIECE)
    return [Piece(path, i * samples // pieces, (i + 1) * samples // pieces) for i in range(pieces)]


def _narrowed(values: NDArray) -> NDArray:
    """Halve the memory where values fit 16 bits, as the ids of BERT's vocabularies do."""
    return values.astype(np.uint16) if int(values.max(initial=0)) < 2**16 else values


def _notices(paths: Sequence[Path], counts: Sequence[int]) -> list[str]:
    empty = [path.name for path, count in zip(paths, counts, strict=True) if count == 0]
    if not empty:
        return []
    names = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
    return [f"{len(empty)} of {len(paths)} shards hold no sequence and are skipped: {names}"]


def _fingerprint(paths: Sequence[Path], counts: Sequence[int], root: Path | None) -> str:
    """Hash names (below ``root``, so that a data set may move) and counts."""
    inside = root is not None and root.is_dir()
    names = [os.path.relpath(path, root) if inside else path.name for path in paths]
    lines = [f"{name}\t{count}\n" for name, count in zip(names, counts, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
