# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""The operations between a layer's matrix products, each as one Triton kernel and one backward kernel.

Between products a GPU waits for memory, so every value is read and written once, with fp32 arithmetic in between. The
bias of the preceding product is added here: that costs nothing, and the backward kernel computes its gradient, a sum
over all tokens, in passing. Sums over tokens combine one partial sum per program, without atomics, so gradients are the
same bits every time::

    y = bias_gelu(F.linear(hidden, weight), bias, tanh=False)
    y, _, _ = bias_dropout_add_norm(F.linear(hidden, weight), bias, residual, gamma, beta, keys, 0.1, 1e-12)

Import it only where Triton is installed.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from bert.model.kernels.random import keep

# Per program: 4 warps with 8 columns a thread, one 16-byte access in half precision.
WARPS = 4
COLUMNS = 1024  # of a tile of the activation
ROWS = 2  # of a tile of the activation
TILES = 32  # per program of the activation's backward pass, one below the other
NORM_PROGRAMS = 132 * 8  # programs of the normalisation, which share the rows; more than run at once on an H200
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
def _dropout(x, keys_ptr, row, column_keys, DROPOUT: tl.constexpr):
    """Drop and scale, the same in both directions: an element whose x is zeroed has its gradient zeroed."""
    if DROPOUT > 0:
        x = tl.where(keep(tl.load(keys_ptr + row), column_keys, DROPOUT), x * (1 / (1 - DROPOUT)), 0.0)
    return x


@triton.jit(do_not_specialize=["tokens"])
def norm_kernel(
    x_ptr, bias_ptr, residual_ptr, weight_ptr, norm_bias_ptr, keys_ptr, y_ptr, mean_ptr, rstd_ptr,
    tokens, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Each program's share of the rows of y = LayerNorm(residual + dropout(x + bias)), their mean and 1 / deviation."""
    columns = tl.arange(0, BLOCK)
    live = columns < WIDTH
    bias = tl.load(bias_ptr + columns, mask=live, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=live, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=live, other=0.0).to(tl.float32)
    column_keys = columns  # not read without dropout
    if DROPOUT > 0:
        column_keys = tl.load(keys_ptr + tokens + columns, mask=live, other=0)
    stride = tl.full((), WIDTH, tl.int64)  # offsets may pass 2^31
    for row in range(tl.program_id(0), tokens, tl.num_programs(0)):
        at = row * stride + columns
        x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
        residual = tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
        s = residual + _dropout(x + bias, keys_ptr, row, column_keys, DROPOUT)  # 0 beyond the width
        mean = tl.sum(s, 0) / WIDTH
        centred = tl.where(live, s - mean, 0.0)
        rstd = 1 / tl.sqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
        y = centred * rstd * weight + norm_bias
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=live)
        tl.store(mean_ptr + row, mean)
        tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["tokens"])
def norm_backward_kernel(
    dy_ptr, x_ptr, bias_ptr, residual_ptr, weight_ptr, keys_ptr, mean_ptr, rstd_ptr,
    dx_ptr, dresidual_ptr, partial_ptr, tokens, WIDTH: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Each program's share of dx and dresidual; ``partial`` [programs, 3, WIDTH] for bias, weight and norm_bias."""
    columns = tl.arange(0, BLOCK)
    live = columns < WIDTH
    bias = tl.load(bias_ptr + columns, mask=live, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=live, other=0.0).to(tl.float32)
    column_keys = columns  # not read without dropout
    if DROPOUT > 0:
        column_keys = tl.load(keys_ptr + tokens + columns, mask=live, other=0)
    dbias = tl.zeros((BLOCK,), tl.float32)
    dweight = tl.zeros((BLOCK,), tl.float32)
    dnorm_bias = tl.zeros((BLOCK,), tl.float32)
    stride = tl.full((), WIDTH, tl.int64)  # offsets may pass 2^31
    for row in range(tl.program_id(0), tokens, tl.num_programs(0)):
        at = row * stride + columns
        dy = tl.load(dy_ptr + at, mask=live, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
        residual = tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)
        s = residual + _dropout(x + bias, keys_ptr, row, column_keys, DROPOUT)
        normed = tl.where(live, (s - tl.load(mean_ptr + row)) * rstd, 0.0)
        g = dy * weight
        ds = (g - tl.sum(g, 0) / WIDTH - normed * (tl.sum(g * normed, 0) / WIDTH)) * rstd
        dx = _dropout(ds, keys_ptr, row, column_keys, DROPOUT)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=live)
        tl.store(dresidual_ptr + at, ds.to(dresidual_ptr.dtype.element_ty), mask=live)
        dbias += dx
        dweight += dy * normed
        dnorm_bias += dy
    partial_ptr += tl.program_id(0) * 3 * WIDTH
    tl.store(partial_ptr + columns, dbias, mask=live)
    tl.store(partial_ptr + WIDTH + columns, dweight, mask=live)
    tl.store(partial_ptr + 2 * WIDTH + columns, dnorm_bias, mask=live)


@custom_op("bert::bias_gelu", mutates_args=())
def bias_gelu(x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    """gelu(x + bias), exact or in the tanh form: [T, F], [F] -> [T, F] in the type of x."""
    x, y = x.contiguous(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tokens, width = x.shape
    if tokens:
        with torch.cuda.device_of(x):
            gelu_kernel[triton.cdiv(tokens, ROWS), triton.cdiv(width, COLUMNS)](
                x, bias, y, tokens, width, tanh, ROWS, COLUMNS, num_warps=WARPS
            )
    return y


@custom_op("bert::bias_gelu_backward", mutates_args=())
def bias_gelu_backward(dy: Tensor, x: Tensor, bias: Tensor, tanh: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and bias."""
    dy, x, dx = dy.contiguous(), x.contiguous(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tokens, width = x.shape
    programs = triton.cdiv(tokens, ROWS * TILES)
    partial = torch.empty(programs, width, device=x.device)
    if tokens:
        with torch.cuda.device_of(x):
            gelu_backward_kernel[programs, triton.cdiv(width, COLUMNS)](
                dy, x, bias, dx, partial, tokens, width, tanh, ROWS, COLUMNS, TILES, num_warps=WARPS
            )
    return dx, partial.sum(0).to(bias.dtype)


@custom_op("bert::bias_dropout_add_norm", mutates_args=())
def bias_dropout_add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    norm_bias: Tensor,
    keys: Tensor | None,
    dropout: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm(residual + dropout(x + bias)): x and residual [T, H] -> [T, H] in the type of x.

    ``keys`` [T + H], odd random int32, one per row and one per column, decide the mask; without dropout
    they may be None. Also returns mean and 1 / deviation [T] in fp32, for the backward pass.
    """
    x, residual, y = x.contiguous(), residual.contiguous(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tokens, width = x.shape
    mean, rstd = torch.empty(tokens, device=x.device), torch.empty(tokens, device=x.device)
    if tokens:
        with torch.cuda.device_of(x):
            norm_kernel[(min(NORM_PROGRAMS, tokens),)](
                x, bias, residual, weight, norm_bias, keys, y, mean, rstd, tokens, eps,
                width, triton.next_power_of_2(width), dropout, num_warps=WARPS,
            )  # fmt: skip
    return y, mean, rstd


@custom_op("bert::bias_dropout_add_norm_backward", mutates_args=())
def bias_dropout_add_norm_backward(
    dy: Tensor,
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    keys: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and of residual, and those of bias, weight and norm_bias as one [3, H] in fp32."""
    dy, x, residual = dy.contiguous(), x.contiguous(), residual.contiguous()
    dx, dresidual = torch.empty_like(x), torch.empty_like(residual)
    tokens, width = x.shape
    programs = min(NORM_BACKWARD_PROGRAMS, tokens)
    partial = torch.empty(programs, 3, width, device=x.device)
    if tokens:
        with torch.cuda.device_of(x):
            norm_backward_kernel[(programs,)](
                dy, x, bias, residual, weight, keys, mean, rstd, dx, dresidual, partial, tokens,
                width, triton.next_power_of_2(width), dropout, num_warps=WARPS,
            )  # fmt: skip
    return dx, dresidual, partial.sum(0)


@bias_gelu.register_fake
def _(x: Tensor, bias: Tensor, tanh: bool) -> Tensor:
    return x.new_empty(x.shape)


@bias_gelu_backward.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor, tanh: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), bias.new_empty(bias.shape)


@bias_dropout_add_norm.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = (x.new_empty(x.shape[0], dtype=torch.float32) for _ in range(2))
    return x.new_empty(x.shape), mean, rstd


@bias_dropout_add_norm_backward.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor, residual: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    sums = x.new_empty(3, x.shape[1], dtype=torch.float32)
    return x.new_empty(x.shape), residual.new_empty(residual.shape), sums


def _save_gelu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, ctx.tanh = inputs
    ctx.save_for_backward(x, bias)


def _gelu_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return (*bias_gelu_backward(dy, *ctx.saved_tensors, ctx.tanh), None)


def _save_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, bias, residual, weight, _, keys, ctx.dropout, _ = inputs
    ctx.save_for_backward(x, bias, residual, weight, keys, *output[1:])


def _norm_gradients(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, bias, residual, weight, keys, mean, rstd = ctx.saved_tensors
    dx, dresidual, sums = bias_dropout_add_norm_backward(dy, x, bias, residual, weight, keys, mean, rstd, ctx.dropout)
    dbias, dweight, dnorm_bias = sums.unbind()
    return dx, dbias.to(bias.dtype), dresidual, dweight.to(weight.dtype), dnorm_bias.to(weight.dtype), None, None, None


bias_gelu.register_autograd(_gelu_gradients, setup_context=_save_gelu)
bias_dropout_add_norm.register_autograd(_norm_gradients, setup_context=_save_norm)
