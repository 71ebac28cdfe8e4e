"""Attention on a CPU without padding: one sequence after the other, its scores in the cache and changed in place.

A padded batch computes scores of padding and walks through memory for each operation on them. The scores of one
sequence [heads, n, n] stay in the cache, and of the batch only what the backward pass needs is kept: the weights of
every sequence, one after the other, in one buffer. A weight is never negative, so its sign tells that dropout dropped
it; no mask is stored or converted::

    context, _ = attention(qkv, cu_seqlens, 0.1, keep=True)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from bert.model.dropout import LEVELS, draw_keys, hash_keys

SIGN = -(2**31)  # of a float32, as an int32


@custom_op("bert::blocked_attention", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def attention(qkv: Tensor, cu_seqlens: Tensor, dropout: float, keep: bool) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(head_size)) v within each sequence, with dropout of the weights.

    qkv [T, 3, heads, head_size] fp32, cu_seqlens [S + 1]. Returns the context [T, heads, head_size] and, where ``keep``
    says that a backward pass follows, the weights of all sequences, flat.
    """
    out = torch.empty(qkv.shape[0], *qkv.shape[2:])
    bounds, heads = cu_seqlens.tolist(), qkv.shape[2]
    sizes = [heads * (b - a) ** 2 for a, b in pairwise(bounds)]
    kept = torch.empty(sum(sizes) if keep else 0)
    scratch = torch.empty(3 if dropout > 0 else 1, max(sizes, default=0))
    longest = max((b - a for a, b in pairwise(bounds)), default=0)
    keys = draw_keys(len(out) + heads * longest, qkv.device) if dropout > 0 else None
    for first, last, at in _sequences(bounds, heads):
        q, k, v = qkv[first:last].permute(1, 2, 0, 3)
        shape = (heads, last - first, last - first)
        buffers = [buffer[: math.prod(shape)].view(shape) for buffer in scratch]
        weights = kept[at].view(shape) if keep else buffers[0]
        torch.softmax(_product(q, k.mT, q.shape[-1] ** -0.5, weights), -1, out=weights)
        if keys is not None:
            columns = keys[len(out) :].view(heads, 1, longest)[..., : last - first]
            weights = _drop(weights, dropout, (keys[first:last, None], columns), buffers[1:])
        out[first:last] = _product(weights, v, _rescale(dropout)).transpose(0, 1)
    return out, kept


@custom_op("bert::blocked_attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, qkv: Tensor, out: Tensor, kept: Tensor, cu_seqlens: Tensor, dropout: float
) -> Tensor:
    """Return the gradient of ``qkv``, given that of the context, what the forward call returned and took."""
    dqkv = torch.empty(qkv.shape)
    bounds, heads, scale = cu_seqlens.tolist(), qkv.shape[2], qkv.shape[-1] ** -0.5
    # The softmax takes sum(weights · their gradients) off each row of gradients, which equals out · grad.
    delta = torch.linalg.vecdot(out, grad).t().unsqueeze(-1)  # [heads, T, 1]
    scratch = torch.empty(2, heads * max((b - a for a, b in pairwise(bounds)), default=0) ** 2)
    for first, last, at in _sequences(bounds, heads):
        (q, k, v), (dq, dk, dv) = (each[first:last].permute(1, 2, 0, 3) for each in (qkv, dqkv))
        do, shape = grad[first:last].transpose(0, 1), (heads, last - first, last - first)
        weights = kept[at].view(shape)
        ds, positive = (buffer[: math.prod(shape)].view(shape) for buffer in scratch)
        if dropout > 0:
            torch.clamp_min(weights, 0, out=positive)
        dv.copy_(_product((positive if dropout > 0 else weights).mT, do, _rescale(dropout)))
        _product(do, v.mT, _rescale(dropout), ds)
        if dropout > 0:
            torch.ops.aten.threshold_backward.grad_input(ds, weights, 0, grad_input=ds)  # 0 where dropped
            weights = torch.abs(weights, out=positive)
        ds.sub_(delta[:, first:last]).mul_(weights)
        dq.copy_(_product(ds, k, scale))
        dk.copy_(_product(ds.mT, q, scale))
    return dqkv


def _sequences(bounds: list[int], heads: int) -> Iterator[tuple[int, int, slice]]:
    """Yield first and last token of each sequence, and where its weights lie in the flat buffer."""
    end = 0
    for first, last in pairwise(bounds):
        start, end = end, end + heads * (last - first) ** 2
        if last > first:
            yield first, last, slice(start, end)


def _product(left: Tensor, right: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """Return ``factor`` · left @ right; only into memory without gaps is it one call of the library for all heads."""
    out = left.new_empty(*left.shape[:2], right.shape[2]) if out is None else out
    return torch.baddbmm(out, left, right, beta=0, alpha=factor, out=out)


def _rescale(dropout: float) -> float:
    return LEVELS / (LEVELS - round(dropout * LEVELS))


def _drop(weights: Tensor, dropout: float, keys: tuple[Tensor, Tensor], buffers: list[Tensor]) -> Tensor:
    """Negate the weights to be dropped, in place, and return a copy with zeros there, one of two ``buffers``.

    ``keys`` are those of the queries [n, 1] and of heads and keys [heads, 1, n].
    """
    x, y = (buffer.view(torch.int32) for buffer in buffers)
    hash_keys(torch.mul(*keys, out=x), y).sub_(round(dropout * LEVELS) - LEVELS // 2)  # dropped where negative
    weights.view(torch.int32).bitwise_or_(x.bitwise_and_(SIGN))
    return torch.clamp_min(weights, 0, out=buffers[0])


@attention.register_fake
def _(qkv: Tensor, cu_seqlens: Tensor, dropout: float, keep: bool) -> tuple[Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size() if keep else 0
    return qkv.new_empty(qkv.shape[0], *qkv.shape[2:]), qkv.new_empty(size)


@attention_backward.register_fake
def _(grad: Tensor, qkv: Tensor, *others: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, cu_seqlens, ctx.dropout, _ = inputs
    ctx.save_for_backward(qkv, *output, cu_seqlens)
    ctx.set_materialize_grads(False)  # the weights have no gradient; zeros of their size would be written


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return attention_backward(grad, *ctx.saved_tensors, ctx.dropout), None, None, None


attention.register_autograd(_backward, setup_context=_save)
