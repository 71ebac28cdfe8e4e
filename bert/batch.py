"""What loader, model and trainer exchange: one micro-batch of pre-training sequences as a token stream.

The real tokens of S sequences lie end to end; ``cu_seqlens`` marks where each begins. There is no padding, so T tokens
cost T tokens of work::

    [CLS] a a [SEP] b [SEP] [CLS] a [SEP] b b b [SEP]      T = 13
    0                       6                        13     cu_seqlens
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """S sequences, T tokens and M masked positions."""

    input_ids: Tensor  # [T] int64
    token_type_ids: Tensor  # [T] int64
    cu_seqlens: Tensor  # [S + 1] int32
    max_seqlen: int
    masked_positions: Tensor  # [M] int64, indices into the stream
    masked_labels: Tensor  # [M] int64, the original token ids
    next_sentence_labels: Tensor  # [S] int64, 1 = segment B is random

    @property
    def num_tokens(self) -> int:
        return self.input_ids.numel()

    @property
    def num_sequences(self) -> int:
        return self.next_sentence_labels.numel()

    def loss_weights(self) -> dict[str, int]:
        """How many terms each loss sums over here; the trainer divides by their total over the optimizer step."""
        return {"mlm_loss": self.masked_labels.numel(), "nsp_loss": self.num_sequences}

    def to(self, device: torch.device) -> Batch:
        """Copy to ``device``, asynchronously where the source is pinned."""
        moved = {
            f.name: value.to(device, non_blocking=True)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return dataclasses.replace(self, **moved)
