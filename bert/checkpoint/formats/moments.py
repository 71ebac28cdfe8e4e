"""The moments in a checkpoint of NVIDIA's run_pretraining.py, by the names of their parameters.

Its optimizer numbers the parameters: first those that decay, then biases and LayerNorms, each in the order of the
state dict beside it. Every shape is checked against that state dict::

    moments(load("ckpt_7038.pt"))["bert.pooler.dense.bias"]["exp_avg"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from bert.checkpoint.weights import with_rows
from bert.model.names import DECODER, canonical_names
from bert.optim.build import NO_DECAY

MOMENTS = ("exp_avg", "exp_avg_sq")


def moments(checkpoint: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Return {name: both moments}; raises ValueError if they do not belong to the model's parameters."""
    model = canonical_names(checkpoint["model"], bare=False)
    names = [name for name in model if name != DECODER]
    spared = [name for name in names if any(re.search(pattern, name) for pattern in NO_DECAY)]
    decayed = [name for name in names if name not in set(spared)]
    optimizer = checkpoint["optimizer"]
    indexes = [group["params"] for group in optimizer.get("param_groups", [])]
    if [len(group) for group in indexes] != [len(decayed), len(spared)]:
        raise ValueError("its optimizer's groups of parameters are not NVIDIA's")
    state = optimizer["state"]
    found: dict[str, dict[str, Tensor]] = {}
    for name, index in zip(chain(decayed, spared), chain.from_iterable(indexes), strict=True):
        pair = {moment: state.get(index, {}).get(moment) for moment in MOMENTS}
        if any(tensor is None or tensor.shape != model[name].shape for tensor in pair.values()):
            raise ValueError(f"the moments of number {index} are not those of {name}")
        found[name] = pair
    return found


def as_state_dict(found: dict[str, dict[str, Tensor]], names: Sequence[str], shapes: Sequence[Any]) -> dict[int, Any]:
    """Return the state of an optimizer whose parameters have these names and shapes, in its order.

    Vocabulary rows that the checkpoint lacks are 0. Raises ValueError for a parameter without moments.
    """
    state = {}
    for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        if name not in found:
            raise ValueError(f"it has no moments of {name}")
        state[index] = {moment: with_rows(tensor, shape) for moment, tensor in found[name].items()}
    return state
