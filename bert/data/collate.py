"""Samples → micro-batches: sorted by length, cut into equal work, gathered into token streams.

A pure function of the samples. Tokens are copied sequence by sequence, not one by one::

    batches = assemble(dataset, masking, order.samples(consumed, rank, world_size), micro_batches=4)
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from bert.batch import Batch
from bert.data.dataset import ROW, Dataset, Decoded
from bert.data.masking import DynamicMasking
from bert.data.order import Samples
from bert.errors import UsageError
from bert.ragged import cut_evenly, offsets_of


def assemble(
    dataset: Dataset, masking: DynamicMasking | None, samples: Samples, micro_batches: int, pin_memory: bool = False
) -> list[Batch]:
    """Return ``micro_batches`` batches of nearly equal token counts, none empty where there are enough samples.

    ``masking`` may be None for data sets with static masks; raises UsageError where it is needed.
    """
    shards = samples.shard.tolist()
    decoded = {index: dataset.chunk(index) for index in sorted(set(shards))}
    rows = np.array([decoded[shard].rows[row] for shard, row in zip(shards, samples.row.tolist(), strict=True)], ROW)
    number = dataset.first_samples[samples.shard] + samples.row
    order = rows["length"].argsort(kind="stable")
    bounds = cut_evenly(rows["length"][order], micro_batches)
    masking = _choose_masking(list(decoded.values()), masking)
    batches = []
    for low, high in pairwise(bounds.tolist()):
        chosen = order[low:high]
        sources = [decoded[shards[i]] for i in chosen.tolist()]
        batch = _gather_batch(sources, rows[chosen], masking, samples.epoch[chosen], number[chosen])
        batches.append(batch.pinned() if pin_memory else batch)
    return batches


def _choose_masking(decoded: list[Decoded], masking: DynamicMasking | None) -> DynamicMasking | None:
    """Return None where the masks are static; raises UsageError where only some are, or ``masking`` is missing."""
    static = [chunk.path for chunk in decoded if chunk.predictions is not None]
    dynamic = [chunk.path for chunk in decoded if chunk.predictions is None]
    if static and dynamic:
        raise UsageError(f"{static[0]} holds masked sequences and {dynamic[0]} unmasked ones: expected one kind")
    if dynamic and masking is None:
        raise UsageError(f"{dynamic[0]}: sequences without masks need --vocab_file to be masked while loading")
    return masking if dynamic else None


def _gather_batch(
    sources: list[Decoded], rows: NDArray, masking: DynamicMasking | None, epoch: NDArray, number: NDArray
) -> Batch:
    """Copy the sequences ``rows``, each from its chunk in ``sources``; ``epoch`` and ``number`` key the masks."""
    offsets = offsets_of(rows["length"])
    begins = offsets[:-1]
    ids = _gather([chunk.tokens for chunk in sources], rows["start"], rows["length"])
    if masking is None:
        predictions = _gather([chunk.predictions for chunk in sources], rows["masked_start"], rows["masked_count"])
        positions, labels = predictions.reshape(-1, 2).T.copy()
        positions += np.repeat(begins, rows["masked_count"])
    else:
        ids, positions, labels = masking(ids, offsets, epoch, number)
    types = np.arange(len(ids)) >= np.repeat(begins + rows["segment_start"], rows["length"])
    return Batch(
        input_ids=torch.from_numpy(ids),
        token_type_ids=torch.from_numpy(types.astype(np.int64)),
        cu_seqlens=torch.from_numpy(offsets.astype(np.int32)),
        max_seqlen=int(rows["length"].max(initial=0)),
        masked_positions=torch.from_numpy(positions),
        masked_labels=torch.from_numpy(labels),
        next_sentence_labels=torch.from_numpy(rows["next_sentence_label"].astype(np.int64)),
    )


def _gather(arrays: list, starts: NDArray, counts: NDArray) -> NDArray[np.int64]:
    """Concatenate ``arrays[i][starts[i] : starts[i] + counts[i]]``."""
    spans = zip(arrays, starts.tolist(), (starts + counts).tolist(), strict=True)
    parts = [array[low:high] for array, low, high in spans]
    return np.concatenate(parts, dtype=np.int64) if parts else np.zeros(0, np.int64)
