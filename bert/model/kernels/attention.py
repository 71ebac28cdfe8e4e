# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""Attention over a token stream in Triton kernels made for BERT: packed q, k, v, short sequences, cheap dropout.

FlashAttention's scheme (Dao 2023): blocks of queries go over blocks of keys with a running softmax, and the backward
pass recomputes the scores. Three things differ from the library's kernel: q, k and v stay where the product that made
them left them, in one [T, 3, heads, head_size], and so do their gradients; there are no atomics, so gradients are the
same bits every time; and a dropout mask costs six instructions per element, because its two random keys, one per query
and one per head and key, are drawn outside and only combined here::

    context, _ = attention(qkv, cu_seqlens, max_seqlen, 0.1, keys)

The time goes into the work on each score, not into the products: hence small blocks, many of which fit on a
multiprocessor, and factors applied to results instead of scores. Import it only where Triton is installed.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from bert.model.kernels.random import keep


class Launch(NamedTuple):
    """How a kernel divides its work; a block has ``rows`` queries and ``columns`` keys."""

    rows: int
    columns: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        return {"ROWS": self.rows, "COLUMNS": self.columns, "num_warps": self.warps, "num_stages": self.stages}


FORWARD = Launch(128, 64, 8, 3)
QUERIES = Launch(64, 32, 4, 2)  # gradients of the queries
KEYS = Launch(32, 64, 4, 3)  # gradients of the keys and values

LN2 = tl.constexpr(math.log(2))


@triton.jit
def _tile(base, rows, limit, STRIDE: tl.constexpr, SIZE: tl.constexpr):
    """Load [rows, SIZE] from ``base``, where rows are ``STRIDE`` apart; zeros from row ``limit`` on."""
    return tl.load(base + rows[:, None] * STRIDE + tl.arange(0, SIZE)[None, :], mask=rows[:, None] < limit, other=0.0)


@triton.jit
def _store_tile(base, tile, rows, limit, STRIDE: tl.constexpr, SIZE: tl.constexpr):
    at = base + rows[:, None] * STRIDE + tl.arange(0, SIZE)[None, :]
    tl.store(at, tile.to(base.dtype.element_ty), mask=rows[:, None] < limit)


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
    q = _tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
    if DROPOUT > 0:
        query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    context = tl.zeros((ROWS, SIZE), tl.float32)
    for at in range(0, length, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        k = _tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
        v = _tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
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
    _store_tile(out + start * WIDTH + head * SIZE, context, rows, length, WIDTH, SIZE)
    tl.store(lse + head.to(tl.int64) * tokens + start + rows, largest + tl.log2(total), mask=rows < length)


@triton.jit(do_not_specialize=["tokens", "longest"])
def queries_kernel(
    qkv, cu_seqlens, out, grad, lse, delta, dqkv, keys, tokens, longest, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of one block of queries of one head; leaves ``delta`` [heads, T], sum of out · grad, for the keys."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(cu_seqlens + sequence).to(tl.int64)
    length = (tl.load(cu_seqlens + sequence + 1) - start).to(tl.int32)
    first = tl.program_id(0) * ROWS
    if first >= length:
        return
    WIDTH: tl.constexpr = HEADS * SIZE
    rows = first + tl.arange(0, ROWS)
    offset = start * 3 * WIDTH + head * SIZE
    o_offset = start * WIDTH + head * SIZE
    q = _tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
    do = _tile(grad + o_offset, rows, length, WIDTH, SIZE)
    o = _tile(out + o_offset, rows, length, WIDTH, SIZE)
    statistics = head.to(tl.int64) * tokens + start + rows
    # All gradients of scores are held without their factor 1 / (1 - DROPOUT), so delta takes the inverse.
    d = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1) * (1 - DROPOUT)
    tl.store(delta + statistics, d, mask=rows < length)
    sums = tl.load(lse + statistics, mask=rows < length, other=0.0)
    if DROPOUT > 0:
        query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
    dq = tl.zeros((ROWS, SIZE), tl.float32)
    for at in range(0, length, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        k = _tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
        v = _tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
        scores = tl.where(columns[None, :] < length, tl.dot(q, tl.trans(k)), float("-inf"))
        weights = tl.exp2(scores * scale - sums[:, None])
        dw = tl.dot(do, tl.trans(v))
        if DROPOUT > 0:
            key_keys = tl.load(keys + tokens + head * longest + columns, mask=columns < length, other=0)
            kept = keep(query_keys[:, None], key_keys[None, :], DROPOUT)
            dw = tl.where(kept, dw, 0.0)
        dq = tl.dot((weights * (dw - d[:, None])).to(k.dtype), k, dq)
    _store_tile(dqkv + offset, dq * (scale * LN2 / (1 - DROPOUT)), rows, length, 3 * WIDTH, SIZE)


@triton.jit(do_not_specialize=["tokens", "longest"])
def keys_kernel(
    qkv, cu_seqlens, out, grad, lse, delta, dqkv, keys, tokens, longest, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of keys and values of one head. Scores are held transposed, [keys, queries]."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(cu_seqlens + sequence).to(tl.int64)
    length = (tl.load(cu_seqlens + sequence + 1) - start).to(tl.int32)
    first = tl.program_id(0) * COLUMNS
    if first >= length:
        return
    WIDTH: tl.constexpr = HEADS * SIZE
    columns = first + tl.arange(0, COLUMNS)
    offset = start * 3 * WIDTH + head * SIZE
    o_offset = start * WIDTH + head * SIZE
    k = _tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
    v = _tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
    if DROPOUT > 0:
        key_keys = tl.load(keys + tokens + head * longest + columns, mask=columns < length, other=0)
    dk = tl.zeros((COLUMNS, SIZE), tl.float32)
    dv = tl.zeros((COLUMNS, SIZE), tl.float32)
    for at in range(0, length, ROWS):
        rows = at + tl.arange(0, ROWS)
        q = _tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
        do = _tile(grad + o_offset, rows, length, WIDTH, SIZE)
        statistics = head.to(tl.int64) * tokens + start + rows
        sums = tl.load(lse + statistics, mask=rows < length, other=0.0)
        d = tl.load(delta + statistics, mask=rows < length, other=0.0)
        scores = tl.where(columns[:, None] < length, tl.dot(k, tl.trans(q)), float("-inf"))
        weights = tl.exp2(scores * scale - sums[None, :])
        dw = tl.dot(v, tl.trans(do))
        dropped = weights
        if DROPOUT > 0:
            query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
            kept = keep(query_keys[None, :], key_keys[:, None], DROPOUT)
            dropped = tl.where(kept, weights, 0.0)
            dw = tl.where(kept, dw, 0.0)
        dv = tl.dot(dropped.to(do.dtype), do, dv)
        dk = tl.dot((weights * (dw - d[None, :])).to(q.dtype), q, dk)
    _store_tile(dqkv + offset + WIDTH, dk * (scale * LN2 / (1 - DROPOUT)), columns, length, 3 * WIDTH, SIZE)
    _store_tile(dqkv + offset + 2 * WIDTH, dv / (1 - DROPOUT), columns, length, 3 * WIDTH, SIZE)


@custom_op("bert::attention", mutates_args=())
def attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout: float,
    keys: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(head_size)) v within each sequence, with dropout of the weights.

    qkv [T, 3, heads, head_size], head_size a power of two, at least 16; cu_seqlens [S + 1] int32. ``keys`` [T + heads ·
    max_seqlen], odd random int32, one per query and one per head and key position, decide the mask;
    without dropout they may be None. Returns the context [T, heads, head_size] and, for the backward pass, the base-2
    logarithm of every query's sum [heads, T] fp32.
    """
    tokens, _, heads, size = qkv.shape
    out = qkv.new_empty(tokens, heads, size)
    lse = torch.empty(heads, tokens, device=qkv.device)
    blocks = (triton.cdiv(max_seqlen, FORWARD.rows), heads, cu_seqlens.numel() - 1)
    arguments = (qkv.contiguous(), cu_seqlens, out, lse, keys, tokens, max_seqlen, _scale(size), heads, size, dropout)
    with torch.cuda.device_of(qkv):
        forward_kernel[blocks](*arguments, **FORWARD.options())
    return out, lse


@custom_op("bert::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout: float,
    keys: Tensor | None,
) -> Tensor:
    """Return the gradient of ``qkv``, given that of the context; the other arguments are those of the forward call."""
    tokens, _, heads, size = qkv.shape
    dqkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    tensors = (qkv.contiguous(), cu_seqlens, out, grad.contiguous(), lse, torch.empty_like(lse), dqkv)
    arguments = (*tensors, keys, tokens, max_seqlen, _scale(size), heads, size, dropout)
    sequences = cu_seqlens.numel() - 1
    with torch.cuda.device_of(qkv):
        for kernel, launch, block in ((queries_kernel, QUERIES, QUERIES.rows), (keys_kernel, KEYS, KEYS.columns)):
            kernel[triton.cdiv(max_seqlen, block), heads, sequences](*arguments, **launch.options())
    return dqkv


@attention.register_fake
def _(qkv: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    tokens, _, heads, size = qkv.shape
    return qkv.new_empty(tokens, heads, size), qkv.new_empty(heads, tokens, dtype=torch.float32)


@attention_backward.register_fake
def _(grad: Tensor, qkv: Tensor, *others: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, cu_seqlens, ctx.max_seqlen, ctx.dropout, keys = inputs
    ctx.save_for_backward(qkv, *output, cu_seqlens, keys)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *forward, keys = ctx.saved_tensors
    dqkv = attention_backward(grad, *forward, ctx.max_seqlen, ctx.dropout, keys)
    return dqkv, None, None, None, None


attention.register_autograd(_backward, setup_context=_save)


def _scale(size: int) -> float:
    """Return 1 / sqrt(head size) times the factor from base e to base 2, for which GPUs have an instruction."""
    return 1 / (math.sqrt(size) * math.log(2))
