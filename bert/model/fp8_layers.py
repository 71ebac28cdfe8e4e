"""The encoder's layers with products in FP8, applied to a model from outside.

Parameters keep their names and evaluation does not use FP8. Where our kernels run, layers hand FP8 on to each other;
elsewhere, as on a CPU, each product quantises its input::

    scaling = apply_fp8(model.bert)         # before the layers are compiled; bert.model.fp8 says how to use it
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.errors import UsageError
from bert.model.adapters.plain import PLAIN, PLAIN_LAYER, LayerHooks, NoAdapters, StreamHooks
from bert.model.attention import ATTENTION, HAS_TRITON, Layout
from bert.model.fp8 import ALIGNMENT, Product, Quantized, Scaling
from bert.model.layers import gelu_tanh


@dataclass
class LayerProducts:
    """What :func:`apply_fp8` adds to a layer."""

    scaling: Scaling
    qkv: Product
    attended: Product
    inner: Product
    output: Product
    following: tuple[Tensor, Tensor]  # scales and maxima of the product that reads the output


def apply_fp8(bert: Any) -> Scaling:
    """Let the layers of a :class:`bert.model.bert.BertModel` train in FP8, before they are compiled.

    Raises UsageError for adapters and sizes that FP8 does not fit.
    """
    if not isinstance(bert.adapters, NoAdapters):
        raise UsageError("--fp8: not supported with adapters, expected --bf16")
    products = [[Product(_checked(linears)) for linears in _groups(layer)] for layer in bert.encoder.layer]
    scaling = Scaling([product for row in products for product in row])
    # Nothing reads the last output in FP8, but a layer like all others needs no compilation of its own.
    spare = torch.ones_like(products[0][0].scale), torch.zeros_like(products[0][0].amax)
    following = [*((row[0].scale, row[0].amax) for row in products[1:]), spare]
    for layer, (qkv, attended, inner, output), after in zip(bert.encoder.layer, products, following, strict=True):
        layer.fp8 = LayerProducts(scaling, qkv, attended, inner, output, after)
        layer.forward = partial(_forward, layer)
    bert.encoder.forward = partial(_forward_encoder, bert.encoder)
    return scaling


def _groups(layer: Any) -> list[list[nn.Linear]]:
    """Return the linear layers of each product, in the order of :class:`LayerProducts`."""
    own = layer.attention.self
    ended = [layer.attention.output, layer.intermediate, layer.output]
    return [[own.query, own.key, own.value], *([each.dense] for each in ended)]


def _checked(linears: list[nn.Linear]) -> list[nn.Linear]:
    for size in linears[0].weight.shape:
        if size % ALIGNMENT:
            raise UsageError(f"--fp8: a linear layer has {size} columns or rows, expected a multiple of {ALIGNMENT}")
    return linears


def _kernels(layer: Any, hidden: Tensor) -> Any:
    """Return :mod:`bert.model.kernels.fp8_layer` where it can run, else None."""
    known = layer.intermediate.activation in (F.gelu, gelu_tanh)
    if hidden.device.type != "cuda" or hidden.dtype == torch.float32 or not known or not HAS_TRITON:
        return None
    from bert.model.kernels import fp8_layer  # imported here: a CPU installation has no Triton

    return fp8_layer


def _forward_encoder(encoder: Any, hidden: Tensor, layout: Layout, hooks: StreamHooks = PLAIN) -> list[Tensor]:
    """BertEncoder.forward, where layers that train hand FP8 on to each other."""
    first = encoder.layer[0]
    if not (encoder.training and first.fp8.scaling.observed and _kernels(first, hidden)):
        return type(encoder).forward(encoder, hidden, layout, hooks)
    state, outputs = first.fp8.qkv.quantized(hidden), []
    for layer in encoder.layer:
        state = layer(state, layout)
        outputs.append(state.x)
    return outputs


def _forward(layer: Any, hidden: Any, layout: Layout, hooks: LayerHooks = PLAIN_LAYER) -> Any:
    """BertLayer.forward, with products in FP8 while it trains."""
    if not layer.training:
        return type(layer).forward(layer, hidden, layout, hooks)
    fp8, own = layer.fp8, layer.attention.self
    scaled = fp8.scaling.observed
    qkv = fp8.qkv(hidden, scaled).unflatten(-1, (3, own.heads, own.head_size))
    context = ATTENTION[layout.attention](qkv, layout, own.dropout).flatten(-2)
    if isinstance(hidden, Quantized):
        return _kernels(layer, hidden.x).finish(layer, context, hidden.x)
    attended = _ended(layer.attention.output, fp8.attended(context, scaled), hidden)
    inner = layer.intermediate.activation(fp8.inner(attended, scaled))
    return _ended(layer.output, fp8.output(inner, scaled), attended)


def _ended(output: Any, dense: Tensor, residual: Tensor) -> Tensor:
    return output.LayerNorm(output.dropout(dense) + residual)
