"""LAMB on the CPU in blocks that stay in the cache: one pass over memory for the moments, one for the parameters.

A foreach operator streams every array through memory for each of its dozen operations. This path takes ``CPU_BLOCK``
elements at a time through all of them, with the direction u = m̂ / (√v̂ + ε) + λp computed by torch's fused Adam kernel:
given λp as its parameter and a learning rate of -1, it returns λp + m̂ / (√v̂ + ε). Only u outlives a block; one buffer,
which all tensors share, keeps it until the trust ratio of its tensor is known. In-place changes, arguments and the
meaning of ``skipped`` are those of :func:`bert.optim.lamb.foreach.foreach_update`::

    BlockedUpdate()(groups, factor=gradient_factor(norm, 1.0), skipped=torch.tensor(False))
"""

import math

import torch
from torch import Tensor

from bert.optim.lamb.foreach import update_group
from bert.optim.lamb.reference import LambGroup

# Elements per pass. Six fp32 arrays of this size (24 MiB) fit in a 32 MiB L3 cache; smaller blocks would fit better but
# the threads would synchronise more often. On 29 M parameters and 2 EPYC threads a step takes 70 ms at 2^16, 45 at
# 2^18, 35 at 2^20 and 36 at 2^21; moving 34 bytes per parameter takes 24 ms.
CPU_BLOCK = 1 << 20


class BlockedUpdate:
    """Apply LAMB steps on the CPU; keeps its buffers from step to step."""

    def __init__(self, block: int = CPU_BLOCK) -> None:
        self.block = block
        self._u = torch.empty(0)
        self._g = torch.empty(0)

    def __call__(self, groups: list[LambGroup], factor: Tensor, skipped: Tensor) -> None:
        if bool(skipped):
            return
        for group in groups:
            if not group.params:
                continue
            if not group.options.grad_averaging:  # the fused kernel has β3 = 1 - β1 built in
                update_group(group, factor)
            elif group.options.adapts:
                self._adapt_group(group, factor)
            else:
                _adam(group, factor)
            group.write_back()

    def _adapt_group(self, group: LambGroup, factor: Tensor) -> None:
        self._reserve(group)
        step = _kernel_step(group)
        widening = factor.reshape(1)  # with a dimension, an fp32 factor makes the product of a half gradient fp32
        for tensors in zip(group.weights, group.grads, group.exp_avgs, group.exp_avg_sqs, strict=True):
            self._adapt(group, step, widening, [tensor.view(-1) for tensor in tensors])

    def _adapt(self, group: LambGroup, step: Tensor, factor: Tensor, tensors: list[Tensor]) -> None:
        """Move one tensor, given as flat ``[p, g, m, v]``: u and both norms block by block, then the step along u."""
        size = tensors[0].numel()
        p_square = u_square = 0.0  # float64 across blocks: an fp32 sum over millions of squares loses three digits
        for start in range(0, size, self.block):
            p, g, m, v = (tensor[start : start + self.block] for tensor in tensors)
            u = torch.mul(p, group.options.weight_decay, out=self._u[start : start + len(p)])
            _fused_adam(group, -1.0, step, ([u], [torch.mul(g, factor, out=self._g[: len(p)])], [m], [v]))
            p_square += float(torch.dot(p, p))
            u_square += float(torch.dot(u, u))
        ratio = math.sqrt(p_square / u_square) if p_square > 0 and u_square > 0 else 1.0
        tensors[0].add_(self._u[:size], alpha=-float(group.options.lr) * ratio)

    def _reserve(self, group: LambGroup) -> None:
        """Keep the buffers from step to step: fresh memory costs a page fault per 4 KiB, as much as the whole pass."""
        largest, dtype = max(w.numel() for w in group.weights), group.weights[0].dtype
        if self._u.numel() < largest or self._u.dtype != dtype:
            self._u = torch.empty(largest, dtype=dtype)
            self._g = torch.empty(min(self.block, largest), dtype=dtype)


def _adam(group: LambGroup, factor: Tensor) -> None:
    """Take the plain Adam step of tensors without a trust ratio: biases and LayerNorm, small, so all in one call."""
    grads = [grad.to(weight.dtype) for grad, weight in zip(group.grads, group.weights, strict=True)]
    scaled = list(torch._foreach_mul(grads, float(factor)))
    # Without a trust ratio there is no weight decay either, so the kernel's own update is the whole rule.
    tensors = (group.weights, scaled, group.exp_avgs, group.exp_avg_sqs)
    _fused_adam(group, float(group.options.lr), _kernel_step(group), tensors)


def _kernel_step(group: LambGroup) -> Tensor:
    """Return the step for the fused kernel's bias correction; at infinity 1 - β^t is 1, which switches it off."""
    return group.step.float() if group.options.bias_correction else torch.tensor(math.inf)


def _fused_adam(group: LambGroup, lr: float, step: Tensor, tensors: tuple[list[Tensor], ...]) -> None:
    """Run torch's kernel on lists of weights, gradients and both moments."""
    p, g, m, v = tensors
    beta1, beta2 = group.options.betas
    torch._fused_adam_(
        p,
        g,
        m,
        v,
        [],
        [step] * len(p),
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=group.options.eps,
        amsgrad=False,
        maximize=False,
    )
