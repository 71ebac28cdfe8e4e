"""Models without weights, made in no time, that are then given tensors which are there already.

with skeleton():
    model = BertForMultiTask(config, [2, 3])
model.load_state_dict(tensors, assign=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what torch.nn.init does: on the device meta it takes milliseconds for each tensor."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@contextmanager
def skeleton() -> Iterator[None]:
    """Make the parameters of modules without memory or values."""
    with torch.device("meta"), _NothingDrawn():
        yield
