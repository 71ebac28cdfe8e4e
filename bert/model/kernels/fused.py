# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
"""The operations between a layer's matrix products, each as one Triton kernel and one backward kernel.

Between products a GPU waits for memory, so every value is read and written once, with fp32 arithmetic in between. The
bias of the preceding product is added here: that costs nothing, and the backward kernel computes its gradient, a sum
over all tokens, in passing. Sums over tokens combine one partial sum per program, without atomics, so gradients are the
same bits every time::

    y = bias_gelu(F.linear(hidden, weight), bias, tanh=False)
    y = bias_dropout_add_norm(F.linear(hidden, weight), bias, residual, gamma, beta, keys, 0.1, 1e-12)

Import it only where Triton is installed.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bert.model.kernels.blocks import on_device_of
from bert.model.kernels.random import keep

# Per program: 4 warps with 8 columns a thread, one 16-byte access in half precision.
WARPS = 4
COLUMNS = 1024  # of a tile of the activation
ROWS = 2  # of a tile of the activation
TILES = 32  # per program of the activation's backward pass, one below the other
# A program of the normalisation goes over its share of the rows, two at a time; the next four are on their way to
# shared memory meanwhile. As many programs as run at once on an H200, for 80 and 128 registers a thread.
NORM_ROWS = 2
NORM_PROGRAMS = 132 * 6
NORM_BACKWARD_PROGRAMS = 132 * 4


@triton.jit
def _cumulative(x, TANH: tl.constexpr):
    """Return c and dc/dx of gelu(x) = x · c(x)."""
    if TANH:  # 0.5 (1 + tanh(u)) = sigmoid(2u), with Hendrycks and Gimpel's u
        u = 1.5957691216057308 * (x + 0.044715 * x * x * x)
        c = 1 / (1 + tl.exp(-u))
        return c, c * (1 - c) * 1.5957691216057308 * (1 + 0.134145 * x * x)
    # The normal distribution by Abramowitz and Stegun 7.1.26, to 0.8e-7; libdevice's erf would take longer than memory.
    t = 1 / (1 + 0.23164189 * tl.abs(x))  # 0.3275911 / sqrt(2)
    polynomial = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))))
    bell = tl.exp(-0.5 * x * x)
    tail = polynomial * bell
    return tl.where(x < 0, tail, 1 - tail), bell * 0.3989422804014327


@triton.jit(do_not_specialize=["tokens"])
def gelu_kernel(
    x_ptr, bias_ptr, y_ptr, tokens, WIDTH: tl.constexpr, TANH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """One tile of y = gelu(x + bias)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    live = (rows[:, None] < tokens) & (columns[None, :] < WIDTH)
    at = rows[:, None] * WIDTH + columns[None, :]
    bias = tl.load(bias_ptr + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32) + bias[None, :]
    c, _ = _cumulative(x, TANH)
    tl.store(y_ptr + at, (x * c).to(y_ptr.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["tokens"])
def gelu_backward_kernel(
    dy_ptr, x_ptr, bias_ptr, dx_ptr, partial_ptr, tokens,
    WIDTH: tl.constexpr, TANH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """``TILES`` tiles of dx, and their sum over rows in ``partial`` [programs, WIDTH]."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < WIDTH
    bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
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
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=live)
        total += tl.sum(dx, 0)
    tl.store(partial_ptr + tl.program_id(0) * WIDTH + columns, total, mask=inside)


@triton.jit
def _dropout(x, row_keys, column_keys, DROPOUT: tl.constexpr):
    """Drop and scale, the same in both directions: an element whose x is zeroed has its gradient zeroed."""
    if DROPOUT > 0:
        x = tl.where(keep(row_keys[:, None], column_keys[None, :], DROPOUT), x * (1 / (1 - DROPOUT)), 0.0)
    return x


@triton.jit(do_not_specialize=["tokens"])
def norm_kernel(
    x_ptr, bias_ptr, residual_ptr, weight_ptr, norm_bias_ptr, keys_ptr, y_ptr, mean_ptr, rstd_ptr, tokens, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Each program's share of the rows of y = LayerNorm(residual + dropout(x + bias)), their mean and 1 / deviation."""
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    column_keys = columns  # not read without dropout
    if DROPOUT > 0:
        column_keys = tl.load(keys_ptr + tokens + columns, mask=inside, other=0)
    for first in tl.range(tl.program_id(0) * ROWS, tokens, tl.num_programs(0) * ROWS, num_stages=3):
        rows = first + tl.arange(0, ROWS)
        live = (rows[:, None] < tokens) & inside[None, :]
        at = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]  # offsets may pass 2^31
        x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
        residual = tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
        row_keys = rows
        if DROPOUT > 0:
            row_keys = tl.load(keys_ptr + rows, mask=rows < tokens, other=0)
        s = residual + _dropout(x + bias[None, :], row_keys, column_keys, DROPOUT)  # 0 beyond the width
        mean = tl.sum(s, 1) / WIDTH
        centred = tl.where(inside[None, :], s - mean[:, None], 0.0)
        rstd = 1 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + eps)
        y = centred * rstd[:, None] * weight[None, :] + norm_bias[None, :]
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=live)
        tl.store(mean_ptr + rows, mean, mask=rows < tokens)
        tl.store(rstd_ptr + rows, rstd, mask=rows < tokens)


@triton.jit(do_not_specialize=["tokens"])
def norm_backward_kernel(
    dy_ptr, x_ptr, bias_ptr, residual_ptr, weight_ptr, keys_ptr, mean_ptr, rstd_ptr, dx_ptr, dresidual_ptr, partial_ptr,
    tokens, WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Each program's share of dx and dresidual; ``partial`` [programs, 3, WIDTH] for bias, weight and norm_bias."""
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    column_keys = columns  # not read without dropout
    if DROPOUT > 0:
        column_keys = tl.load(keys_ptr + tokens + columns, mask=inside, other=0)
    dbias = tl.zeros((BLOCK,), tl.float32)
    dweight = tl.zeros((BLOCK,), tl.float32)
    dnorm_bias = tl.zeros((BLOCK,), tl.float32)
    for first in tl.range(tl.program_id(0) * ROWS, tokens, tl.num_programs(0) * ROWS, num_stages=3):
        rows = first + tl.arange(0, ROWS)
        live = (rows[:, None] < tokens) & inside[None, :]
        at = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]  # offsets may pass 2^31
        dy = tl.load(dy_ptr + at, mask=live, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
        residual = tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + rows, mask=rows < tokens, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=rows < tokens, other=0.0)
        row_keys = rows
        if DROPOUT > 0:
            row_keys = tl.load(keys_ptr + rows, mask=rows < tokens, other=0)
        s = residual + _dropout(x + bias[None, :], row_keys, column_keys, DROPOUT)
        normed = tl.where(inside[None, :], (s - mean[:, None]) * rstd[:, None], 0.0)
        g = dy * weight[None, :]
        slope = tl.sum(g * normed, 1) / WIDTH
        ds = (g - (tl.sum(g, 1) / WIDTH)[:, None] - normed * slope[:, None]) * rstd[:, None]
        dx = _dropout(ds, row_keys, column_keys, DROPOUT)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=live)
        tl.store(dresidual_ptr + at, ds.to(dresidual_ptr.dtype.element_ty), mask=live)
        dbias += tl.sum(dx, 0)
        dweight += tl.sum(dy * normed, 0)
        dnorm_bias += tl.sum(dy, 0)
    partial_ptr += tl.program_id(0) * 3 * WIDTH
    tl.store(partial_ptr + columns, dbias, mask=inside)
    tl.store(partial_ptr + WIDTH + columns, dweight, mask=inside)
    tl.store(partial_ptr + 2 * WIDTH + columns, dnorm_bias, mask=inside)


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
        x = x.contiguous()
        y, (tokens, width) = torch.empty_like(x), x.shape
        if tokens:
            with on_device_of(x):
                gelu_kernel[triton.cdiv(tokens, ROWS), triton.cdiv(width, COLUMNS)](
                    x, bias, y, tokens, width, tanh, ROWS, COLUMNS, num_warps=WARPS
                )
        ctx.save_for_backward(x, bias)
        ctx.tanh = tanh
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, bias), dy = ctx.saved_tensors, grads[0].contiguous()
        dx, (tokens, width) = torch.empty_like(x), x.shape
        programs = triton.cdiv(tokens, ROWS * TILES)
        partial = torch.empty(programs, width, device=x.device)
        if tokens:
            with on_device_of(x):
                gelu_backward_kernel[programs, triton.cdiv(width, COLUMNS)](
                    dy, x, bias, dx, partial, tokens, width, ctx.tanh, ROWS, COLUMNS, TILES, num_warps=WARPS
                )
        return dx, partial.sum(0).to(bias.dtype), None


class _BiasDropoutAddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        weight: Tensor,
        norm_bias: Tensor,
        keys: Tensor | None,
        dropout: float,
        eps: float,
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        y, (tokens, width) = torch.empty_like(x), x.shape
        mean, rstd = torch.empty(tokens, device=x.device), torch.empty(tokens, device=x.device)
        if tokens:
            with on_device_of(x):
                norm_kernel[(min(NORM_PROGRAMS, triton.cdiv(tokens, NORM_ROWS)),)](
                    x, bias, residual, weight, norm_bias, keys, y, mean, rstd, tokens, eps,
                    width, power_of_2(width), dropout, NORM_ROWS, num_warps=WARPS,
                )  # fmt: skip
        ctx.save_for_backward(x, bias, residual, weight, keys, mean, rstd)
        ctx.dropout = dropout
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, bias, residual, weight, keys, mean, rstd), dy = ctx.saved_tensors, grads[0].contiguous()
        dx, dresidual, (tokens, width) = torch.empty_like(x), torch.empty_like(residual), x.shape
        programs = min(NORM_BACKWARD_PROGRAMS, triton.cdiv(tokens, NORM_ROWS))
        partial = torch.empty(programs, 3, width, device=x.device)
        if tokens:
            with on_device_of(x):
                norm_backward_kernel[(programs,)](
                    dy, x, bias, residual, weight, keys, mean, rstd, dx, dresidual, partial, tokens,
                    width, power_of_2(width), ctx.dropout, NORM_ROWS, num_warps=WARPS,
                )  # fmt: skip
        dbias, dweight, dnorm_bias = partial.sum(0).unbind()
        vectors = dweight.to(weight.dtype), dnorm_bias.to(weight.dtype)
        return dx, dbias.to(bias.dtype), dresidual, *vectors, None, None, None


def bias_gelu(x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    """gelu(x + bias), exact or in the tanh form: [T, F], [F] -> [T, F] in the type of x."""
    return _BiasGelu.apply(x, bias, tanh)  # type: ignore[return-value]


def bias_dropout_add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    norm_bias: Tensor,
    keys: Tensor | None,
    dropout: float,
    eps: float,
) -> Tensor:
    """LayerNorm(residual + dropout(x + bias)): x and residual [T, H] -> [T, H] in the type of x.

    ``keys`` [T + H], odd random int32, one per row and one per column, decide the mask; without dropout they may be
    None.
    """
    arguments = (x, bias, residual, weight, norm_bias, keys, dropout, eps)
    return _BiasDropoutAddNorm.apply(*arguments)  # type: ignore[return-value]


def power_of_2(width: int) -> int:
    """Return the least power of two that is not below ``width``."""
    return 1 << (width - 1).bit_length()
