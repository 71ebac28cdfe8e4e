# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAssignmentType=false
"""Dropout masks that a backward kernel can recompute, from one random key per row and one per column.

A counter-based generator such as Philox costs more on a GPU than the memory traffic of the kernel around it. Here the
keys are drawn outside (:func:`bert.model.dropout.draw_keys`), and combining two takes two multiplications per element.
Kernels call this function, so import it only where Triton is installed::

    kept = keep(row_keys[:, None], column_keys[None, :], 0.1)     # bool [rows, columns]
"""

import triton
import triton.language as tl


@triton.jit  # type: ignore[attr-defined]  # the checker sees ./triton
def keep(row_keys, column_keys, DROPOUT: tl.constexpr):
    """Return which elements survive, for odd random keys of 32 bits: true with probability 1 - ``DROPOUT``, to 2^-32.

    The keys are multiplied: with exclusive or, the four corners of a rectangle would be dependent.
    """
    x = (row_keys * column_keys).to(tl.uint32)
    x ^= x >> 15
    x *= 0x7FEB352D  # of Wellons's lowbias32
    threshold: tl.constexpr = int(DROPOUT * 4294967296.0)
    return x >= threshold
