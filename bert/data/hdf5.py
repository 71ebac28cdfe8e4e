"""HDF5 shards in the layout of NVIDIA's ``create_pretraining_data.py``: padded rows, gzip.

==========================  ======  ======  =======================================================
input_ids                   int32   [n, S]
input_mask                  int8    [n, S]  1 = a token, 0 = padding
segment_ids                 int8    [n, S]  1 = segment B
masked_lm_positions         int32   [n, P]  ends at the first 0: position 0 is [CLS], never masked
masked_lm_ids               int32   [n, P]
next_sentence_labels        int8    [n]     1 = segment B is random
==========================  ======  ======  =======================================================

A file without the two ``masked_lm`` tables holds sequences that are masked while loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bert.data.shard import Limits, Shard, ShardInfo, offsets_of, ranges
from bert.errors import UsageError

REQUIRED = ("input_ids", "input_mask", "segment_ids", "next_sentence_labels")


def inspect(path: Path) -> ShardInfo:
    """Read the shapes of the tables."""
    with _open(path) as file:
        missing = [name for name in REQUIRED if name not in file]
        if missing:
            raise UsageError(f"{path}: no table {', '.join(missing)}, expected {', '.join(REQUIRED)}")
        rows = {name: file[name].shape[0] for name in REQUIRED}
        if len(set(rows.values())) > 1:
            raise UsageError(f"{path}: tables of different lengths ({', '.join(f'{k} {v}' for k, v in rows.items())})")
        predictions = file["masked_lm_positions"].shape[1] if "masked_lm_positions" in file else None
        return ShardInfo(rows["input_ids"], file["input_ids"].shape[1], predictions)


def read(path: Path, vocab: Mapping[str, int] | None, start: int, stop: int | None) -> Shard:
    """Decode rows ``start`` to ``stop``; ids are stored, so ``vocab`` is not needed."""
    rows = slice(start, stop)
    with _open(path) as file:
        mask = file["input_mask"][rows].astype(bool)
        lengths = mask.sum(1)
        columns = np.arange(mask.shape[1])
        _check_runs(mask, columns < lengths[:, None], path, "input_mask", start)
        second = file["segment_ids"][rows].astype(bool) & mask
        starts = lengths - second.sum(1)
        _check_runs(second, (columns >= starts[:, None]) & mask, path, "segment_ids", start)
        masked = _read_masked(file, rows) if "masked_lm_positions" in file else {}
        return Shard(
            tokens=file["input_ids"][rows][mask].astype(np.int32, copy=False),
            offsets=offsets_of(lengths),
            segment_starts=starts.astype(np.int32),
            next_sentence_labels=file["next_sentence_labels"][rows].reshape(-1).astype(np.int8),
            **masked,
        )


def write(path: Path, shard: Shard, limits: Limits, vocab: Mapping[str, int] | None) -> None:
    """Write ``shard`` zero-padded to the limits; compression and chunks are those of the published files."""
    lengths, columns = shard.lengths, np.arange(limits.max_seq_length)
    mask = columns < lengths[:, None]
    tables: dict[str, NDArray] = {
        "input_ids": _padded(mask, shard.tokens),
        "input_mask": mask.astype(np.int8),
        "segment_ids": (mask & (columns >= shard.segment_starts[:, None])).astype(np.int8),
        "next_sentence_labels": shard.next_sentence_labels.astype(np.int8),
    }
    if shard.masks is not None:
        positions, labels, bounds = shard.masks
        used = np.arange(limits.max_predictions_per_seq) < np.diff(bounds)[:, None]
        tables["masked_lm_positions"], tables["masked_lm_ids"] = _padded(used, positions), _padded(used, labels)
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            # An empty table cannot be chunked, and so not compressed.
            file.create_dataset(name, data=table, compression="gzip" if table.size else None)


def _open(path: Path) -> Any:
    """Open for reading; untyped, because a member of a file is a table, a group or a type."""
    return h5py.File(path)


def _read_masked(file: Any, rows: slice) -> dict[str, NDArray]:
    positions, labels = file["masked_lm_positions"][rows], file["masked_lm_ids"][rows]
    ended = positions == 0
    counts = np.where(ended.any(1), ended.argmax(1), positions.shape[1]) if positions.size else np.zeros(len(positions))
    taken = ranges(np.arange(len(positions)) * positions.shape[1], counts.astype(np.int64))
    return {
        "masked_positions": positions.reshape(-1)[taken].astype(np.int32, copy=False),
        "masked_labels": labels.reshape(-1)[taken].astype(np.int32, copy=False),
        "masked_offsets": offsets_of(counts),
    }


def _padded(mask: NDArray, values: NDArray) -> NDArray[np.int32]:
    table = np.zeros(mask.shape, np.int32)
    table[mask] = values
    return table


def _check_runs(actual: NDArray, expected: NDArray, path: Path, table: str, first_row: int) -> None:
    """Padding must follow the tokens and segment B segment A: the token stream has no other form."""
    wrong = (actual != expected).any(1)
    if wrong.any():
        raise UsageError(f"{path}: {table} of row {first_row + int(wrong.argmax())} is not one run of ones")
