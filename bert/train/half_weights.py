"""Half-precision copies of the encoder's weight matrices, for the micro-batches that one optimizer step accumulates.

Autocast rounds every weight again in every micro-batch, and the backward pass turns every weight gradient into fp32
before adding it: 24 bytes a parameter. Here the matrices are rounded once a step, the layers compute with the copies,
and a gradient is added to the fp32 one in its own type: 10 bytes. Nothing is rounded differently, so the gradients are
the same bits. Optimizer and checkpoints see the fp32 parameters only::

    copies = HalfWeights(layers, torch.bfloat16)
    for index, batch in enumerate(micro_batches):
        with copies.in_place(fresh=index == 0):
            loss(batch).backward()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bert.model.layers import BertLayer


class HalfWeights:
    """The copies of the weights of all linear layers in ``layers``; keeps them from step to step."""

    def __init__(self, layers: Iterable[nn.Module], dtype: torch.dtype) -> None:
        linears = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
        self.linears = [module for module in linears if module.weight.dtype == torch.float32]
        self.weights: list[Tensor] = [module.weight for module in self.linears]
        self.copies: list[Tensor] = [_copy(weight, dtype) for weight in self.weights]

    @contextmanager
    def in_place(self, fresh: bool) -> Iterator[None]:
        """Let the layers compute with the copies, rounded again if ``fresh``."""
        if fresh:
            with torch.no_grad():
                torch._foreach_copy_(self.copies, self.weights)
        self._install(self.copies)
        try:
            yield
        finally:
            self._install(self.weights)

    def _install(self, weights: list[Tensor]) -> None:
        for module, weight in zip(self.linears, weights, strict=True):
            module.weight = weight  # type: ignore[assignment]  # all are parameters


def _copy(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    copy = nn.Parameter(weight.detach().to(dtype), requires_grad=weight.requires_grad)
    if copy.requires_grad:
        copy.register_post_accumulate_grad_hook(partial(_pass_on, weight))
    return copy


def _pass_on(weight: Tensor, copy: Tensor) -> None:
    """Add the gradient of ``copy`` to that of ``weight``, in fp32."""
    grad, copy.grad = copy.grad, None
    if grad is None:
        return
    if weight.grad is None:
        weight.grad = grad.to(weight.dtype)
    else:
        weight.grad.add_(grad)


class Accumulation:
    """Uses :class:`HalfWeights` where they pay and are proved equal: autocast on a GPU, several micro-batches, no DDP.

    DDP reduces a gradient when autograd adds it to a parameter, and these it would never see.
    """

    def __init__(self, objective: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        distributed = isinstance(objective, DistributedDataParallel)
        self.usable = dtype != torch.float32 and device.type == "cuda" and not distributed
        self.objective, self.dtype = objective, dtype
        self._copies: HalfWeights | None = None

    def micro_batch(self, index: int, count: int) -> AbstractContextManager[None]:
        """Return the context of micro-batch ``index`` of ``count``."""
        if not self.usable or count == 1:
            return nullcontext()
        if self._copies is None:
            layers = [module for module in self.objective.modules() if isinstance(module, BertLayer)]
            self._copies = HalfWeights(layers, self.dtype)
        return self._copies.in_place(fresh=index == 0)
