"""What LAMB and BertAdam keep per parameter: fp32 moments, and an fp32 master copy of a half-precision parameter.

Invariant: state is never rounded to the parameter's dtype, neither in memory nor in a state dict::

    state = parameter_state(optimizer.state[param], param)
    weight = state.get("master", param)         # what the update rule works on
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor


def state_dtype(param: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's moments and master copy: fp32, or float64 for a float64 parameter."""
    return torch.promote_types(param.dtype, torch.float32)


def parameter_state(state: dict[str, Tensor], param: Tensor) -> dict[str, Tensor]:
    """Fill in and return the state of one parameter: all of it at its first step, else what a loaded state lacks.

    An fp32 run continued in half precision gains a master copy; the reverse drops it. The copy is made once: model
    weights are loaded before the first step, or later together with the optimizer's state.
    """
    dtype = state_dtype(param)
    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(param, dtype=dtype)
        state["exp_avg_sq"] = torch.zeros_like(param, dtype=dtype)
    if param.dtype == dtype:
        state.pop("master", None)
    elif "master" not in state:
        state["master"] = param.detach().to(dtype)
    return state


def write_back(params: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Round the master copies among ``weights`` into the half-precision parameters that the model computes with."""
    masters = [(p, w) for p, w in zip(params, weights, strict=True) if p is not w]
    if masters:
        torch._foreach_copy_([p for p, _ in masters], [w for _, w in masters])


def load_full_precision(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Load a state dict without torch's cast of every state tensor to the dtype of its parameter.

    An option that a group of an older or foreign state dict lacks keeps its current value.
    """
    today = [dict(group) for group in optimizer.param_groups]
    torch.optim.Optimizer.load_state_dict(optimizer, state_dict)
    for group, options in zip(optimizer.param_groups, today, strict=True):
        for key, value in options.items():
            group.setdefault(key, value)
    saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    params = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    for index, param in zip(saved, params, strict=True):
        for key, value in state_dict["state"].get(index, {}).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                optimizer.state[param][key] = value.detach().to(param.device, state_dtype(param), copy=True)
