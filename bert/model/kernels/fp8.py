# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""Kernels that write FP8, its transpose and its largest magnitude in the pass that computes the values.

FP8's products gain less than separate passes over their operands would cost. So the activation writes FP8 for the
product after it, and its backward kernel for the product before it; the normalisation does both, too. Transposes are
padded with zero columns to a multiple of 16. ``scale`` and ``amax`` [3] are those of a product, for its input, weight
and gradient (:mod:`bert.model.fp8`). Import it only where Triton is installed.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from bert.model.kernels.fused import _cumulative
from bert.model.kernels.random import keep

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
ALIGNMENT = 16
ROWS, COLUMNS, WARPS = 64, 64, 8  # of a tile of the activation and of plain quantisation
TILES = 4  # per program of the activation's backward pass, one below the other
NORM_ROWS, NORM_WARPS = 16, 16  # of a tile of the normalisation, which is as wide as a row


@triton.jit
def _round(x, scale, LARGEST: tl.constexpr):
    """Return x * scale, saturated; NaN for infinite x, so that an overflow stays visible."""
    scaled = tl.minimum(tl.maximum(x * scale, -LARGEST), LARGEST)
    return tl.where(tl.abs(x) < float("inf"), scaled, float("nan"))


@triton.jit
def _store(x, scale, q_ptr, qt_ptr, rows, columns, tokens, padded, WIDTH: tl.constexpr, LARGEST: tl.constexpr):
    """Store a tile in FP8 and transposed. In rows beyond the tokens x must be 0: these are the padding."""
    values = _round(x, scale, LARGEST).to(q_ptr.dtype.element_ty)
    inside = columns < WIDTH
    tl.store(q_ptr + rows[:, None] * WIDTH + columns[None, :], values, mask=(rows[:, None] < tokens) & inside[None, :])
    at = columns.to(tl.int64)[:, None] * padded + rows[None, :]
    tl.store(qt_ptr + at, tl.trans(values), mask=inside[:, None] & (rows[None, :] < padded))


@triton.jit
def _observe(x, amax_ptr):
    """Let the maximum take up a tile. It does not depend on the order, and few tiles need the atomic."""
    largest = tl.max(tl.max(tl.abs(x), 1), 0)
    if largest > tl.load(amax_ptr):
        tl.atomic_max(amax_ptr, largest, sem="relaxed")


@triton.jit(do_not_specialize=["tokens"])
def quantize_kernel(
    x_ptr, bias_ptr, scale_ptr, amax_ptr, q_ptr, qt_ptr, partial_ptr, tokens, padded,
    GELU: tl.constexpr, TANH: tl.constexpr, SUM: tl.constexpr, WIDTH: tl.constexpr, LARGEST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One tile of x, or of gelu(x + bias), [tokens, WIDTH] as q and as its transpose [WIDTH, padded].

    With ``SUM`` also its sum over rows in ``partial`` [programs, WIDTH].
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    live = (rows[:, None] < tokens) & (columns[None, :] < WIDTH)
    x = tl.load(x_ptr + rows[:, None] * WIDTH + columns[None, :], mask=live, other=0.0).to(tl.float32)
    if GELU:
        x += tl.load(bias_ptr + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)[None, :]
        c, _ = _cumulative(x, TANH)
        x = tl.where(live, x * c, 0.0)
    if SUM:
        tl.store(partial_ptr + tl.program_id(0) * WIDTH + columns, tl.sum(x, 0), mask=columns < WIDTH)
    _store(x, tl.load(scale_ptr), q_ptr, qt_ptr, rows, columns, tokens, padded, WIDTH, LARGEST)
    _observe(x, amax_ptr)


@triton.jit(do_not_specialize=["tokens"])
def gelu_backward_kernel(
    dy_ptr, x_ptr, bias_ptr, scale_ptr, amax_ptr, q_ptr, qt_ptr, partial_ptr, tokens, padded,
    WIDTH: tl.constexpr, TANH: tl.constexpr, LARGEST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """``TILES`` tiles of dx as q and its transpose, and their sum over rows in ``partial`` [programs, WIDTH]."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < WIDTH
    bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr)
    total = tl.zeros((COLUMNS,), tl.float32)
    first = tl.program_id(0).to(tl.int64) * ROWS * TILES
    for tile in range(TILES):
        rows = first + tile * ROWS + tl.arange(0, ROWS)
        live = (rows[:, None] < tokens) & inside[None, :]
        at = rows[:, None] * WIDTH + columns[None, :]
        x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32) + bias[None, :]
        dy = tl.load(dy_ptr + at, mask=live, other=0.0).to(tl.float32)
        c, slope = _cumulative(x, TANH)
        dx = dy * (c + x * slope)
        _store(dx, scale, q_ptr, qt_ptr, rows, columns, tokens, padded, WIDTH, LARGEST)
        _observe(dx, amax_ptr)
        total += tl.sum(dx, 0)
    tl.store(partial_ptr + tl.program_id(0) * WIDTH + columns, total, mask=inside)


@triton.jit
def _dropout(x, keys_ptr, rows, columns, tokens, WIDTH: tl.constexpr, DROPOUT: tl.constexpr):
    """Drop and scale the elements of a tile, the same in both directions."""
    if DROPOUT > 0:
        row_keys = tl.load(keys_ptr + rows, mask=rows < tokens, other=0)
        column_keys = tl.load(keys_ptr + tokens + columns, mask=columns < WIDTH, other=0)
        x = tl.where(keep(row_keys[:, None], column_keys[None, :], DROPOUT), x * (1 / (1 - DROPOUT)), 0.0)
    return x


@triton.jit(do_not_specialize=["tokens"])
def norm_kernel(
    x_ptr, bias_ptr, residual_ptr, weight_ptr, norm_bias_ptr, keys_ptr, scale_ptr, amax_ptr,
    y_ptr, q_ptr, qt_ptr, mean_ptr, rstd_ptr, tokens, padded, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr, LARGEST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A tile of y = LayerNorm(residual + dropout(x + bias)), also as q and its transpose; mean and 1 / deviation."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside, real = columns < WIDTH, rows < tokens
    live = real[:, None] & inside[None, :]
    at = rows[:, None] * WIDTH + columns[None, :]
    x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    s = tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
    s += _dropout(x, keys_ptr, rows, columns, tokens, WIDTH, DROPOUT)
    mean = tl.sum(s, 1) / WIDTH  # s is 0 beyond the width
    s = tl.where(live, s - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(s * s, 1) / WIDTH + eps)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    y = tl.where(live, s * rstd[:, None] * weight[None, :] + norm_bias[None, :], 0.0)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=live)
    tl.store(mean_ptr + rows, mean, mask=real)
    tl.store(rstd_ptr + rows, rstd, mask=real)
    _store(y, tl.load(scale_ptr), q_ptr, qt_ptr, rows, columns, tokens, padded, WIDTH, LARGEST)
    _observe(y, amax_ptr)


@triton.jit(do_not_specialize=["tokens"])
def norm_backward_kernel(
    dy_ptr, x_ptr, bias_ptr, residual_ptr, weight_ptr, keys_ptr, mean_ptr, rstd_ptr, scale_ptr, amax_ptr,
    q_ptr, qt_ptr, dresidual_ptr, partial_ptr, tokens, padded,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr, LARGEST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A tile of dx as q and its transpose, and of dresidual; ``partial`` [programs, 3, WIDTH] as without FP8."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside, real = columns < WIDTH, rows < tokens
    live = real[:, None] & inside[None, :]
    at = rows[:, None] * WIDTH + columns[None, :]
    x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    s = tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
    s += _dropout(x, keys_ptr, rows, columns, tokens, WIDTH, DROPOUT)
    mean, rstd = tl.load(mean_ptr + rows, mask=real, other=0.0), tl.load(rstd_ptr + rows, mask=real, other=0.0)
    normed = tl.where(live, (s - mean[:, None]) * rstd[:, None], 0.0)
    dy = tl.load(dy_ptr + at, mask=live, other=0.0).to(tl.float32)
    # Sums of one tile, since those of several would not fit a thread's registers.
    partial_ptr += tl.program_id(0) * 3 * WIDTH
    tl.store(partial_ptr + WIDTH + columns, tl.sum(dy * normed, 0), mask=inside)
    tl.store(partial_ptr + 2 * WIDTH + columns, tl.sum(dy, 0), mask=inside)
    g = dy * tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    along, across = tl.sum(g * normed, 1) / WIDTH, tl.sum(g, 1) / WIDTH
    ds = tl.where(live, (g - across[:, None] - normed * along[:, None]) * rstd[:, None], 0.0)
    tl.store(dresidual_ptr + at, ds.to(dresidual_ptr.dtype.element_ty), mask=live)
    dx = _dropout(ds, keys_ptr, rows, columns, tokens, WIDTH, DROPOUT)
    tl.store(partial_ptr + columns, tl.sum(dx, 0), mask=inside)
    _store(dx, tl.load(scale_ptr), q_ptr, qt_ptr, rows, columns, tokens, padded, WIDTH, LARGEST)
    _observe(dx, amax_ptr)


def _empty(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what x [T, N] becomes: FP8 [T, N] and [N, T], the latter padded."""
    padded = (x.shape[0] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return x.new_empty(x.shape, dtype=dtype), x.new_empty((x.shape[1], padded), dtype=dtype)


def quantize(
    x: Tensor, scale: Tensor, amax: Tensor, which: int, q: Tensor, q_t: Tensor, total: Tensor,
    bias: Tensor | None = None, tanh: bool = False,
) -> None:  # fmt: skip
    """:func:`bert.model.fp8.quantize` x or, with a bias, gelu(x + bias); ``total`` [N] takes its sum if it has room."""
    x = x.contiguous()
    (tokens, width), padded, sums = x.shape, q_t.shape[1], total.numel() > 0
    programs = triton.cdiv(padded, ROWS)
    partial = torch.empty(programs if sums else 0, width, device=x.device)
    with torch.cuda.device_of(x):
        quantize_kernel[programs, triton.cdiv(width, COLUMNS)](
            x, bias, scale[which], amax[which], q, q_t, partial, tokens, padded, bias is not None, tanh, sums,
            width, torch.finfo(q.dtype).max, ROWS, COLUMNS, num_warps=WARPS,
        )  # fmt: skip
    if sums:
        torch.sum(partial, 0, out=total)


@custom_op("bert::gelu_quantize", mutates_args=("amax",))
def gelu_quantize(x: Tensor, bias: Tensor, tanh: bool, scale: Tensor, amax: Tensor) -> tuple[Tensor, Tensor]:
    """gelu(x + bias) as input of the product after it: [T, F], [F] -> E4M3 [T, F] and its transpose."""
    q, q_t = _empty(x, E4M3)
    quantize(x, scale, amax, 0, q, q_t, x.new_empty(0), bias, tanh)
    return q, q_t


@custom_op("bert::gelu_backward_quantize", mutates_args=("amax",))
def gelu_backward_quantize(
    dy: Tensor, x: Tensor, bias: Tensor, tanh: bool, scale: Tensor, amax: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of x for the product before it, E5M2 and its transpose, and the gradient of bias."""
    dy, x, (q, q_t) = dy.contiguous(), x.contiguous(), _empty(x, E5M2)
    (tokens, width), padded = x.shape, q_t.shape[1]
    programs = triton.cdiv(padded, ROWS * TILES)
    partial = torch.empty(programs, width, device=x.device)
    with torch.cuda.device_of(x):
        gelu_backward_kernel[programs, triton.cdiv(width, COLUMNS)](
            dy, x, bias, scale[2], amax[2], q, q_t, partial, tokens, padded,
            width, tanh, torch.finfo(E5M2).max, ROWS, COLUMNS, TILES, num_warps=WARPS,
        )  # fmt: skip
    return q, q_t, partial.sum(0).to(bias.dtype)


@custom_op("bert::norm_quantize", mutates_args=("amax",))
def norm_quantize(
    x: Tensor, bias: Tensor, residual: Tensor, weight: Tensor, norm_bias: Tensor, keys: Tensor | None, dropout: float,
    eps: float, scale: Tensor, amax: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """What :func:`bert.model.kernels.fused.bias_dropout_add_norm` does, with FP8 for the product after it.

    Returns y [T, H] in the type of x, its E4M3 and the transpose of that, mean and 1 / deviation [T].
    """
    x, residual, (q, q_t) = x.contiguous(), residual.contiguous(), _empty(x, E4M3)
    (tokens, width), padded, y = x.shape, q_t.shape[1], torch.empty_like(x)
    mean, rstd = torch.empty(tokens, device=x.device), torch.empty(tokens, device=x.device)
    with torch.cuda.device_of(x):
        norm_kernel[(padded // NORM_ROWS,)](
            x, bias, residual, weight, norm_bias, keys, scale[0], amax[0], y, q, q_t, mean, rstd, tokens, padded, eps,
            width, triton.next_power_of_2(width), dropout, torch.finfo(E4M3).max, NORM_ROWS, num_warps=NORM_WARPS,
        )  # fmt: skip
    return y, q, q_t, mean, rstd


@custom_op("bert::norm_backward_quantize", mutates_args=("amax",))
def norm_backward_quantize(
    dy: Tensor, x: Tensor, bias: Tensor, residual: Tensor, weight: Tensor, keys: Tensor | None, mean: Tensor,
    rstd: Tensor, dropout: float, scale: Tensor, amax: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradient of x, E5M2 and its transpose, that of residual, and [3, H] of bias, weight and norm_bias."""
    dy, x, residual, (q, q_t) = dy.contiguous(), x.contiguous(), residual.contiguous(), _empty(x, E5M2)
    (tokens, width), padded, dresidual = x.shape, q_t.shape[1], torch.empty_like(residual)
    programs = padded // NORM_ROWS
    partial = torch.empty(programs, 3, width, device=x.device)
    with torch.cuda.device_of(x):
        norm_backward_kernel[(programs,)](
            dy, x, bias, residual, weight, keys, mean, rstd, scale[2], amax[2], q, q_t, dresidual, partial,
            tokens, padded, width, triton.next_power_of_2(width), dropout, torch.finfo(E5M2).max, NORM_ROWS,
            num_warps=NORM_WARPS,
        )  # fmt: skip
    return q, q_t, dresidual, partial.sum(0)


@gelu_quantize.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return _empty(x, E4M3)


@gelu_backward_quantize.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return *_empty(x, E5M2), bias.new_empty(bias.shape)


@norm_quantize.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    mean, rstd = (x.new_empty(x.shape[0], dtype=torch.float32) for _ in range(2))
    return x.new_empty(x.shape), *_empty(x, E4M3), mean, rstd


@norm_backward_quantize.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor, residual: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *_empty(x, E5M2), residual.new_empty(residual.shape), x.new_empty((3, x.shape[1]), dtype=torch.float32)
