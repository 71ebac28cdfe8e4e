"""Products in FP8 with delayed scaling: quantising, the three products of a linear layer, the scales.

A tensor is held as FP8 values and one scale: value = FP8 / scale. The scale of a step follows from earlier steps: the
largest FP8 number over the largest magnitude in a history. So quantising reads a tensor once, and no step waits for a
maximum. All three products of a linear layer are FP8 x FP8 with fp32 sums; inputs and weights are E4M3, gradients E5M2
(Micikevicius et al. 2022). History, margin and rule are those of NVIDIA Transformer Engine's ``DelayedScaling``: the
maximum over 1,024 steps, no margin, and a scale without a positive finite maximum stays. Three things differ. The first
step runs without FP8 and only observes; a scale of 1 would round its gradients to 0. A maximum that is not finite is
forgotten, not kept for 1,024 steps. Infinite values become NaN, so that a step with one is still found and skipped.

::

    product = Product([linear])
    scaling = Scaling([product])
    scaling.begin_step()                    # quantises the weights, once for all micro-batches
    product(x, scaling.observed)            # forward and backward passes record maxima
    scaling.end_step(all_reduce_max)        # the scales of the next step, the same on every rank
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.library import custom_op

from bert.model.attention import HAS_TRITON

HISTORY = 1024  # steps
MARGIN = 0  # powers of two left free above the largest value
INPUT, WEIGHT, GRADIENT = range(3)  # the tensors of a product, in the order of its scales
FORMATS = (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float8_e5m2)
ALIGNMENT = 16  # _scaled_mm sums over multiples of this many values


@custom_op("bert::quantize", mutates_args=("amax",))
def quantize(x: Tensor, scale: Tensor, amax: Tensor, which: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x [T, N] in FP8, its transpose [N, T] and, of a gradient, its sum over T in fp32.

    The transpose is padded with zero columns to a multiple of 16. ``scale`` and ``amax`` [3] are those of a product;
    ``which`` says what x is to it, and ``amax`` takes up its maximum.
    """
    q, q_t, total = _empty(x, which)
    _write(x, scale, amax, which, (q, q_t, total))
    return q, q_t, total


@custom_op("bert::quantize_weight", mutates_args=("amax", "q", "q_t"))
def quantize_weight(x: Tensor, scale: Tensor, amax: Tensor, q: Tensor, q_t: Tensor) -> None:
    """:func:`quantize` a weight into tensors that exist, which compiled code and graphs refer to."""
    _write(x, scale, amax, WEIGHT, (q, q_t, x.new_empty(0)))


@quantize.register_fake
def _(x: Tensor, scale: Tensor, amax: Tensor, which: int) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(x, which)


def _empty(x: Tensor, which: int) -> tuple[Tensor, Tensor, Tensor]:
    padded = (x.shape[0] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    q, q_t = (x.new_empty(shape, dtype=FORMATS[which]) for shape in (x.shape, (x.shape[1], padded)))
    return q, q_t, x.new_empty(x.shape[1] if which == GRADIENT else 0, dtype=torch.float32)


def _write(x: Tensor, scale: Tensor, amax: Tensor, which: int, into: tuple[Tensor, Tensor, Tensor]) -> None:
    if x.device.type == "cuda" and HAS_TRITON:
        from bert.model.kernels.fp8 import quantize as kernel  # imported here: a CPU installation has no Triton

        kernel(x, scale, amax, which, *into)
        return
    q, q_t, total = into
    observe(x, amax, which)
    largest = torch.finfo(q.dtype).max  # torch's own cast to E4M3 makes NaN of what is larger
    scaled = (x.float() * scale[which]).clamp(-largest, largest)
    q.copy_(torch.where(x.isinf(), float("nan"), scaled))
    q_t.zero_()[:, : x.shape[0]] = q.t()
    if which == GRADIENT:
        total.copy_(x.sum(0, dtype=torch.float32))


def observe(x: Tensor, amax: Tensor, which: int) -> None:
    """Let ``amax[which]`` take up the largest magnitude in x."""
    amax[which] = torch.maximum(amax[which], x.abs().amax().float())


def forward_product(q: Tensor, weight: Tensor, inverse: Tensor, dtype: torch.dtype, bias: Tensor | None) -> Tensor:
    """x W^T + bias for x and W in FP8. Its sums may be less exact than those of gradients: as in Transformer Engine."""
    return torch._scaled_mm(
        q, weight.t(), inverse[INPUT], inverse[WEIGHT], bias=bias, out_dtype=dtype, use_fast_accum=True
    )


def input_gradient(q: Tensor, weight_t: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    """dy W, for dy and W^T in FP8."""
    return torch._scaled_mm(q, weight_t.t(), inverse[GRADIENT], inverse[WEIGHT], out_dtype=dtype)


def weight_gradient(q_t: Tensor, x_t: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    """dy^T x, for dy^T and x^T in FP8."""
    return torch._scaled_mm(q_t, x_t.t(), inverse[GRADIENT], inverse[INPUT], out_dtype=dtype)


class Quantized(NamedTuple):
    """The input of a product. Autograd sees ``x`` alone, the product reads the others alone."""

    x: Tensor  # [T, N]
    q: Tensor  # [T, N], FP8
    q_t: Tensor  # [N, T], FP8


class FP8Linear(torch.autograd.Function):
    """x W^T + bias. The fp32 weights are not read, and receive their parts of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, q_t: Tensor, bias: Tensor, *state: Tensor) -> Tensor:
        scale, inverse, amax, weight, weight_t, *masters = state
        ctx.save_for_backward(q_t, weight_t, scale, inverse, amax)
        ctx.parts, ctx.dtype = len(masters), masters[0].dtype
        return forward_product(q, weight, inverse, x.dtype, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_t, weight_t, scale, inverse, amax = ctx.saved_tensors
        q, q_t, dbias = quantize(dy, scale, amax, GRADIENT)
        dx, dw = input_gradient(q, weight_t, inverse, dy.dtype), (None,) * ctx.parts
        if any(ctx.needs_input_grad[-ctx.parts :]):  # not frozen
            dw = weight_gradient(q_t, x_t, inverse, ctx.dtype).chunk(ctx.parts)
        return dx, None, None, dbias.to(dy.dtype), *(None,) * 5, *dw


class _Observed(torch.autograd.Function):
    """x, whose maximum and whose gradient's maximum are recorded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, amax: Tensor, of_x: bool) -> Tensor:
        ctx.save_for_backward(amax)
        ctx.of_x = of_x
        if of_x:
            observe(x, amax, INPUT)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.of_x:
            observe(dx, ctx.saved_tensors[0], GRADIENT)
        return dx, None, None


@dataclass
class Product:
    """The state of y = x W^T + bias for one linear layer, or for several of equal size on the same input."""

    linears: list[nn.Linear]
    scale: Tensor = field(init=False)  # [3] fp32, of INPUT, WEIGHT and GRADIENT: FP8 = value * scale
    inverse: Tensor = field(init=False)  # [3], 1 / scale
    amax: Tensor = field(init=False)  # [3], largest magnitudes of this step
    weight: Tensor = field(init=False)  # [out, in] E4M3
    weight_t: Tensor = field(init=False)  # [in, out] E4M3

    def __post_init__(self) -> None:
        device = self.linears[0].weight.device
        self.scale, self.inverse = torch.ones(3, device=device), torch.ones(3, device=device)
        self.amax = torch.zeros(3, device=device)
        self.weight, self.weight_t, _ = quantize(self._packed(), self.scale, self.amax, WEIGHT)

    def begin_step(self) -> None:
        """Quantise the weight, and forget the maxima of the step before."""
        self.amax.zero_()
        quantize_weight(self._packed(), self.scale, self.amax, self.weight, self.weight_t)

    def quantized(self, x: Tensor) -> Quantized:
        return Quantized(x, *quantize(x.detach(), self.scale, self.amax, INPUT)[:2])

    def __call__(self, x: Tensor | Quantized, scaled: bool) -> Tensor:
        """[T, in] -> [T, out]; in FP8 where there are scales."""
        if isinstance(x, Quantized) or scaled:
            x = x if isinstance(x, Quantized) else self.quantized(x)
            return FP8Linear.apply(*x, self._bias(x.x), *self.state())  # type: ignore[return-value]
        weight = torch.cat([linear.weight for linear in self.linears]).to(x.dtype)
        y = F.linear(_Observed.apply(x, self.amax, True), weight, self._bias(x))  # type: ignore[arg-type]
        return _Observed.apply(y, self.amax, False)  # type: ignore[return-value]

    def state(self) -> tuple[Tensor, ...]:
        """Return what a product reads, then the fp32 weights."""
        masters = [linear.weight for linear in self.linears]
        return self.scale, self.inverse, self.amax, self.weight, self.weight_t, *masters

    def _bias(self, x: Tensor) -> Tensor:
        return torch.cat([linear.bias for linear in self.linears]).to(x.dtype)

    def _packed(self) -> Tensor:
        weights = [linear.weight.detach() for linear in self.linears]
        return weights[0] if len(weights) == 1 else torch.cat(weights)


class Scaling:
    """The scales of all products, and the history that they follow from."""

    def __init__(self, products: list[Product]) -> None:
        self.products = products
        self.history = torch.zeros(HISTORY, len(products), 3, device=products[0].scale.device)  # newest first
        self.observed = False  # false in the first step, which finds the first scales
        self._limits = torch.tensor([torch.finfo(dtype).max / 2**MARGIN for dtype in FORMATS]).to(self.history.device)

    @torch.no_grad()
    def begin_step(self) -> None:
        """Quantise the weights, once for all micro-batches."""
        for product in self.products:
            product.begin_step()

    @torch.no_grad()
    def end_step(self, maximum: Callable[[Tensor], Tensor] = lambda amax: amax) -> None:
        """Set the scales of the next step; ``maximum`` [products, 3] over the ranks, whose scales must agree."""
        amax = torch.stack([product.amax for product in self.products])
        amax = maximum(torch.where(amax < float("inf"), amax, 0.0))  # 0 for NaN too
        self.history.copy_(torch.cat([amax[None], self.history[:-1]]))
        self._set_scales(next_scales(self.history.amax(0), self._scales(), self._limits))
        self.observed = True

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "scale": self._scales(), "observed": self.observed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history.copy_(state["history"])
        self._set_scales(state["scale"].to(self.history.device))
        self.observed = state["observed"]

    def _scales(self) -> Tensor:
        return torch.stack([product.scale for product in self.products])

    def _set_scales(self, scales: Tensor) -> None:
        torch._foreach_copy_([product.scale for product in self.products], list(scales))
        torch._foreach_copy_([product.inverse for product in self.products], list(scales.reciprocal()))


def next_scales(amax: Tensor, before: Tensor, limits: Tensor) -> Tensor:
    """Return the scales that put ``amax`` at ``limits``; those of ``before`` where nothing but 0 was seen."""
    # A tiny maximum must not overflow the scale; the inverse of the largest is a normal number, too.
    return torch.where(amax > 0, (limits / amax).clamp(max=2.0**126), before)
