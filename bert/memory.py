"""Memory of host and GPU: copies that do not wait, and a heap that does not grow without limit.

A plain copy to or from a GPU waits for everything queued before it, so reading one number per step keeps the host from
running ahead. Through page-locked memory the copy is queued like everything else::

    counts = upload(torch.tensor([76, 4]), device)
    norm = HostCopy(norm)           # starts
    norm.read()                     # waits for the norm, not for what was queued after it

On a CPU, batches of changing lengths leave holes in glibc's heap that nothing later fits into: a run of a few hundred
megabytes grows to gigabytes within minutes. Returning the holes now and then limits it, at no measurable cost::

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
    """Copy from the host; torch keeps the page-locked copy until it has been read."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class HostCopy:
    """A tensor on its way to the host."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)  # page-locked if it comes from a GPU
        self._arrived = torch.cuda.Event() if value.device.type == "cuda" else None
        if self._arrived:
            self._arrived.record()

    def wait(self) -> Tensor:
        """Wait until the tensor has been computed and return it."""
        if self._arrived:
            self._arrived.synchronize()
        return self._value

    def read(self) -> float:
        """Return the value of a scalar, as :meth:`wait` does."""
        return float(self.wait())


def build_release(device: torch.device) -> Callable[[], object]:
    """Return a function that gives free heap pages back to the system; it does nothing for a GPU or without glibc."""
    if device.type == "cpu" and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            return lambda: trim(0)
    return lambda: None
