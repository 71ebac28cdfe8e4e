"""Optimizers by name, parameter groups by pattern, and the one call that turns gradients into a step.

Invariant: every trainable parameter is in exactly one group, group 0 decays and group 1 does not, and a pattern that
matches no parameter is an error (it would silently decay what it should spare)::

    optimizer = build_optimizer(OptimizerConfig(optimizer="lamb"), model)
    loss.backward()
    norm = apply_gradients(optimizer, grad_scale=65536.0)     # not finite: the step was skipped
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from bert.config import flag
from bert.errors import UsageError
from bert.optim.bertadam import BertAdam
from bert.optim.gradients import global_norm, gradient_factor
from bert.optim.host import HostOptimizer
from bert.optim.lamb import Lamb
from bert.optim.sharded import ShardedOptimizer

# BERT's biases and LayerNorms, by today's parameter names. (Older lists add "gamma" and "beta", the names that
# LayerNorm's weight and bias had until 2019; converted checkpoints carry today's.)
NO_DECAY = ("bias", "LayerNorm")
SHARDED = ("lamb", "adamw")  # take a norm from outside
FUSED_DEVICES = ("cuda", "cpu", "xpu", "mps")  # where torch's AdamW has a fused kernel


@dataclass
class OptimizerConfig:
    optimizer: str = flag(
        "lamb",
        "lamb, adamw, bertadam, apex_lamb (NVIDIA's apex.optimizers.FusedLAMB) or a class as package.module:Class.",
    )
    weight_decay: float = flag(0.01, "Weight decay of all parameters except biases and LayerNorm.", minimum=0.0)
    adam_beta1: float = flag(0.9, "Decay rate of the first moment.", minimum=0.0, maximum=1.0)
    adam_beta2: float = flag(0.999, "Decay rate of the second moment.", minimum=0.0, maximum=1.0)
    adam_eps: float = flag(1e-6, "Added to the root of the second moment.", minimum=0.0)
    max_grad_norm: float = flag(
        1.0, "Gradients are clipped to this norm (bertadam: per tensor; others: all together). 0 = no clipping.",
        minimum=0.0,
    )  # fmt: skip
    shard_optimizer: bool = flag(
        False,
        "Keep moments and fp32 masters of each parameter on one rank (ZeRO stage 1): the same step with less memory. "
        "All ranks must share --output_dir.",
    )
    use_nvlamb: bool = flag(False, "LAMB: scale biases and LayerNorm by their trust ratio too (NVLAMB).")

    def own_rates(self) -> dict[str, float]:
        """Return the highest learning rates of parameters with one of their own, by a pattern of their names."""
        return {}


Groups = list[dict[str, Any]]


def _build_lamb(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    return Lamb(groups, max_grad_norm=config.max_grad_norm, use_nvlamb=config.use_nvlamb, **_adam_options(config))


def _build_adamw(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    devices = {param.device.type for group in groups for param in group["params"]}
    options = _adam_options(config)
    options["fused" if devices <= set(FUSED_DEVICES) else "foreach"] = True
    return torch.optim.AdamW(groups, **options)


def _build_bertadam(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    return BertAdam(groups, max_grad_norm=config.max_grad_norm, **_adam_options(config))


def _build_apex_lamb(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    try:
        fused_lamb = importlib.import_module("apex.optimizers").FusedLAMB
    except (ImportError, AttributeError) as error:
        found = "the installed package `apex` is another one (PyPI's)" if find_spec("apex") else "it is not installed"
        raise UsageError(
            f"--optimizer apex_lamb: needs NVIDIA's apex, and {found}; --optimizer lamb computes the same step"
        ) from error
    return fused_lamb(groups, max_grad_norm=config.max_grad_norm, use_nvlamb=config.use_nvlamb, **_adam_options(config))


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerConfig], torch.optim.Optimizer]] = {
    "lamb": _build_lamb,
    "adamw": _build_adamw,
    "bertadam": _build_bertadam,
    "apex_lamb": _build_apex_lamb,
}


def build_optimizer(
    config: OptimizerConfig, model: nn.Module, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer over the trainable parameters of ``model``; the schedule sets the learning rate (now 0).

    ``factors`` are those of :func:`parameter_groups`.
    """
    groups = parameter_groups(model.named_parameters(remove_duplicate=False), config.weight_decay, factors=factors)
    if config.optimizer in OPTIMIZERS:
        return OPTIMIZERS[config.optimizer](groups, config)
    if ":" not in config.optimizer:
        known = ", ".join(OPTIMIZERS)
        raise UsageError(f"--optimizer {config.optimizer}: unknown, expected one of {known} or package.module:Class")
    return _build_custom(groups, config)


def shard_optimizer(optimizer: torch.optim.Optimizer, name: str, rank: int, size: int) -> ShardedOptimizer:
    """Return ``optimizer`` with its state divided among the ranks. Raises UsageError for one that cannot be divided."""
    if name not in SHARDED:
        raise UsageError(f"--shard_optimizer: expected --optimizer {' or '.join(SHARDED)}, found {name}")
    return ShardedOptimizer(optimizer, rank, size)


def _build_custom(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build ``package.module:Class``; of lr, betas, eps and weight_decay it gets those that its constructor takes."""
    module, _, name = config.optimizer.partition(":")
    try:
        optimizer_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--optimizer {config.optimizer}: {error}; expected package.module:Class") from error
    accepted = inspect.signature(optimizer_class).parameters
    return optimizer_class(groups, **{k: v for k, v in _adam_options(config).items() if k in accepted})


def _adam_options(config: OptimizerConfig) -> dict[str, Any]:
    betas = (config.adam_beta1, config.adam_beta2)
    return {"lr": 0.0, "betas": betas, "eps": config.adam_eps, "weight_decay": config.weight_decay}


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    no_decay: Sequence[str] = NO_DECAY,
    factors: Mapping[str, float] | None = None,
) -> Groups:
    """Return two groups: parameters that decay, and those whose name matches one of the regular expressions.

    ``factors`` scale the learning rate of the names that match a pattern; two more groups each. Frozen parameters are
    left out. A tied parameter counts once, under its first name. Raises UsageError for a pattern that matches no name,
    frozen parameters included.
    """
    named, own = list(named_parameters), list((factors or {}).items())
    for kind, patterns in (("no-decay", no_decay), ("learning-rate", [pattern for pattern, _ in own])):
        for pattern in patterns:
            if not any(re.search(pattern, name) for name, _ in named):
                raise UsageError(f"no parameter name matches the {kind} pattern {pattern!r}; there are {_some(named)}")
    groups: Groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    groups += [{**group, "params": [], "lr_factor": factor} for _, factor in own for group in groups[:2]]
    seen: set[nn.Parameter] = set()
    for name, param in named:
        if param.requires_grad and param not in seen:
            seen.add(param)
            rate = next((index for index, (pattern, _) in enumerate(own, 1) if re.search(pattern, name)), 0)
            spared = any(re.search(pattern, name) for pattern in no_decay)
            groups[2 * rate + spared]["params"].append(param)
    return groups


def _some(named: Sequence[tuple[str, Any]]) -> str:
    names = [name for name, _ in named]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def apply_gradients(
    optimizer: torch.optim.Optimizer | HostOptimizer | ShardedOptimizer,
    grad_scale: Tensor | float = 1.0,
    max_grad_norm: float | None = 1.0,
) -> Tensor:
    """Unscale, clip and take one step; return the global norm of the unscaled gradients, on their device.

    A norm that is not finite means that the step was skipped: no parameter, moment or step counter has changed.
    ``grad_scale`` is the loss scale inside the gradients. Optimizers with a ``max_grad_norm`` of their own (LAMB,
    BertAdam, apex's FusedLAMB) clip by it; the argument is for the others, 0 or None for no clipping. LAMB, BertAdam
    and fused AdamW do not wait for the device, which decides by itself whether to skip.
    """
    if isinstance(optimizer, HostOptimizer):
        scale = grad_scale.cpu() if isinstance(grad_scale, Tensor) else grad_scale
        return optimizer.apply(lambda host: apply_gradients(host, scale, max_grad_norm))
    if isinstance(optimizer, ShardedOptimizer):
        return optimizer.apply(grad_scale, lambda own, norm: _step(own, norm, grad_scale, max_grad_norm))
    if isinstance(optimizer, (Lamb, BertAdam)):
        optimizer.step(grad_scale=grad_scale)
        return optimizer.grad_norm
    params = [param for group in optimizer.param_groups for param in group["params"]]
    grads = [param.grad for param in params if param.grad is not None]
    norm = global_norm(grads, params[0].device) / grad_scale
    _step(optimizer, norm, grad_scale, max_grad_norm)
    return norm


def _step(
    optimizer: torch.optim.Optimizer, norm: Tensor, grad_scale: Tensor | float, max_grad_norm: float | None
) -> None:
    """Take a step with gradients whose unscaled norm, with those of other ranks' parameters, is ``norm``."""
    if isinstance(optimizer, Lamb):
        optimizer.step(grad_scale=grad_scale, grad_norm=norm)
        return
    grads = [param.grad for group in optimizer.param_groups for param in group["params"] if param.grad is not None]
    factor = gradient_factor(norm, None if "max_grad_norm" in optimizer.defaults else max_grad_norm, grad_scale)
    if optimizer.defaults.get("fused"):
        _step_on_device(optimizer, norm, factor)
    elif grads and bool(torch.isfinite(norm)):
        torch._foreach_mul_(grads, factor)
        optimizer.step()


def _step_on_device(optimizer: torch.optim.Optimizer, norm: Tensor, factor: Tensor) -> None:
    """Hand the factor and the overflow flag to torch's fused kernels, by the attributes that GradScaler uses."""
    fused: Any = optimizer
    fused.grad_scale, fused.found_inf = 1.0 / factor, (~torch.isfinite(norm)).float()
    try:
        optimizer.step()
    finally:
        del fused.grad_scale, fused.found_inf
