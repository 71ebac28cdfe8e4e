"""Memory of host and GPU: copies that do not wait, a heap that does not grow without limit, and the peaks of both.

A plain copy to or from a GPU waits for everything queued before it, so reading one number per step keeps the host from
running ahead. Through page-locked memory the copy is queued like everything else::

    counts = upload(torch.tensor([76, 4]), device)
    norm = HostCopy(norm)           # starts
    norm.read()                     # waits for the norm, not for what was queued after it

On a CPU, glibc returns a large tensor to the system when it is freed, and the next step pays a page fault for every
4 KiB of it again: 4 to 10 % of a training step. So freed memory is kept. Batches of changing lengths then leave holes
in the heap that nothing later fits into: a run of a few hundred megabytes grows to gigabytes within minutes. Returning
the holes now and then limits it, at no measurable cost::

    keep_freed_memory()
    release = build_release(torch.device("cpu"))
    for iteration in ...:
        if iteration % RELEASE_EVERY == 0:
            release()
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable

import torch
from torch import Tensor

RELEASE_EVERY = 50  # optimizer steps
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


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


def peak_memory(device: torch.device) -> tuple[int, int]:
    """Return the most bytes that tensors on ``device`` (0 for a CPU) and that this process on the host have held."""
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return on_device, resident * (1 if sys.platform == "darwin" else 1024)  # elsewhere it counts KiB


def keep_freed_memory() -> None:
    """Let glibc serve large tensors from its heap, and keep the heap when they are freed; nothing elsewhere."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
            mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the most before glibc 2.35
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def build_release(device: torch.device) -> Callable[[], object]:
    """Return a function that gives free heap pages back to the system; it does nothing for a GPU or without glibc."""
    if device.type == "cpu" and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            return lambda: trim(0)
    return lambda: None
