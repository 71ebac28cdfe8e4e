"""LAMB, equation by equation: the reference function and the record that every fast path works from.

You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" (2020), Algorithm 2, in the
variant of NVIDIA's FusedLAMB, whose results it reproduces: gradients are clipped by their global norm first, ε stands
outside the square root, and a tensor without weight decay (bias, LayerNorm) takes a plain Adam step unless NVLAMB is
asked for. Invariant: whatever a fast path computes equals :func:`lamb_step` to 1e-6 relative::

    p, m, v = lamb_step(p, ĝ, m, v, step=1, lr=6e-3, weight_decay=0.01)
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bert.optim.state import write_back


def lamb_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    use_nvlamb: bool = False,
    bias_correction: bool = True,
    grad_averaging: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new ``(param, exp_avg, exp_avg_sq)`` of one tensor; the arguments are left alone.

    ``grad`` is unscaled and clipped, ``step`` counts from 1. All four tensors have one shape and one dtype (fp32 in
    training; float64 works, for tests).
    """
    beta1, beta2 = betas
    beta3 = 1.0 - beta1 if grad_averaging else 1.0
    m = beta1 * exp_avg + beta3 * grad
    v = beta2 * exp_avg_sq + (1.0 - beta2) * grad * grad
    m_hat = m / (1.0 - beta1**step) if bias_correction else m
    v_hat = v / (1.0 - beta2**step) if bias_correction else v
    update = m_hat / (v_hat.sqrt() + eps) + weight_decay * param
    ratio = _trust_ratio(param, update) if use_nvlamb or weight_decay != 0 else 1.0
    return param - lr * ratio * update, m, v


def _trust_ratio(param: Tensor, update: Tensor) -> float:
    """‖p‖ / ‖u‖, or 1 where either is 0 (a fresh zero weight would otherwise never leave zero)."""
    param_norm = torch.linalg.vector_norm(param, dtype=torch.float64).item()
    update_norm = torch.linalg.vector_norm(update, dtype=torch.float64).item()
    return param_norm / update_norm if param_norm > 0 and update_norm > 0 else 1.0


@dataclass
class LambGroup:
    """One parameter group as a fast path sees it: tensors in parallel lists, and the numbers they share."""

    step: Tensor  # number of this step, from 1; 0-dim int64 on the parameters' device
    lr: float | Tensor
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    adapts: bool  # whether the step is scaled by the trust ratio
    bias_correction: bool
    grad_averaging: bool
    params: list[Tensor] = field(default_factory=list)  # what the model computes with, any float dtype
    weights: list[Tensor] = field(default_factory=list)  # what LAMB updates: params[i], or its fp32 master copy
    grads: list[Tensor] = field(default_factory=list)  # still scaled and unclipped, any float dtype
    exp_avgs: list[Tensor] = field(default_factory=list)
    exp_avg_sqs: list[Tensor] = field(default_factory=list)

    @property
    def beta3(self) -> float:
        return 1.0 - self.beta1 if self.grad_averaging else 1.0

    def corrections(self) -> tuple[float, float]:
        """Return 1 - β1^t and 1 - β2^t, or ones. Reads the step on the host, which waits for the device."""
        step = int(self.step)
        return (1.0 - self.beta1**step, 1.0 - self.beta2**step) if self.bias_correction else (1.0, 1.0)

    def write_back(self) -> None:
        """Round the master copies into the half-precision parameters that the model computes with."""
        write_back(self.params, self.weights)


def reference_update(groups: list[LambGroup], factor: Tensor, skipped: Tensor) -> None:
    """Apply :func:`lamb_step` to one tensor after another; ``factor`` unscales and clips the gradients."""
    if bool(skipped):
        return
    for group in groups:
        for p, g, m, v in zip(group.weights, group.grads, group.exp_avgs, group.exp_avg_sqs, strict=True):
            new = lamb_step(
                p,
                g.to(p.dtype) * factor,
                m,
                v,
                step=int(group.step),
                lr=float(group.lr),
                betas=(group.beta1, group.beta2),
                eps=group.eps,
                weight_decay=group.weight_decay,
                use_nvlamb=group.adapts,
                bias_correction=group.bias_correction,
                grad_averaging=group.grad_averaging,
            )
            for old, value in zip((p, m, v), new, strict=True):
                old.copy_(value)
        group.write_back()
