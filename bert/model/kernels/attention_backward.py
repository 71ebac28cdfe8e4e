# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""The gradients of attention, in one kernel or in two, chosen by :func:`in_one_kernel`.

One kernel computes a score, its exponent and its mask once, and five products with them. A program holds all sums of
its head of a sequence: those of a block of keys in registers, those of the queries, which every block of keys adds to,
in rows of memory that no other program touches. Two kernels do scores, exponents and masks twice and seven products,
but divide a sequence among programs, which pays where there are few. Neither uses atomics.

All gradients of scores are held without their factor 1 / (1 - DROPOUT), so ``delta``, the sum of out · grad of a query,
takes the inverse.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from bert.model.kernels.blocks import Launch, on_device_of, store_tile, tile
from bert.model.kernels.random import keep

BACKWARD = Launch(64, 128, 8, 2)  # all gradients of one head of one sequence
QUERIES = Launch(64, 32, 4, 2)  # gradients of the queries
KEYS = Launch(32, 64, 4, 3)  # gradients of the keys and values
PROGRAMS = 264  # two per multiprocessor of an H200
LN2 = tl.constexpr(math.log(2))


def in_one_kernel(longest: int, programs: int, size: int) -> bool:
    """Choose the kernel for sequences of up to ``longest`` tokens, with ``programs`` heads of sequences in all."""
    return size <= 64 and (longest <= BACKWARD.columns or programs >= PROGRAMS)  # larger heads: too many registers


@triton.jit
def _delta(out, do, rows, limit, DROPOUT: tl.constexpr, STRIDE: tl.constexpr, SIZE: tl.constexpr):
    return tl.sum(tile(out, rows, limit, STRIDE, SIZE).to(tl.float32) * do.to(tl.float32), 1) * (1 - DROPOUT)


@triton.jit
def _score_gradients(q, k, v, do, sums, d, query_keys, key_keys, live, scale, DROPOUT: tl.constexpr):
    """Return the dropped weights and the gradients of scores, both [keys, queries] in the type of q."""
    scores = tl.where(live[:, None], tl.dot(k, tl.trans(q)), float("-inf"))
    weights = tl.exp2(scores * scale - sums[None, :])
    dw = tl.dot(v, tl.trans(do))
    dropped = weights
    if DROPOUT > 0:
        dropped = tl.where(keep(query_keys[None, :], key_keys[:, None], DROPOUT), weights, 0.0)
    # weights * (kept * dw - d), with one use of the mask: predicate registers are too few to keep it for two.
    return dropped.to(q.dtype), tl.fma(dropped, dw, weights * (-d)[None, :]).to(q.dtype)


@triton.jit(do_not_specialize=["tokens", "longest"])
def backward_kernel(
    qkv, cu_seqlens, out, grad, lse, delta, dq_sum, dqkv, keys, tokens, longest, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, DROPOUT: tl.constexpr, WHOLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """All gradients of one head of one sequence. With ``WHOLE`` its keys are one block.

    Else ``dq_sum`` [T, heads, size] fp32 holds the sums of the queries, and ``delta`` [heads, T] is kept from the first
    block of keys on.
    """
    head, sequence = tl.program_id(0), tl.program_id(1)
    start = tl.load(cu_seqlens + sequence).to(tl.int64)
    length = (tl.load(cu_seqlens + sequence + 1) - start).to(tl.int32)
    WIDTH: tl.constexpr = HEADS * SIZE
    offset = start * 3 * WIDTH + head * SIZE
    o_offset = start * WIDTH + head * SIZE
    for first in range(0, COLUMNS if WHOLE else length, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        k = tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
        v = tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
        key_keys = columns  # not read without dropout
        if DROPOUT > 0:
            key_keys = tl.load(keys + tokens + head * longest + columns, mask=columns < length, other=0)
        dk = tl.zeros((COLUMNS, SIZE), tl.float32)
        dv = tl.zeros((COLUMNS, SIZE), tl.float32)
        for at in range(0, length, ROWS):
            rows = at + tl.arange(0, ROWS)
            q = tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
            do = tile(grad + o_offset, rows, length, WIDTH, SIZE)
            statistics = head.to(tl.int64) * tokens + start + rows
            sums = tl.load(lse + statistics, mask=rows < length, other=0.0)
            if WHOLE:
                d = _delta(out + o_offset, do, rows, length, DROPOUT, WIDTH, SIZE)
            else:
                if first == 0:
                    d = _delta(out + o_offset, do, rows, length, DROPOUT, WIDTH, SIZE)
                    tl.store(delta + statistics, d, mask=rows < length)
                else:
                    d = tl.load(delta + statistics, mask=rows < length, other=0.0)
            query_keys = rows
            if DROPOUT > 0:
                query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
            dropped, ds = _score_gradients(q, k, v, do, sums, d, query_keys, key_keys, columns < length, scale, DROPOUT)
            dv = tl.dot(dropped, do, dv)
            dk = tl.dot(ds, q, dk)
            dq = tl.dot(tl.trans(ds), k)
            end = length  # of the rows whose gradient is complete
            if not WHOLE:
                at_sum = dq_sum + o_offset + rows[:, None] * WIDTH + tl.arange(0, SIZE)[None, :]
                begun = tl.where(tl.full((), first, tl.int32) > 0, length, 0)
                dq += tl.load(at_sum, mask=rows[:, None] < begun, other=0.0)
                end = tl.where(first + COLUMNS < length, 0, length)
                tl.store(at_sum, dq, mask=(rows[:, None] >= end) & (rows[:, None] < length))
            store_tile(dqkv + offset, dq * (scale * LN2 / (1 - DROPOUT)), rows, end, 3 * WIDTH, SIZE)
        store_tile(dqkv + offset + WIDTH, dk * (scale * LN2 / (1 - DROPOUT)), columns, length, 3 * WIDTH, SIZE)
        store_tile(dqkv + offset + 2 * WIDTH, dv / (1 - DROPOUT), columns, length, 3 * WIDTH, SIZE)
        if not WHOLE:
            tl.debug_barrier()  # what other threads of this program stored, the next block of keys loads


@triton.jit(do_not_specialize=["tokens", "longest"])
def queries_kernel(
    qkv, cu_seqlens, out, grad, lse, delta, dqkv, keys, tokens, longest, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of one block of queries of one head; leaves ``delta`` [heads, T] for the keys."""
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
    q = tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
    do = tile(grad + o_offset, rows, length, WIDTH, SIZE)
    statistics = head.to(tl.int64) * tokens + start + rows
    d = _delta(out + o_offset, do, rows, length, DROPOUT, WIDTH, SIZE)
    tl.store(delta + statistics, d, mask=rows < length)
    sums = tl.load(lse + statistics, mask=rows < length, other=0.0)
    if DROPOUT > 0:
        query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
    dq = tl.zeros((ROWS, SIZE), tl.float32)
    for at in range(0, length, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        k = tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
        v = tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
        scores = tl.where(columns[None, :] < length, tl.dot(q, tl.trans(k)), float("-inf"))
        weights = tl.exp2(scores * scale - sums[:, None])
        dw = tl.dot(do, tl.trans(v))
        dropped = weights
        if DROPOUT > 0:
            key_keys = tl.load(keys + tokens + head * longest + columns, mask=columns < length, other=0)
            dropped = tl.where(keep(query_keys[:, None], key_keys[None, :], DROPOUT), weights, 0.0)
        dq = tl.dot(tl.fma(dropped, dw, weights * (-d)[:, None]).to(k.dtype), k, dq)
    store_tile(dqkv + offset, dq * (scale * LN2 / (1 - DROPOUT)), rows, length, 3 * WIDTH, SIZE)


@triton.jit(do_not_specialize=["tokens", "longest"])
def keys_kernel(
    qkv, cu_seqlens, grad, lse, delta, dqkv, keys, tokens, longest, scale,
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
    k = tile(qkv + offset + WIDTH, columns, length, 3 * WIDTH, SIZE)
    v = tile(qkv + offset + 2 * WIDTH, columns, length, 3 * WIDTH, SIZE)
    key_keys = columns  # not read without dropout
    if DROPOUT > 0:
        key_keys = tl.load(keys + tokens + head * longest + columns, mask=columns < length, other=0)
    dk = tl.zeros((COLUMNS, SIZE), tl.float32)
    dv = tl.zeros((COLUMNS, SIZE), tl.float32)
    for at in range(0, length, ROWS):
        rows = at + tl.arange(0, ROWS)
        q = tile(qkv + offset, rows, length, 3 * WIDTH, SIZE)
        do = tile(grad + start * WIDTH + head * SIZE, rows, length, WIDTH, SIZE)
        statistics = head.to(tl.int64) * tokens + start + rows
        sums = tl.load(lse + statistics, mask=rows < length, other=0.0)
        d = tl.load(delta + statistics, mask=rows < length, other=0.0)
        query_keys = rows
        if DROPOUT > 0:
            query_keys = tl.load(keys + start + rows, mask=rows < length, other=0)
        dropped, ds = _score_gradients(q, k, v, do, sums, d, query_keys, key_keys, columns < length, scale, DROPOUT)
        dv = tl.dot(dropped, do, dv)
        dk = tl.dot(ds, q, dk)
    store_tile(dqkv + offset + WIDTH, dk * (scale * LN2 / (1 - DROPOUT)), columns, length, 3 * WIDTH, SIZE)
    store_tile(dqkv + offset + 2 * WIDTH, dv / (1 - DROPOUT), columns, length, 3 * WIDTH, SIZE)


def attention_gradient(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout: float,
    keys: Tensor | None,
) -> Tensor:
    """Return the gradient of ``qkv``, given that of the context ``out``, with what the forward pass got and left.

    ``lse`` [heads, T] is the base-2 logarithm of every query's sum.
    """
    tokens, _, heads, size = qkv.shape
    sequences, grad = cu_seqlens.numel() - 1, grad.contiguous()
    delta, dqkv = torch.empty_like(lse), torch.empty_like(qkv)
    numbers = (keys, tokens, max_seqlen, base_2_scale(size), heads, size, dropout)
    with on_device_of(qkv):
        if in_one_kernel(max_seqlen, heads * sequences, size):
            whole = max_seqlen <= BACKWARD.columns
            dq_sum = lse if whole else torch.empty_like(out, dtype=torch.float32)
            backward_kernel[heads, sequences](
                qkv, cu_seqlens, out, grad, lse, delta, dq_sum, dqkv, *numbers, whole, **BACKWARD.options()
            )
        else:
            queries_kernel[triton.cdiv(max_seqlen, QUERIES.rows), heads, sequences](
                qkv, cu_seqlens, out, grad, lse, delta, dqkv, *numbers, **QUERIES.options()
            )
            keys_kernel[triton.cdiv(max_seqlen, KEYS.columns), heads, sequences](
                qkv, cu_seqlens, grad, lse, delta, dqkv, *numbers, **KEYS.options()
            )
    return dqkv


def base_2_scale(size: int) -> float:
    """Return 1 / sqrt(head size) times the factor from base e to base 2, for which GPUs have an instruction."""
    return 1 / (math.sqrt(size) * math.log(2))
