"""A directory of shards: what it holds, checked as far as possible without decoding, and a cache of decoded chunks.

Shards are decoded in chunks of at most 65,536 sequences, so memory does not depend on the size of a file. The chunks
are what :class:`~bert.data.order.GlobalOrder` calls shards::

    dataset = Dataset.open(config, tokenizer.vocab)
    order = GlobalOrder(dataset.chunk_sizes, ...)
    dataset.chunk(3).rows["length"]     # decoded, checked, shared by all threads
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bert.config import flag
from bert.data.formats.table import Vocabulary, find_shards, inspect_shards, read_shard
from bert.data.shard import Limits, RowRange, Shard
from bert.errors import UsageError
from bert.ragged import even_part, offsets_of

CHUNK = 65536  # sequences; part of the global order, so a checkpoint's position depends on it


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
        "Memory for decoded shards, in GB per process: of 32 shards at a time on one device, of fewer on several.",
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
    """A chunk laid out for gathering: a table with one row per sequence, and values in narrow types."""

    path: Path
    rows: NDArray  # ROW [n]
    tokens: NDArray  # [T]
    predictions: NDArray | None  # [M, 2]: position in its sequence, original id; None = masked while loading

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


class Dataset:
    """The shards of one directory. Safe to use from several threads."""

    def __init__(self, root: Path, vocab: Vocabulary | None, limits: Limits, cache_bytes: float) -> None:
        """Find and count the shards; raises UsageError naming one that is damaged or exceeds ``limits``."""
        self.vocab, self.limits, self.cache_bytes = vocab, limits, cache_bytes
        self.notices: list[str] = []
        self.paths = find_shards(root, notice=self.notices.append)
        infos = list(inspect_shards(self.paths))
        for path, info in zip(self.paths, infos, strict=True):
            limits.check_info(info, path)
        counts = [info.num_samples for info in infos]
        self.num_samples = sum(counts)
        if not self.num_samples:
            raise UsageError(f"--input_dir {root}: {len(self.paths)} shards without a sequence")
        self.notices += _notices(self.paths, counts)
        self.fingerprint = _fingerprint(self.paths, counts, root)
        self.chunks = [chunk for path, n in zip(self.paths, counts, strict=True) for chunk in _cut(path, n)]
        self.chunk_sizes: NDArray[np.int64] = np.array([chunk.stop - chunk.start for chunk in self.chunks])
        self.first_samples = offsets_of(self.chunk_sizes)  # number of a chunk's first sequence within the data set
        self._decoded: OrderedDict[int, Future[Decoded]] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    @classmethod
    def open(cls, config: LoaderConfig, vocab: Vocabulary | None) -> Dataset:
        """Open the shards that ``config`` names; token ids are checked against ``vocab`` when decoded."""
        size = None if vocab is None else len(vocab)
        limits = Limits(config.max_seq_length, config.max_predictions_per_seq, size)
        return cls(Path(config.input_dir), vocab, limits, config.shard_cache_gb * 1e9)

    def chunk(self, index: int) -> Decoded:
        """Return a chunk, decoded by this call unless another one has decoded it or is doing so."""
        return self.prefetch(index).result()

    def prefetch(self, index: int) -> Future[Decoded]:
        """Decode a chunk unless that is done or being done; an error is kept for whoever asks for the result."""
        with self._lock:
            if index in self._decoded:
                self._decoded.move_to_end(index)
                return self._decoded[index]
            future = self._decoded[index] = Future()
        try:
            decoded = self._read(self.chunks[index])
        except BaseException as error:
            with self._lock:
                del self._decoded[index]
            future.set_exception(error)
        else:
            future.set_result(decoded)
            self._evict(keep=index)
        return future

    def _read(self, chunk: RowRange) -> Decoded:
        shard = read_shard(chunk.path, self.vocab, chunk.start, chunk.stop)
        if shard.num_samples != chunk.stop - chunk.start:
            raise UsageError(f"{chunk.path}: changed while in use, rows {chunk.start} to {chunk.stop} are missing")
        self.limits.check(shard, chunk.path, chunk.start)
        return Decoded.of(shard, chunk.path)

    def _evict(self, keep: int) -> None:
        """Forget the least recently used chunks until the rest fit; the newest stays even if it alone does not."""
        with self._lock:
            sizes = {i: future.result().nbytes for i, future in self._decoded.items() if _is_decoded(future)}
            excess = sum(sizes.values()) - self.cache_bytes
            for index, size in sizes.items():
                if excess > 0 and index != keep:
                    del self._decoded[index]
                    excess -= size


def _is_decoded(future: Future[Decoded]) -> bool:
    return future.done() and future.exception() is None


def _cut(path: Path, samples: int) -> list[RowRange]:
    """Cut a file into chunks of nearly equal size; an empty file has none."""
    count = -(-samples // CHUNK)
    parts = [even_part(samples, index, count) for index in range(count)]
    return [RowRange(path, part.start, part.stop) for part in parts]


def _narrowed(values: NDArray) -> NDArray:
    """Halve the memory where values fit 16 bits, as the ids of BERT's vocabularies do."""
    return values.astype(np.uint16) if int(values.max(initial=0)) < 2**16 else values


def _notices(paths: Sequence[Path], counts: Sequence[int]) -> list[str]:
    empty = [path.name for path, count in zip(paths, counts, strict=True) if count == 0]
    if not empty:
        return []
    names = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
    return [f"{len(empty)} of {len(paths)} shards hold no sequence and are skipped: {names}"]


def _fingerprint(paths: Sequence[Path], counts: Sequence[int], root: Path) -> str:
    """Hash names (below ``root``, so that a data set may move) and counts."""
    names = [os.path.relpath(path, root) if root.is_dir() else path.name for path in paths]
    lines = [f"{name}\t{count}\n" for name, count in zip(names, counts, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
