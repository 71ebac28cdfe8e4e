"""Arrays under another system's names ⇄ tensors under today's, by a table of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bert.convert.names import NameTable
from bert.errors import UsageError


def to_today(table: NameTable, names: Iterable[str], read: Callable[[str], NDArray], what: str) -> dict[str, Any]:
    """Return ``{"model": tensors, "skipped": names}``; ``read`` gives the array of a name, in the other's layout.

    An optimizer's slots are skipped unread. A name that the table lacks keeps its words, so that it is reported.
    """
    model: dict[str, Tensor] = {}
    skipped, known = [], set(names)
    for name in sorted(known):
        if table.is_slot(name, known):
            skipped.append(name)
            continue
        place, tensor = table.to_today(name), torch.from_numpy(read(name))
        today = place.name if place else name.replace(table.separator, ".")
        if today in model:
            raise UsageError(f"{what}: two tensors mean {today}; one of them is {name}")
        swapped = place is not None and place.transposed and tensor.ndim == 2
        model[today] = tensor.t().contiguous() if swapped else tensor
    return {"model": model, "skipped": skipped}


def from_today(table: NameTable, tensors: dict[str, Tensor]) -> tuple[dict[str, NDArray], list[str]]:
    """Return the arrays in the other's names and layout, in fp32, and the names that the table lacks."""
    arrays: dict[str, NDArray] = {}
    left_out = []
    for name, tensor in tensors.items():
        place = table.from_today(name)
        if place is None:
            left_out.append(name)
            continue
        array = tensor.detach().float().numpy()
        arrays[place.name] = np.ascontiguousarray(array.T) if place.transposed else array
    return arrays, left_out
