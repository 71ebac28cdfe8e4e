# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""Attention over a token stream in Triton kernels made for BERT: packed q, k, v, short sequences, cheap dropout.

FlashAttention's scheme (Dao 2023): blocks of queries go over blocks of keys with a running softmax, and the backward
pass recomputes the scores. Three things differ from the library's kernel: q, k and v stay where the product that made
them left them, in one [T, 3, heads, head_size], and so do their gradients; there are no atomics, so gradients are the
same bits every time; and a dropout mask costs six instructions per element, because its two random keys, one per query
and one per head and key, are drawn outside and only combined here::

    context = attention(qkv, cu_seqlens, max_seqlen, 0.1, keys)

The time goes into the work on each score, not into the products: hence small blocks, many of which fit on a
multiprocessor, and factors applied to results instead of scores. Import it only where Triton is installed.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bert.model.kernels.attention_backward import attention_gradient, base_2_scale
from bert.model.kernels.blocks import Launch, on_device_of, store_tile, tile
from bert.model.kernels.random import keep

FORWARD = Launch(128, 64, 8, 3)


@triton.jit(do_not_specialize=["tokens", "longest"])
def forward_kernel(
    qkv, cu_seqlens, out, lse, keys, tokens, longest, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: ``out`` [T, heads, size], and ``lse`` [heads, T], base-2 log of the sums."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(cu_seqlens + sequence).to(tl.int64)
    length = (tl.load(cu_seqlens + sequence + 1) - start).to(tl.int32)
    first = tl.program_id(0) * ROWS
    if first >= length:
        return
    WIDTH: tl.constexpr = HEADS * SIZE
    rows = first + tl.arange(0, ROWS)
    offset = start * 3 * WIDTH + head * SIZE
    q = tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
    if DROPOUT > 0:
        query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    context = tl.zeros((ROWS, SIZE), tl.float32)
    for at in range(0, length, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        k = tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
        v = tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
        scores = tl.where(columns[None, :] < length, tl.dot(q, tl.trans(k)), float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT > 0:
            key_keys = tl.load(keys + tokens + head * longest + columns, mask=columns < length, other=0)
            kept = keep(query_keys[:, None], key_keys[None, :], DROPOUT)
            weights = tl.where(kept, weights, 0.0)
        context = tl.dot(weights.to(v.dtype), v, context * shrink[:, None])
        largest = larger
    context /= (total * (1 - DROPOUT))[:, None]
    store_tile(out + start * WIDTH + head * SIZE, context, rows, length, WIDTH, SIZE)
    tl.store(lse + head.to(tl.int64) * tokens + start + rows, largest + tl.log2(total), mask=rows < length)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout: float, keys: Tensor | None
    ) -> Tensor:
        qkv, (tokens, _, heads, size) = qkv.contiguous(), qkv.shape
        out = qkv.new_empty(tokens, heads, size)
        lse = qkv.new_empty(heads, tokens, dtype=torch.float32)
        blocks = (triton.cdiv(max_seqlen, FORWARD.rows), heads, cu_seqlens.numel() - 1)
        with on_device_of(qkv):
            forward_kernel[blocks](
                qkv, cu_seqlens, out, lse, keys, tokens, max_seqlen, base_2_scale(size),
                HEADS=heads, SIZE=size, DROPOUT=dropout, **FORWARD.options(),
            )  # fmt: skip
        ctx.save_for_backward(qkv, out, lse, cu_seqlens, keys)
        ctx.max_seqlen, ctx.dropout = max_seqlen, dropout
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *forward, keys = ctx.saved_tensors
        return attention_gradient(grads[0], *forward, ctx.max_seqlen, ctx.dropout, keys), None, None, None, None


def attention(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout: float, keys: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(head_size)) v within each sequence, with dropout of the weights.

    qkv [T, 3, heads, head_size], head_size a power of two, at least 16; cu_seqlens [S + 1] int32. ``keys`` [T + heads ·
    max_seqlen], odd random int32, one per query and one per head and key position, decide the mask; without dropout
    they may be None. Returns the context [T, heads, head_size].
    """
    return _Attention.apply(qkv, cu_seqlens, max_seqlen, dropout, keys)  # type: ignore[return-value]
