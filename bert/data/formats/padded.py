"""Padded rows, as Google's and NVIDIA's ``create_pretraining_data.py`` write them, and a Shard made of them and back.

====================  ========  =================================================================
input_ids             [n, S]
input_mask            [n, S]    1 = a token, 0 = padding
segment_ids           [n, S]    1 = segment B
next_sentence_labels  [n]       1 = segment B is random, -1 = not known
masked_lm_positions   [n, P]    0 in unused places
masked_lm_ids         [n, P]
masked_lm_weights     [n, P]    1.0 = a prediction, 0.0 = unused; not in HDF5
====================  ========  =================================================================

Without the ``masked_lm`` tables the sequences are masked while loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bert.data.shard import Limits, Shard, check_values
from bert.errors import UsageError
from bert.ragged import offsets_of

REQUIRED = ("input_ids", "input_mask", "segment_ids", "next_sentence_labels")
INT32 = (-(2**31), 2**31 - 1)  # ids are checked against the vocabulary once they are known to fit
STATIC = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")


def shard_of(tables: Mapping[str, NDArray], path: Path, first_row: int = 0) -> Shard:
    """Remove the padding.

    Raises UsageError naming a row of ``path`` that is not A, then B, then padding, or holds a value out of range.
    """
    check_values(tables["input_mask"], (0, 1), "input_mask", path, first_row)
    mask = tables["input_mask"].astype(bool)
    lengths = mask.sum(1)
    columns = np.arange(mask.shape[1])
    _check_runs(mask, columns < lengths[:, None], path, "input_mask", first_row)
    check_values(tables["input_ids"], INT32, "input_ids", path, first_row, mask)
    check_values(tables["segment_ids"], (0, 1), "segment_ids", path, first_row, mask)
    labels = tables["next_sentence_labels"].reshape(-1)
    check_values(labels, (-1, 1), "next_sentence_labels", path, first_row)
    second = tables["segment_ids"].astype(bool) & mask
    starts = lengths - second.sum(1)
    _check_runs(second, (columns >= starts[:, None]) & mask, path, "segment_ids", first_row)
    masks: dict[str, NDArray] = {}
    if STATIC[0] in tables:
        used = tables["masked_lm_weights"] > 0
        for name in STATIC[:2]:
            check_values(tables[name], INT32, name, path, first_row, used)
        masks = {
            "masked_positions": tables["masked_lm_positions"][used].astype(np.int32, copy=False),
            "masked_labels": tables["masked_lm_ids"][used].astype(np.int32, copy=False),
            "masked_offsets": offsets_of(used.sum(1)),
        }
    return Shard(
        tokens=tables["input_ids"][mask].astype(np.int32, copy=False),
        offsets=offsets_of(lengths),
        segment_starts=starts.astype(np.int32),
        next_sentence_labels=labels.astype(np.int8),
        **masks,
    )


def tables_of(shard: Shard, limits: Limits) -> dict[str, NDArray]:
    """Pad ``shard`` with zeros to ``limits``; a shard without static masks gets no ``masked_lm`` tables."""
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
        tables["masked_lm_weights"] = used.astype(np.float32)
    return tables


def _padded(mask: NDArray, values: NDArray) -> NDArray[np.int32]:
    table = np.zeros(mask.shape, np.int32)
    table[mask] = values
    return table


def _check_runs(actual: NDArray, expected: NDArray, path: Path, table: str, first_row: int) -> None:
    """Padding must follow the tokens, and segment B segment A: a token stream has no other form."""
    wrong = (actual != expected).any(1)
    if wrong.any():
        raise UsageError(f"{path}: {table} of row {first_row + int(wrong.argmax())} is not one run of ones")
