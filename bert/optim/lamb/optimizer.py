"""The LAMB optimizer.

The rule is :func:`bert.optim.lamb.reference.lamb_step`; this class hands tensors and state to one of the
``IMPLEMENTATIONS``, which all give the same result. Invariants: a step whose gradients hold an infinity or a NaN
changes no parameter, no moment and no step counter; moments are fp32, and a half-precision parameter has an fp32
master copy, in memory and in the state dict::

    optimizer = Lamb(parameter_groups(model.named_parameters(), 0.01), lr=6e-3)
    loss.backward()
    optimizer.step()
    optimizer.grad_norm, optimizer.skipped          # tensors; reading them waits for the device
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from bert.errors import UsageError
from bert.optim.gradients import global_norm, gradient_factor
from bert.optim.lamb.blocked import BlockedUpdate
from bert.optim.lamb.foreach import foreach_update
from bert.optim.lamb.reference import LambGroup, LambOptions, reference_update
from bert.optim.state import load_full_precision, parameter_state

Update = Callable[[list[LambGroup], Tensor, Tensor], None]
GROUP_OPTIONS = ("lr", "betas", "eps", "weight_decay", "bias_correction", "grad_averaging")


def _build_triton(programs: int | None = 0) -> Update:
    if not has_triton_package():
        raise UsageError(
            "LAMB implementation triton: the package `triton` is not installed (it comes with torch for CUDA)"
        )
    from bert.optim.lamb.triton import TritonUpdate  # imported here: a CPU installation has no Triton

    return TritonUpdate(programs=programs)


IMPLEMENTATIONS: dict[str, Callable[[], Update]] = {
    "triton": _build_triton,  # CUDA: two kernels for a series of tensors, no host synchronisation
    "persistent": lambda: _build_triton(None),  # CUDA: one kernel; not proved on a GPU yet
    "blocked": BlockedUpdate,  # CPU
    "foreach": lambda: foreach_update,  # any device
    "reference": lambda: reference_update,  # any device, slowly
}


def default_implementation(device: torch.device, dtypes: set[torch.dtype]) -> str:
    """Return the fastest implementation for parameters of ``dtypes`` on ``device``."""
    if device.type == "cpu":
        return "blocked"
    fused = device.type == "cuda" and has_triton_package() and torch.float64 not in dtypes
    return "triton" if fused else "foreach"


class Lamb(torch.optim.Optimizer):
    """LAMB as NVIDIA's FusedLAMB computes it: global clipping first, trust ratio on tensors with weight decay.

    A group may set its own ``GROUP_OPTIONS``, which :class:`LambOptions` explains; ``lr`` may be a tensor.
    ``max_grad_norm`` applies to all groups together, 0 switches clipping off; ``use_nvlamb`` applies the trust ratio to
    every tensor. ``implementation`` is a name of ``IMPLEMENTATIONS``, ``"auto"``, or a callable of the same form.
    """

    grad_norm: Tensor  # of the last step: L2 norm of the unscaled gradients of all groups, before clipping
    skipped: Tensor  # of the last step: bool, whether the norm was not finite and nothing was changed

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = 1.0,
        use_nvlamb: bool = False,
        bias_correction: bool = True,
        grad_averaging: bool = True,
        implementation: str | Update = "auto",
    ) -> None:
        if isinstance(implementation, str) and implementation not in ("auto", *IMPLEMENTATIONS):
            known = ", ".join(("auto", *IMPLEMENTATIONS))
            raise UsageError(f"LAMB implementation {implementation}: unknown, expected one of {known}")
        if not (0.0 <= betas[0] < 1.0 and 0.0 <= betas[1] < 1.0):
            raise UsageError(f"LAMB betas {betas}: expected 0 <= beta < 1")
        self.max_grad_norm, self.use_nvlamb, self.implementation = max_grad_norm, use_nvlamb, implementation
        self._update: Update | None = None
        options = (lr, betas, eps, weight_decay, bias_correction, grad_averaging)
        super().__init__(params, dict(zip(GROUP_OPTIONS, options, strict=True)))
        self.grad_norm = torch.zeros((), device=self._device)
        self.skipped = torch.zeros((), dtype=torch.bool, device=self._device)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its step counter starts at 0 unless the group has one."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for param in group["params"]:
            if not param.is_contiguous():
                raise UsageError(f"LAMB needs contiguous parameters, got strides {param.stride()} for {param.shape}")
        _place_step(group, self._device)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: Tensor | float | None = None,
        grad_norm: Tensor | None = None,
    ) -> Any:
        """Take one step, or none if a gradient is not finite; return what ``closure`` returns.

        ``grad_scale`` is the loss scale that is still inside the gradients. ``grad_norm`` is the global norm of the
        *unscaled* gradients, if the caller has computed it. The gradients themselves are not changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [self._collect(group) for group in self.param_groups]
        grads = [grad for group in groups for grad in group.grads]
        if not grads:
            self.grad_norm, self.skipped = torch.zeros_like(self.grad_norm), torch.zeros_like(self.skipped)
            return loss
        scale = 1.0 if grad_scale is None else grad_scale
        self.grad_norm = global_norm(grads) / scale if grad_norm is None else grad_norm
        self.skipped = ~torch.isfinite(self.grad_norm)
        for group in groups:
            group.step += ~self.skipped
        factor = gradient_factor(self.grad_norm, self.max_grad_norm, scale)
        self._implementation()(groups, factor, self.skipped)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class or of NVIDIA's FusedLAMB, whose step is a number."""
        load_full_precision(self, state_dict)
        for group in self.param_groups:
            _place_step(group, self._device)

    @property
    def _device(self) -> torch.device:
        params = (param for group in self.param_groups for param in group["params"])
        return next((param.device for param in params), torch.device("cpu"))

    def _implementation(self) -> Update:
        if self._update is None:
            chosen = self.implementation
            if chosen == "auto":
                dtypes = {param.dtype for group in self.param_groups for param in group["params"]}
                chosen = default_implementation(self._device, dtypes)
            self._update = IMPLEMENTATIONS[chosen]() if isinstance(chosen, str) else chosen
        return self._update

    def _collect(self, group: dict[str, Any]) -> LambGroup:
        """Gather the tensors of one group that have a gradient, creating their state on first sight."""
        _place_step(group, self._device)
        options = LambOptions(use_nvlamb=self.use_nvlamb, **{name: group[name] for name in GROUP_OPTIONS})
        collected = LambGroup(group["step"], options)
        params: list[Tensor] = group["params"]
        for param in params:
            grad = param.grad
            if grad is None:
                continue
            state = parameter_state(self.state[param], param)
            collected.params.append(param)
            collected.weights.append(state.get("master", param))
            collected.grads.append(grad.contiguous())
            collected.exp_avgs.append(state["exp_avg"])
            collected.exp_avg_sqs.append(state["exp_avg_sq"])
        return collected


def _place_step(group: dict[str, Any], device: torch.device) -> None:
    """Make the step counter of a group a tensor beside its parameters; a checkpoint may hold it as a number."""
    group["step"] = torch.as_tensor(group.get("step", 0)).to(device, torch.int64)
