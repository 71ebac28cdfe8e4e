"""Number formats: fp32, TF32, bf16, fp16 or FP8 arithmetic, the loss scale of fp16 and the scales of FP8.

A step whose gradients are not finite is skipped on every rank: neither parameters, moments, step nor learning rate
move. In fp16 the scale is then halved, down to a floor; after too many skips in a row the run stops with a diagnosis.
In the other precisions the scale is the constant 1 and the same rule applies.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bert.config import flag
from bert.errors import UsageError
from bert.model.fp8 import Scaling


@dataclass
class PrecisionConfig:
    fp16: bool = flag(False, "Mixed precision in fp16 with loss scaling.", aliases=("amp",))
    bf16: bool = flag(False, "Mixed precision in bf16; needs no loss scaling.")
    fp8: bool = flag(
        False, "Train the encoder's linear layers in FP8, the rest in bf16; needs a GPU of Ada, Hopper or newer."
    )
    tf32: bool = flag(False, "Let fp32 matrix products run on TF32 units (Ampere GPUs and newer).")
    loss_scale: float = flag(
        0.0, "Constant fp16 loss scale; 0 adapts it during the run.", minimum=0, aliases=["loss_scaling"]
    )
    init_loss_scale: float = flag(2.0**20, "First value of an adaptive loss scale.", minimum=1)
    max_skipped_steps: int = flag(50, "Stop after this many optimizer steps skipped in a row.", minimum=1)
    allreduce_post_accumulation_fp16: bool = flag(
        False, "Keep parameters, gradients and their all-reduce in half precision, with fp32 masters in LAMB."
    )


@dataclass
class LossScale:
    """The factor on an fp16 loss (Micikevicius et al. 2018): halved at an overflow, doubled after a quiet while."""

    value: float
    dynamic: bool
    growth_interval: int = 2000
    good_steps: int = 0

    def update(self, overflow: bool) -> None:
        if not self.dynamic:
            return
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.value = max(self.value / 2, 1.0)
        elif self.good_steps == self.growth_interval:
            self.value, self.good_steps = self.value * 2, 0


def has_bf16_instructions() -> bool:
    """Tell whether matrix products in bf16 are fast on this CPU; elsewhere they go element by element."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_fp8(config: PrecisionConfig, device: torch.device) -> None:
    """Raise UsageError where --fp8 is impossible."""
    if config.fp16 or config.allreduce_post_accumulation_fp16:
        other = "fp16" if config.fp16 else "allreduce_post_accumulation_fp16"
        raise UsageError(f"--fp8 and --{other}: choose one; FP8 needs bf16 beside it and fp32 parameters")
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < (8, 9):
            raise UsageError(
                f"--fp8: {torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, expected at "
                "least 8.9 (Ada, Hopper or newer)"
            )


class Precision:
    """The number format of a run: ``autocast()`` around the forward pass, ``scale`` on the loss, ``update`` after."""

    def __init__(
        self, config: PrecisionConfig, device: torch.device, notice: Callable[[str], None] = lambda line: None
    ) -> None:
        if config.fp16 and config.bf16:
            raise UsageError("--fp16 and --bf16: choose one")
        if config.fp8:
            check_fp8(config, device)
        half = config.allreduce_post_accumulation_fp16
        bf16 = config.bf16 or (config.fp8 and device.type == "cuda")
        self.dtype = torch.float16 if config.fp16 else torch.bfloat16 if bf16 else torch.float32
        if half and self.dtype == torch.float32:
            raise UsageError("--allreduce_post_accumulation_fp16 needs --fp16 or --bf16")
        self.device = device
        self.half_parameters = half
        self.max_skipped = config.max_skipped_steps
        self.skipped_in_a_row = 0
        self.skipped = 0
        start = (config.loss_scale or config.init_loss_scale) if config.fp16 else 1.0
        self.loss_scale = LossScale(start, dynamic=config.fp16 and config.loss_scale == 0)
        self.name = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(self.dtype, "tf32" if config.tf32 else "fp32")
        self.fp8: Scaling | None = None  # where the model trains in FP8
        if config.fp8:
            self.name = "fp8"
        if config.fp8 and device.type == "cpu":
            notice("warning: --fp8: emulated on a CPU, slow, with fp32 for the rest unless --bf16")
        if self.dtype == torch.bfloat16 and device.type == "cpu" and not has_bf16_instructions():
            notice("warning: --bf16: this CPU has no bf16 instructions, so it is many times slower than fp32")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32

    @property
    def parameter_dtype(self) -> torch.dtype:
        return self.dtype if self.half_parameters else torch.float32

    def autocast(self) -> AbstractContextManager:
        """Return the context of the forward pass; it does nothing in fp32 and with half-precision parameters."""
        enabled = self.dtype != torch.float32 and not self.half_parameters
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.loss_scale.value

    def update(self, finite: bool, grad_norm: float) -> None:
        """Record whether the step was applied; :class:`UsageError` with a diagnosis after too many skips in a row."""
        scale = self.loss_scale.value
        self.loss_scale.update(overflow=not finite)
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.skipped += not finite
        if self.skipped_in_a_row >= self.max_skipped:
            raise UsageError(
                f"{self.skipped_in_a_row} optimizer steps in a row had a gradient norm of {grad_norm} "
                f"(--max_skipped_steps {self.max_skipped}; {self.name}, loss scale {scale:g}): the run diverged or its "
                "data is bad. Try a lower --learning_rate, a longer --warmup_proportion or --bf16"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "scale": self.loss_scale.value,
            "good_steps": self.loss_scale.good_steps,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            **({"fp8": self.fp8.state_dict()} if self.fp8 else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.loss_scale.dynamic and state["scale"] > 1:
            self.loss_scale.value, self.loss_scale.good_steps = state["scale"], state["good_steps"]
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]
        if self.fp8 and "fp8" in state:
            self.fp8.load_state_dict(state["fp8"])
