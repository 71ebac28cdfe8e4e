"""Dropout whose mask is hashed from a key of each row and one of each column.

Drawing a random number for every element takes longer than the memory traffic around it, on a CPU as on a GPU. Keys are
drawn for rows and columns alone, and their product is hashed: integer arithmetic that vectorises. The Triton kernels
(bert/model/kernels) do the same. On a CPU the probability is rounded to 16 bits::

    y = dropout(x, 0.1, training=True)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.library import custom_op

LEVELS = 1 << 16


# A custom operator, which torch.compile leaves alone: it never merges equal calls, never repeats one in the backward
# pass, and draws from the same generator as without compilation.
@custom_op("bert::draw_host_keys", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def draw_host_keys(like: Tensor, count: int) -> Tensor:
    """Return ``count`` odd random int32 from torch's CPU generator; ``like`` says that they are on the CPU."""
    return torch.empty(-(-count // 2), dtype=torch.int64).random_(-(2**63), None).view(torch.int32)[:count] | 1


@draw_host_keys.register_fake
def _(like: Tensor, count: int) -> Tensor:
    return like.new_empty(count, dtype=torch.int32)


def draw_keys(count: int, device: torch.device) -> Tensor:
    """Draw the int32 keys that are combined to a mask; odd: even ones would halve the range of products."""
    return torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, device=device) | 1


def hash_keys(product: Tensor, scratch: Tensor | None = None) -> Tensor:
    """Turn products of two keys into uniform int32 of 16 bits, from -2^15 on, in place."""
    product.bitwise_xor_(torch.bitwise_right_shift(product, 15, out=scratch))
    return product.mul_(0x7FEB352D).bitwise_right_shift_(16)  # of Wellons's lowbias32


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero each element with ``probability`` and scale the rest up (Srivastava et al. 2014)."""
    if not training or probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    columns, dropped = x.shape[-1], round(probability * LEVELS)
    keys = draw_host_keys(x, x[..., 0].numel() + columns)
    mixed = hash_keys(keys[columns:].view(*x.shape[:-1], 1) * keys[:columns])
    # All bits set where it survives, ANDed with those of the factor: comparing and selecting take three times as long.
    survives = mixed.neg_().add_(dropped - LEVELS // 2 - 1).bitwise_right_shift_(31)
    factor = torch.tensor(LEVELS / (LEVELS - dropped)).view(torch.int32)
    return (x * (survives & factor).view(torch.float32)).to(x.dtype)


class Dropout(nn.Module):
    """:func:`dropout` as a module, on in training mode."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    @property
    def active_probability(self) -> float:
        """The probability, or 0 in eval mode."""
        return self.probability if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability, self.training)
