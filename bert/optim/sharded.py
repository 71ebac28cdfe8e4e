"""ZeRO stage 1 by whole parameters: each rank keeps the state of its share and takes that part of the step.

Parameters are dealt by size to the rank with the least so far, so a trust ratio stays within a rank. The norm is that
of all gradients, which every rank has after DDP's all-reduce. Invariant: the step is bit for bit that of the optimizer
which is wrapped (Rajbhandari et al. 2020, P_os)::

    optimizer = ShardedOptimizer(build_optimizer(config, model), rank, size)
    apply_gradients(optimizer)                  # steps the share, then gathers the new values of all
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from bert.optim.gradients import global_norm

# Its name since torch 2.13, and the one before.
ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def deal(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank of each size: the largest first, each to the rank with the least so far, the lowest of equals."""
    owners, loads = [0] * len(sizes), [(0, rank) for rank in range(ranks)]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        load, owners[index] = heapq.heappop(loads)
        heapq.heappush(loads, (load + sizes[index], owners[index]))
    return owners


class ShardedOptimizer:
    """Has the interface of the optimizer that it wraps; ``param_groups`` has all parameters, ``state`` the share's."""

    def __init__(self, optimizer: torch.optim.Optimizer, rank: int, size: int) -> None:
        """``optimizer`` has taken no step yet; the order of its parameters is the same on all ranks."""
        self._local, self.rank, self.size = optimizer, rank, size
        self.param_groups: list[dict[str, Any]] = [dict(group) for group in optimizer.param_groups]
        self._params = list(chain.from_iterable(group["params"] for group in self.param_groups))
        owners = deal([param.numel() for param in self._params], size)
        self._shares = [[p for p, owner in zip(self._params, owners, strict=True) if owner == r] for r in range(size)]
        self._owned = [index for index, owner in enumerate(owners) if owner == rank]
        own = set(self._shares[rank])
        for group in optimizer.param_groups:
            group["params"] = [param for param in group["params"] if param in own]

    @property
    def state(self) -> Any:
        return self._local.state

    @torch.no_grad()
    def apply(self, grad_scale: Tensor | float, step: Callable[[torch.optim.Optimizer, Tensor], object]) -> Tensor:
        """Run ``step`` on the share with the norm of all unscaled gradients, gather the values, return the norm."""
        grads = [param.grad for param in self._params if param.grad is not None]
        norm = global_norm(grads, self._params[0].device) / grad_scale
        self._set_options()
        step(self._local, norm)
        self._gather()
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        for param in self._params:
            param.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the share's state under the numbers that the whole optimizer gives its parameters."""
        self._set_options()
        local = self._local.state_dict()
        state = {self._owned[index]: values for index, values in local["state"].items()}
        return {"state": state, "param_groups": self._numbered(local["param_groups"], whole=True), "shards": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state dict of the whole optimizer. Raises ValueError where that has other parameters."""
        numbers = [[len(group["params"]) for group in groups] for groups in (state["param_groups"], self.param_groups)]
        if numbers[0] != numbers[1]:
            raise ValueError(f"{numbers[0]} parameters in its groups instead of {numbers[1]}")
        own = {local: state["state"][index] for local, index in enumerate(self._owned) if index in state["state"]}
        groups = self._numbered(state["param_groups"], whole=False)
        self._local.load_state_dict({"state": own, "param_groups": groups})
        for group, local in zip(self.param_groups, self._local.param_groups, strict=True):
            group.update({**local, "params": group["params"]})

    def _set_options(self) -> None:
        """Hand on what was set in ``param_groups``, the learning rate above all."""
        for group, local in zip(self.param_groups, self._local.param_groups, strict=True):
            local.update({**group, "params": local["params"]})

    def _numbered(self, groups: Sequence[dict[str, Any]], whole: bool) -> list[dict[str, Any]]:
        """Return the options of ``groups`` with the numbers of all parameters or of the share's, as state dicts do."""
        numbered, start = [], 0
        for options, mine, local in zip(groups, self.param_groups, self._local.param_groups, strict=True):
            count = len((mine if whole else local)["params"])
            numbered.append({**options, "params": list(range(start, start + count))})
            start += count
        return numbered

    def _gather(self) -> None:
        """Give every rank the new values of all parameters, in one collective for each dtype."""
        for dtype in dict.fromkeys(param.dtype for param in self._params):
            shares = [[param for param in share if param.dtype == dtype] for share in self._shares]
            length = max(sum(param.numel() for param in share) for share in shares)
            own = shares[self.rank]
            piece = torch.zeros(length, dtype=dtype, device=self._params[0].device)
            if own:
                flat = _flatten_dense_tensors(own)
                piece[: flat.numel()] = flat
            pieces = piece.new_empty(self.size * length)
            ALL_GATHER(pieces, piece)
            params, values = [], []
            for rank, share in enumerate(shares):
                if share and rank != self.rank:
                    params += share
                    values += _unflatten_dense_tensors(pieces[rank * length : (rank + 1) * length], share)
            if params:
                torch._foreach_copy_(params, values)
