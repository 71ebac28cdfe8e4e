"""Keep the memory of a CPU run from creeping up.

Batches of ever different lengths leave holes in glibc's heap that fit nothing later: a run of a few hundred megabytes
grows to gigabytes within minutes. Handing the holes back now and then bounds it, at no measurable cost::

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

RELEASE_EVERY = 50  # optimizer steps


def build_release(device: torch.device) -> Callable[[], object]:
    """Return what gives free heap pages back to the system; it does nothing on a GPU and without glibc."""
    if device.type == "cpu" and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            return lambda: trim(0)
    return lambda: None
