"""Products over a stream whose tokens belong to several tasks, each with weights of its own.

Tokens of a task are neighbours, so a group is a slice. A CPU multiplies slice by slice; on a GPU many small products
would wait for their launches, so it multiplies all groups at once, padded to the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Bounds = Sequence[tuple[int, int]]  # first token and one past the last of each group; together they cover the stream


class Weights(NamedTuple):
    """A linear map."""

    weight: Tensor  # [out, in]
    bias: Tensor  # [out]


def grouped_linear(x: Tensor, maps: Sequence[Weights], bounds: Bounds) -> Tensor:
    """[T, in] -> [T, out], each group by its own map."""
    if len(maps) == 1:
        return F.linear(x, *maps[0])
    return batched_linear(x, maps, bounds) if x.is_cuda else sliced_linear(x, maps, bounds)


def sliced_linear(x: Tensor, maps: Sequence[Weights], bounds: Bounds) -> Tensor:
    return torch.cat([F.linear(x[low:high], *each) for each, (low, high) in zip(maps, bounds, strict=True)])


def batched_linear(x: Tensor, maps: Sequence[Weights], bounds: Bounds) -> Tensor:
    longest = max(high - low for low, high in bounds)
    rows = torch.stack([F.pad(x[low:high], (0, 0, 0, longest - high + low)) for low, high in bounds])
    weights, biases = torch.stack([each.weight for each in maps]), torch.stack([each.bias for each in maps])
    results = torch.baddbmm(biases[:, None], rows, weights.transpose(1, 2))
    return torch.cat([result[: high - low] for result, (low, high) in zip(results, bounds, strict=True)])


def grouped_scale(x: Tensor, factors: Sequence[Tensor], bounds: Bounds) -> Tensor:
    """[T, n] -> [T, n], each group times its own row [n]."""
    if len(factors) == 1:
        return x * factors[0]
    return torch.cat([x[low:high] * each for each, (low, high) in zip(factors, bounds, strict=True)])


def grouped_norm(x: Tensor, norms: Sequence[Callable[[Tensor], Tensor]], bounds: Bounds) -> Tensor:
    """[T, n] -> [T, n], each group by its own LayerNorm."""
    if len(norms) == 1:
        return norms[0](x)
    return torch.cat([norm(x[low:high]) for norm, (low, high) in zip(norms, bounds, strict=True)])
