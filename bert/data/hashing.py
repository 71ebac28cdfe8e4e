"""Random numbers without state: every draw is a hash of its key.

The order of samples and the dynamic masks depend on keys such as (seed, epoch, sample) alone, so any rank, worker or
resumed run draws the same, in any order, and a whole micro-batch is drawn by a few vector operations. The hash is the
finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"); unlike the
streams of ``numpy.random.Generator`` it cannot change with the version of a library::

    rank_of = hash64(seed, epoch, np.arange(n)).argsort()      # a permutation of n shards
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

GAMMA = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


def mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble the bits of each value, one to one."""
    x = x ^ (x >> np.uint64(30))
    x *= FIRST
    x ^= x >> np.uint64(27)
    x *= SECOND
    x ^= x >> np.uint64(31)
    return x


def hash64(*keys: ArrayLike) -> NDArray[np.uint64]:
    """Return 64 random bits for each tuple of integers; arrays broadcast."""
    state = np.zeros(1, np.uint64)  # arrays of one dimension wrap around silently, scalars warn
    for key in keys:
        state = mix64(state + GAMMA + np.asarray(key, np.int64).astype(np.uint64))
    return state


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.floating]:
    """Map 64 random bits to [0, 1), by their upper 53."""
    return (bits >> np.uint64(11)) * 2.0**-53


def below(bits: NDArray[np.uint64], stop: int) -> NDArray[np.int64]:
    """Map 64 random bits to 0 .. ``stop`` - 1, by their upper 32."""
    return ((bits >> np.uint64(32)) * np.uint64(stop) >> np.uint64(32)).astype(np.int64)
