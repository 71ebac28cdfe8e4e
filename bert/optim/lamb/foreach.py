"""LAMB over lists of tensors with torch's foreach operators, for any device.

Changes ``weights``, ``exp_avgs`` and ``exp_avg_sqs`` of each group in place, leaves the gradients alone, and does
nothing if ``skipped`` is true. It reads two scalars on the host (one wait for the device)::

    foreach_update(groups, factor=gradient_factor(norm, 1.0), skipped=torch.tensor(False))
"""

import torch
from torch import Tensor

from bert.optim.gradients import tensor_norms
from bert.optim.lamb.reference import LambGroup


def foreach_update(groups: list[LambGroup], factor: Tensor, skipped: Tensor) -> None:
    """Apply one LAMB step with foreach operators: portable, but every operator is a pass over memory."""
    if bool(skipped):
        return
    for group in groups:
        if group.params:
            update_group(group, factor)
            group.write_back()


def update_group(group: LambGroup, factor: Tensor) -> None:
    """Move the weights and moments of one group, which is not empty."""
    p, m, v, options = group.weights, group.exp_avgs, group.exp_avg_sqs, group.options
    beta1, beta2 = options.betas
    correction1, correction2 = options.corrections(int(group.step))
    g = torch._foreach_mul([grad.to(w.dtype) for grad, w in zip(group.grads, p, strict=True)], factor.to(p[0].dtype))
    torch._foreach_mul_(m, beta1)
    torch._foreach_add_(m, g, alpha=options.beta3)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, g, g, 1.0 - beta2)
    denominator = torch._foreach_div(v, correction2)
    torch._foreach_sqrt_(denominator)
    torch._foreach_add_(denominator, options.eps)
    u = torch._foreach_div(m, correction1)
    torch._foreach_div_(u, denominator)
    torch._foreach_add_(u, p, alpha=options.weight_decay)
    if options.adapts:
        p_norm, u_norm = tensor_norms(p), tensor_norms(u)
        ratio = torch.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, 1.0)
        torch._foreach_mul_(u, list(ratio.unbind()))
    torch._foreach_mul_(u, -options.lr)  # its own pass, because lr may be a tensor
    torch._foreach_add_(p, u)
