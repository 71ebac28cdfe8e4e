# Triton is not installed everywhere, and its kernels are no Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAssignmentType=false
"""Dropout masks that a backward kernel can draw again, from one random key for every row and every column.

A counter-based generator such as Philox costs more on a GPU than the memory traffic of the kernel around it. Here the
keys are drawn outside (:func:`bert.model.dropout.draw_keys`), and an element costs two multiplications to join them.
Called inside kernels, so import it only where Triton is installed::

    kept = keep(row_keys[:, None], column_keys[None, :], 0.1)     # bool [rows, columns]
"""

import triton
import triton.language as tl


@triton.jit
def keep(row_keys, column_keys, DROPOUT: tl.constexpr):
    """Return what survives, for odd random keys of 32 bits: true with probability 1 - ``DROPOUT``, to 2^-32.

    The keys are multiplied: joined by exclusive or, the four corners of a rectangle would be dependent.
    """
    x = (row_keys * column_keys).to(tl.uint32)
    x ^= x >> 15
    x *= 0x7FEB352D  # of Wellons's lowbias32
    threshold: tl.constexpr = int(DROPOUT * 4294967296.0)
    return x >= threshold
