# Triton is not installed everywhere, and its kernels are no Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAssignmentType=false
"""Dropout masks as a function of (seed, row, column), so that a backward kernel draws again what a forward one drew.

A counter-based generator as good as Philox costs more on a GPU than the memory traffic of the kernel around it. Here a
key is hashed for every row and for every column, and an element costs two multiplications to join them. Import it only
where Triton is installed; it is called inside kernels::

    kept = keep(keys(seed, rows)[:, None], keys(~seed, columns)[None, :], 0.1)     # bool [rows, columns]
"""

import triton
import triton.language as tl


@triton.jit
def mix(x):
    """Hash uint32: two rounds of multiply and xor-shift, with the constants of Wellons's lowbias32."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def keys(seed, index):
    """Return an odd uint32 key for every ``index`` under an int64 ``seed``."""
    low, high = mix(seed.to(tl.uint32)), (seed >> 32).to(tl.uint32)
    return mix(mix(index.to(tl.uint32) ^ low) ^ high) | 1


@triton.jit
def keep(row_keys, column_keys, DROPOUT: tl.constexpr):
    """Return what survives, for odd random keys of 32 bits: true with probability 1 - ``DROPOUT``, to 2^-32.

    The keys are multiplied: joined by exclusive or, the four corners of a rectangle would be dependent.
    """
    x = (row_keys * column_keys).to(tl.uint32)
    x ^= x >> 15
    x *= 0x7FEB352D
    threshold: tl.constexpr = int(DROPOUT * 4294967296.0)
    return x >= threshold
