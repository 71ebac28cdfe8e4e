"""How long batches took, as NVIDIA's scripts report it.

latency_summary([3.0, 1.0, 2.0, 4.0])["50%"]        # 2.0, the second of four
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = {"50%": 0.5, "90%": 0.9, "95%": 0.95, "99%": 0.99, "100%": 1.0}


def latency_summary(latencies: Sequence[float]) -> dict[str, float]:
    """Return percentiles, ``avg``, ``std`` (of the population) and ``sum``, in the unit of ``latencies``.

    A percentile q of n values is the one at int(n·q) − 1 in their order. Nothing for no values.
    """
    if not latencies:
        return {}
    ordered = sorted(latencies)
    found = {name: float(ordered[max(int(len(ordered) * q) - 1, 0)]) for name, q in PERCENTILES.items()}
    return {**found, "avg": float(np.mean(ordered)), "std": float(np.std(ordered)), "sum": float(np.sum(ordered))}
