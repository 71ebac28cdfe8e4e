"""BertAdam: the Adam of the original BERT code, without bias correction and with clipping per tensor.

Google's AdamWeightDecayOptimizer as the first PyTorch ports wrote it. Invariants: :func:`bertadam_step` is the rule;
the class applies it to all tensors at once through torch's fused AdamW kernel, with the same result. A step whose
gradients hold an infinity or a NaN changes nothing::

    optimizer = BertAdam(parameter_groups(model.named_parameters(), 0.01), lr=5e-5)
    optimizer.step()
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bert.errors import UsageError
from bert.optim.gradients import tensor_norms
from bert.optim.state import load_full_precision, parameter_state, write_back


class BertAdamOptions(NamedTuple):
    """The hyperparameters of a parameter group."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0  # 0 or None: no clipping


def bertadam_step(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, options: BertAdamOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new ``(param, exp_avg, exp_avg_sq)`` of one tensor; the arguments are left alone.

    The gradient is unscaled. It is clipped to ``max_grad_norm`` by the norm of *this* tensor, as
    ``torch.nn.utils.clip_grad_norm_`` does (it adds 1e-6 to the norm).
    """
    lr, (beta1, beta2), eps, weight_decay, max_grad_norm = options
    if max_grad_norm:
        norm = torch.linalg.vector_norm(grad, dtype=torch.float64).item()
        grad = grad * min(max_grad_norm / (norm + 1e-6), 1.0)
    m = beta1 * exp_avg + (1.0 - beta1) * grad
    v = beta2 * exp_avg_sq + (1.0 - beta2) * grad * grad
    return param - lr * (m / (v.sqrt() + eps) + weight_decay * param), m, v


class BertAdam(torch.optim.Optimizer):
    """Apply :func:`bertadam_step` to every parameter. Each group may set every option; the schedule sets ``lr``."""

    grad_norm: Tensor  # of the last step: L2 norm of the unscaled gradients of all groups, before clipping
    skipped: Tensor  # of the last step: bool, whether the norm was not finite and nothing was changed

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        if not (0.0 <= betas[0] < 1.0 and 0.0 <= betas[1] < 1.0):
            raise UsageError(f"BertAdam betas {betas}: expected 0 <= beta < 1")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_grad_norm": max_grad_norm}
        super().__init__(params, options)
        self.grad_norm, self.skipped = torch.zeros(()), torch.zeros((), dtype=torch.bool)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None, *, grad_scale: Tensor | float | None = None
    ) -> Any:
        """Take one step, or none if a gradient is not finite; return what ``closure`` returns.

        ``grad_scale`` is the loss scale that is still inside the gradients. The gradients themselves are not changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        groups = [(group, params) for group, params in groups if params]
        if not groups:
            self.grad_norm, self.skipped = torch.zeros_like(self.grad_norm), torch.zeros_like(self.skipped)
            return loss
        scale = 1.0 if grad_scale is None else grad_scale
        norms = [tensor_norms([p.grad for p in params if p.grad is not None]) / scale for _, params in groups]
        self.grad_norm = torch.linalg.vector_norm(torch.cat(norms))
        self.skipped = ~torch.isfinite(self.grad_norm)
        for (group, params), group_norms in zip(groups, norms, strict=True):
            self._update(group, params, _factors(group_norms, group["max_grad_norm"]) / scale)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class; moments and master copies keep their precision."""
        load_full_precision(self, state_dict)

    def _update(self, group: dict[str, Any], params: list[Tensor], factors: Tensor) -> None:
        """Move the tensors of one group. ``factors``, one number per tensor, unscale and clip the gradients."""
        states = [parameter_state(self.state[param], param) for param in params]
        weights = [state.get("master", param) for state, param in zip(states, params, strict=True)]
        grads = [p.grad.to(w.dtype) for p, w in zip(params, weights, strict=True) if p.grad is not None]
        torch._fused_adamw_(
            weights,
            torch._foreach_mul(grads, list(factors.unbind())),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            # At step infinity 1 - β^t is 1: no bias correction.
            [torch.full((), math.inf, device=params[0].device)] * len(params),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=self.skipped.float(),  # the kernel returns at once if this is 1, without the host knowing
        )
        write_back(params, weights)


def _factors(norms: Tensor, max_grad_norm: float | None) -> Tensor:
    return (max_grad_norm / (norms + 1e-6)).clamp(max=1.0) if max_grad_norm else torch.ones_like(norms)
