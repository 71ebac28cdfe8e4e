"""Small tensors between host and GPU without waiting for what the GPU has yet to do.

A plain copy to or from a GPU ends only when all that was queued before it has ended, so one number a step keeps the
host from running ahead. Through page-locked memory the copy is queued like everything else::

    counts = upload(torch.tensor([76, 4]), device)
    norm = HostCopy(norm)           # starts
    norm.read()                     # waits for the norm, not for what was queued after it
"""

from __future__ import annotations

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the host; torch keeps the page-locked copy until it was read."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class HostCopy:
    """A scalar on its way to the host."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)  # page-locked where it comes from a GPU
        self._arrived = torch.cuda.Event() if value.device.type == "cuda" else None
        if self._arrived:
            self._arrived.record()

    def read(self) -> float:
        """Wait for what made the value and return it."""
        if self._arrived:
            self._arrived.synchronize()
        return float(self._value)
