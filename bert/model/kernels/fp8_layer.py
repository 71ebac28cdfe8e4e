"""What follows attention in a layer that trains in FP8.

Each step is one autograd function: a product and the kernel after it. Forwards the kernel writes its result as FP8 for
the next product, backwards the gradient of its own product, so that neither is stored in half precision besides.
:mod:`bert.model.fp8` explains the rest. Import it only where Triton is installed.
"""

from typing import Any

import torch
from torch import Tensor

from bert.model.dropout import draw_keys
from bert.model.fp8 import Product, Quantized, forward_product, input_gradient, weight_gradient
from bert.model.kernels.fp8 import gelu_backward_quantize, gelu_quantize, norm_backward_quantize, norm_quantize
from bert.model.layers import gelu_tanh

Gradients = tuple[Tensor | None, ...]


class _Activated(torch.autograd.Function):
    """gelu(x W^T + bias) in FP8 and transposed; the first result only stands for it in autograd and has no memory."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, q: Tensor, q_t: Tensor, bias: Tensor, tanh: bool, into: Tensor, maxima: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        scale, inverse, amax, weight, weight_t, master = state
        inner = forward_product(q, weight, inverse, x.dtype, None)
        y_q, y_t = gelu_quantize(inner, bias, tanh, into, maxima)
        ctx.save_for_backward(q_t, inner, bias, weight_t, scale, inverse, amax)
        ctx.tanh, ctx.dtype = tanh, master.dtype
        ctx.mark_non_differentiable(y_q, y_t)
        return x.new_empty(1).expand(inner.shape), y_q, y_t

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Gradients:
        x_t, inner, bias, weight_t, scale, inverse, amax = ctx.saved_tensors
        q, q_t, dbias = gelu_backward_quantize(dy, inner, bias, ctx.tanh, scale, amax)
        dx = input_gradient(q, weight_t, inverse, dy.dtype)
        dw = weight_gradient(q_t, x_t, inverse, ctx.dtype) if ctx.needs_input_grad[-1] else None
        return dx, None, None, dbias, *(None,) * 8, dw


class _Ended(torch.autograd.Function):
    """LayerNorm(residual + dropout(x W^T + bias)), the same in FP8 and transposed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, q: Tensor, q_t: Tensor, residual: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor,
        keys: Tensor | None, dropout: float, eps: float, into: Tensor, maxima: Tensor, *state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        scale, inverse, amax, weight, weight_t, master = state
        dense = forward_product(q, weight, inverse, residual.dtype, None)
        y, y_q, y_t, mean, rstd = norm_quantize(dense, bias, residual, gamma, beta, keys, dropout, eps, into, maxima)
        ctx.save_for_backward(q_t, dense, bias, residual, gamma, keys, mean, rstd, weight_t, scale, inverse, amax)
        ctx.dropout, ctx.dtype = dropout, master.dtype
        ctx.mark_non_differentiable(y_q, y_t)
        return y, y_q, y_t

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Gradients:
        x_t, dense, bias, residual, gamma, keys, mean, rstd, weight_t, scale, inverse, amax = ctx.saved_tensors
        q, q_t, dresidual, sums = norm_backward_quantize(
            dy, dense, bias, residual, gamma, keys, mean, rstd, ctx.dropout, scale, amax
        )
        dx = input_gradient(q, weight_t, inverse, dy.dtype)
        dw = weight_gradient(q_t, x_t, inverse, ctx.dtype) if ctx.needs_input_grad[-1] else None
        dbias, dgamma, dbeta = (each.to(gamma.dtype) for each in sums.unbind())
        return dx, None, None, dresidual, dbias, dgamma, dbeta, *(None,) * 10, dw


def finish(layer: Any, context: Tensor, hidden: Tensor) -> Quantized:
    """Return the output of a layer from that of its attention; all [T, hidden]."""
    fp8, inner = layer.fp8, layer.intermediate
    attended = _end(
        layer.attention.output, fp8.attended, fp8.attended.quantized(context), hidden, (fp8.inner.scale, fp8.inner.amax)
    )
    activated = Quantized(
        *_Activated.apply(  # type: ignore[misc]
            *attended, inner.dense.bias, inner.activation is gelu_tanh, fp8.output.scale, fp8.output.amax,
            *fp8.inner.state(),
        )
    )  # fmt: skip
    return _end(layer.output, fp8.output, activated, attended.x, fp8.following)


def _end(output: Any, product: Product, x: Quantized, residual: Tensor, following: tuple[Tensor, Tensor]) -> Quantized:
    """Return what :class:`bert.model.layers.BertOutput` does; ``following`` are scales and maxima of its reader."""
    norm, dropout = output.LayerNorm, output.dropout.active_probability
    keys = draw_keys(sum(residual.shape), residual.device) if dropout > 0 else None
    return Quantized(
        *_Ended.apply(  # type: ignore[misc]
            *x, residual, output.dense.bias, norm.weight, norm.bias, keys, dropout, norm.eps, *following,
            *product.state(),
        )
    )  # fmt: skip
