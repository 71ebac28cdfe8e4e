"""Memory of host and GPU: copies that do not wait, and a heap that does not creep up.

A plain copy to or from a GPU ends only when everything queued before it has ended, so reading one number a step keeps
the host from running ahead. Through page-locked memory the copy is queued like everything else::

    counts = upload(torch.tensor([76, 4]), device)
    norm = HostCopy(norm)           # starts
    norm.read()                     # waits for the norm, not for what was queued after it

On a CPU, batches of ever different lengths leave holes in glibc's heap that fit nothing later: a run of a few hundred
megabytes grows to gigabytes within minutes. Returning the holes now and then bounds it, at no measurable cost::

    release = build_release(torch.device("cpu"))
    for iteration in ...:
        if iteration % RELEASE_EVERY == 0:
            release()
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import torch
from torch import Tensor

RELEASE_EVERY = 50  # optimizer steps


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


def build_release(device: torch.device) -> Callable[[], object]:
    """Return what gives free heap pages back to the system; it does nothing on a GPU and without glibc."""
    if device.type == "cpu" and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            return lambda: trim(0)
    return lambda: None
