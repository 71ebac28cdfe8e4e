"""Dropout that costs little on a CPU: 16 random bits per element instead of a float.

A 64-bit draw of torch's generator decides about four elements, which makes dropout two to three times cheaper there
than ``F.dropout``, compiled or not. The probability is rounded to 1/65536 and the scale follows the rounded value, so
the expectation is exact::

    hidden = Dropout(0.1)(hidden)          # a no-op in eval mode
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.library import custom_op

LEVELS = 1 << 16


# A custom operator, which torch.compile leaves alone: it never merges equal calls, never repeats one in the backward
# pass, and draws from the same generator as without compilation.
@custom_op("bert::random_int16", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def random_int16(like: Tensor) -> Tensor:
    """Return uniform int16 of the shape of ``like``, from torch's CPU generator."""
    draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[: like.numel()].view(like.shape)


@random_int16.register_fake
def _(like: Tensor) -> Tensor:
    return like.new_empty(like.shape, dtype=torch.int16)


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero each element with ``probability`` and scale the rest up (Srivastava et al. 2014)."""
    if not training or probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    dropped = round(probability * LEVELS)
    keep = random_int16(x) >= dropped - LEVELS // 2
    return torch.where(keep, x * (LEVELS / (LEVELS - dropped)), 0)


def draw_keys(count: int, device: torch.device) -> Tensor:
    """Draw the int32 keys that Triton kernels combine to a mask; odd: even ones would halve the range of products."""
    return torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, device=device) | 1


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
