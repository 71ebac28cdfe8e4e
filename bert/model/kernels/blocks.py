# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
"""What the kernels share: how work is divided, blocks of rows, and the device of a launch.

Each operator is an ``autograd.Function`` that launches its kernels itself. It costs the host a third of a custom
operator's time, and ``torch.compile`` sees the kernels and launches them from the code it generates, in both
directions::

    with on_device_of(x):
        kernel[grid](x, ..., **launch.options())
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Launch(NamedTuple):
    """How a kernel divides its work, in blocks of ``rows`` times ``columns``; of attention: queries times keys."""

    rows: int
    columns: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        return {"ROWS": self.rows, "COLUMNS": self.columns, "num_warps": self.warps, "num_stages": self.stages}


def on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Make the GPU of ``tensor`` the current one, on which Triton launches; code of torch.compile does it itself."""
    return nullcontext() if torch.compiler.is_compiling() else torch.cuda.device_of(tensor)


@triton.jit
def tile(base, rows, limit, STRIDE: tl.constexpr, SIZE: tl.constexpr):
    """Load [rows, SIZE] from ``base``, where rows are ``STRIDE`` apart; zeros from row ``limit`` on."""
    return tl.load(base + rows[:, None] * STRIDE + tl.arange(0, SIZE)[None, :], mask=rows[:, None] < limit, other=0.0)


@triton.jit
def store_tile(base, values, rows, limit, STRIDE: tl.constexpr, SIZE: tl.constexpr):
    at = base + rows[:, None] * STRIDE + tl.arange(0, SIZE)[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=rows[:, None] < limit)
