"""Batches of few different shapes, as a CUDA graph needs them: a real batch in front, padding behind.

Invariant: padding adds exactly nothing. Losses are sums, padding has no label, and no real token attends to it; so the
losses are those of the batch without padding, and so are the gradients up to the order of additions::

    shape = static_shape(batch, longest=512)
    padded = static_batch(batch, shape, device)     # new tensors on the device
    refill(padded, another_batch)                   # of the same shape: into the same memory

Padding is at least one token. Padding tokens form sequences like real ones, so that their hidden states are finite
(0 · NaN would spoil the gradients of weights); the sequences after those are empty. All masked positions of the padding
are the last token, whose gradient is zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from bert.batch import Batch, TaskBatch, TokenStream, no_label

B = TypeVar("B", bound=TokenStream)


class StaticShape(NamedTuple):
    """What the kernels of a micro-step depend on."""

    tokens: int
    sequences: int  # padding and empty ones included
    longest: int  # no sequence is longer
    masked: int = 0  # masked positions


def static_shape(batch: TokenStream, longest: int) -> StaticShape:
    """Return the shape to pad ``batch`` to; ``longest`` is the largest number of tokens that a sequence can have.

    Steps of 1/64 to 1/128 in tokens cost half of that in work on average. Below 16,384 tokens a step is 256: there the
    host is the limit, not the work. Masked positions follow the tokens closely, and sequences cost next to nothing.
    """
    tokens = _round_up(batch.num_tokens + 1, 256, 64)
    longest = min(_round_up(batch.max_seqlen, 64, 8), longest)
    sequences = batch.num_sequences - (batch.num_tokens - tokens) // longest
    masked = _round_up(len(batch.masked_labels), 64, 32) if isinstance(batch, Batch) else 0
    return StaticShape(tokens, _round_up(sequences, 16, 8), longest, masked)


def _round_up(count: int, least: int, parts: int) -> int:
    """Round up to a multiple of ``least``, or of the power of two that cuts ``count`` into ``parts`` or more."""
    step = max(least, (1 << count.bit_length() - 1) // parts if count else 0)
    return max(1, -(-count // step)) * step


def static_batch(batch: B, shape: StaticShape, device: torch.device) -> B:
    """Return ``batch`` padded to ``shape``, in memory of its own on ``device``."""

    def empty(like: Tensor, count: int) -> Tensor:
        return torch.empty(count, dtype=like.dtype, device=device)

    changes: dict[str, object] = {
        "input_ids": empty(batch.input_ids, shape.tokens),
        "token_type_ids": empty(batch.token_type_ids, shape.tokens),
        "cu_seqlens": empty(batch.cu_seqlens, shape.sequences + 1),
        "max_seqlen": shape.longest,
    }
    if isinstance(batch, Batch):
        for name, count in (("masked_positions", shape.masked), ("masked_labels", shape.masked)):
            changes[name] = empty(getattr(batch, name), count)
        changes["next_sentence_labels"] = empty(batch.next_sentence_labels, shape.sequences)
    if isinstance(batch, TaskBatch):
        changes["labels"] = {name: empty(values, shape.sequences) for name, values in batch.labels.items()}
    padded = dataclasses.replace(batch, **changes)
    refill(padded, batch)
    return padded


def refill(padded: TokenStream, batch: TokenStream) -> None:
    """Copy ``batch`` into the front of ``padded`` and padding behind it; nothing waits if ``batch`` is pinned."""
    for target, source, padding in _rows(padded, batch):
        target[: len(source)].copy_(source, non_blocking=True)
        target[len(source) :].fill_(padding)
    first = batch.num_sequences + 1
    padded.cu_seqlens[:first].copy_(batch.cu_seqlens, non_blocking=True)
    ends = padded.cu_seqlens[first:]  # sequences of the full length, a shorter one, then empty ones
    number = torch.arange(1, len(ends) + 1, dtype=ends.dtype, device=ends.device)
    ends.copy_((number * padded.max_seqlen + batch.num_tokens).clamp_(max=padded.num_tokens))


def _rows(padded: TokenStream, batch: TokenStream) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield the static tensors, what to copy into each, and the value of padding."""
    yield padded.input_ids, batch.input_ids, 0
    yield padded.token_type_ids, batch.token_type_ids, 0
    if isinstance(padded, Batch) and isinstance(batch, Batch):
        yield padded.masked_positions, batch.masked_positions, padded.num_tokens - 1
        yield padded.masked_labels, batch.masked_labels, -1
        yield padded.next_sentence_labels, batch.next_sentence_labels, -1
    if isinstance(padded, TaskBatch) and isinstance(batch, TaskBatch):
        for name, values in batch.labels.items():
            yield padded.labels[name], values, no_label(values.dtype)
