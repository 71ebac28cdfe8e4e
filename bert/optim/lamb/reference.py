"""LAMB, equation by equation: the reference function and the record that every fast path works from.

You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" (2020), Algorithm 2, in the
variant of NVIDIA's FusedLAMB, whose results it reproduces: gradients are clipped by their global norm first, ε stands
outside the square root, and a tensor without weight decay (bias, LayerNorm) takes a plain Adam step unless NVLAMB is
requested. Invariant: every fast path agrees with :func:`lamb_step` to 1e-6 relative::

    p, m, v = lamb_step(p, ĝ, m, v, 1, LambOptions(lr=6e-3, weight_decay=0.01))
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bert.optim.state import write_back


@dataclass(frozen=True)
class LambOptions:
    """The hyperparameters of a parameter group."""

    lr: float | Tensor
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.01
    use_nvlamb: bool = False  # apply the trust ratio to tensors without weight decay too
    bias_correction: bool = True
    grad_averaging: bool = True  # β3 = 1 - β1, else 1

    @property
    def beta3(self) -> float:
        return 1.0 - self.betas[0] if self.grad_averaging else 1.0

    @property
    def adapts(self) -> bool:
        """Whether the trust ratio scales the step."""
        return self.use_nvlamb or self.weight_decay != 0

    def corrections(self, step: int) -> tuple[float, float]:
        """Return 1 - β1^t and 1 - β2^t, or ones."""
        beta1, beta2 = self.betas
        return (1.0 - beta1**step, 1.0 - beta2**step) if self.bias_correction else (1.0, 1.0)


def lamb_step(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: int, options: LambOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new ``(param, exp_avg, exp_avg_sq)`` of one tensor; the arguments are left alone.

    ``grad`` is unscaled and clipped, ``step`` counts from 1. All four tensors have one shape and one dtype (fp32 in
    training; float64 works, for tests).
    """
    beta1, beta2 = options.betas
    correction1, correction2 = options.corrections(step)
    m = beta1 * exp_avg + options.beta3 * grad
    v = beta2 * exp_avg_sq + (1.0 - beta2) * grad * grad
    update = m / correction1 / ((v / correction2).sqrt() + options.eps) + options.weight_decay * param
    ratio = _trust_ratio(param, update) if options.adapts else 1.0
    return param - float(options.lr) * ratio * update, m, v


def _trust_ratio(param: Tensor, update: Tensor) -> float:
    """‖p‖ / ‖u‖, or 1 if either is 0 (a fresh zero weight would otherwise never leave zero)."""
    param_norm = torch.linalg.vector_norm(param, dtype=torch.float64).item()
    update_norm = torch.linalg.vector_norm(update, dtype=torch.float64).item()
    return param_norm / update_norm if param_norm > 0 and update_norm > 0 else 1.0


@dataclass
class LambGroup:
    """One parameter group as a fast path sees it: tensors in parallel lists, and the numbers they share."""

    step: Tensor  # number of this step, from 1; 0-dim int64 on the parameters' device; reading it waits for the device
    options: LambOptions
    params: list[Tensor] = field(default_factory=list)  # what the model computes with, any float dtype
    weights: list[Tensor] = field(default_factory=list)  # what LAMB updates: params[i], or its fp32 master copy
    grads: list[Tensor] = field(default_factory=list)  # still scaled and unclipped, any float dtype
    exp_avgs: list[Tensor] = field(default_factory=list)
    exp_avg_sqs: list[Tensor] = field(default_factory=list)

    def write_back(self) -> None:
        """Round the master copies into the half-precision parameters that the model computes with."""
        write_back(self.params, self.weights)


def reference_update(groups: list[LambGroup], factor: Tensor, skipped: Tensor) -> None:
    """Apply :func:`lamb_step` to one tensor after another; ``factor`` unscales and clips the gradients."""
    if bool(skipped):
        return
    for group in groups:
        for p, g, m, v in zip(group.weights, group.grads, group.exp_avgs, group.exp_avg_sqs, strict=True):
            new = lamb_step(p, g.to(p.dtype) * factor, m, v, int(group.step), group.options)
            for old, value in zip((p, m, v), new, strict=True):
                old.copy_(value)
        group.write_back()
