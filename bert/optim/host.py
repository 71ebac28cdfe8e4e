"""An optimizer that keeps parameters, moments and arithmetic in host memory, for a model that fills the device.

After the backward pass the gradients are copied to fp32 copies of the parameters in host memory. The step is taken
there, and the new values are copied back; the device holds only weights and gradients::

    optimizer = HostOptimizer(model, lambda copy: build_optimizer(config, copy))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class HostOptimizer:
    """Has the interface of the optimizer that it wraps; ``apply`` takes the step on the host."""

    def __init__(self, model: nn.Module, build: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
        self._host_model = copy.deepcopy(model).to("cpu", torch.float32)
        self._host = build(self._host_model)
        host = dict(self._host_model.named_parameters())
        self._pairs = [(param, host[name]) for name, param in model.named_parameters()]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._host.param_groups

    @property
    def state(self) -> Any:
        return self._host.state

    def apply(self, step: Callable[[torch.optim.Optimizer], Tensor]) -> Tensor:
        """Run ``step`` on the host optimizer with this step's gradients; return the gradient norm that it returns."""
        for param, host in self._pairs:
            host.grad = None if param.grad is None else param.grad.to("cpu", torch.float32)
        norm = step(self._host)
        with torch.no_grad():
            for param, host in self._pairs:
                param.copy_(host)
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        for param, _ in self._pairs:
            param.grad = None

    def state_dict(self) -> dict[str, Any]:
        return self._host.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._host.load_state_dict(state)
