"""What the loader, model and trainer exchange: one micro-batch of sequences as a token stream.

The real tokens of S sequences are laid end to end; ``cu_seqlens`` marks where each begins. There is no padding, so T
tokens cost T tokens of work::

    [CLS] a a [SEP] b [SEP] [CLS] a [SEP] b b b [SEP]      T = 13
    0                       6                        13     cu_seqlens
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor


def no_label(dtype: torch.dtype) -> float:
    """Return the label of a sequence that no loss counts: -1 for classes, the least number for a regression."""
    return torch.finfo(dtype).min if dtype.is_floating_point else -1


class TaskGroup(NamedTuple):
    """Neighbouring sequences of one task."""

    task: int
    sequences: tuple[int, int]  # the first, and one past the last
    tokens: tuple[int, int]

    def since(self, other: TaskGroup) -> TaskGroup:
        """Return the same group, counted from where ``other`` begins."""
        (first, low), pairs = (other.sequences[0], other.tokens[0]), (self.sequences, self.tokens)
        sequences, tokens = ((a - by, b - by) for (a, b), by in zip(pairs, (first, low), strict=True))
        return TaskGroup(self.task, sequences, tokens)


@dataclass(frozen=True)
class TokenStream:
    """S sequences of T tokens."""

    input_ids: Tensor  # [T] int64
    token_type_ids: Tensor  # [T] int64
    cu_seqlens: Tensor  # [S + 1] int32
    max_seqlen: int
    groups: tuple[TaskGroup, ...] = field(default=(), kw_only=True)  # by task; none: all are of task 0

    @property
    def num_tokens(self) -> int:
        return self.input_ids.numel()

    @property
    def num_sequences(self) -> int:
        return self.cu_seqlens.numel() - 1

    def to(self, device: torch.device) -> Self:
        """Copy to ``device``, asynchronously where the source is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """Copy to page-locked memory, from which a GPU copies without waiting."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: changed(each) for name, each in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        return dataclasses.replace(self, **{f.name: changed(getattr(self, f.name)) for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class Batch(TokenStream):
    """A micro-batch of pre-training with M masked positions."""

    masked_positions: Tensor  # [M] int64, indices into the stream
    masked_labels: Tensor  # [M] int64, the original token ids
    next_sentence_labels: Tensor  # [S] int64, 1 = segment B is random, -1 = not known

    def loss_weights(self) -> dict[str, int]:
        """Return how many terms each loss sums over; the trainer divides by their total over the optimizer step."""
        return {"mlm_loss": self.masked_labels.numel(), "nsp_loss": int((self.next_sentence_labels >= 0).sum())}


@dataclass(frozen=True)
class TaskBatch(TokenStream):
    """A micro-batch of fine-tuning: one value of each label for every sequence."""

    labels: dict[str, Tensor]  # name -> [S]

    def loss_weights(self) -> dict[str, int]:
        """The loss sums over sequences."""
        return {"loss": self.num_sequences}
