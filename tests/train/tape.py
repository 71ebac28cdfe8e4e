"""A stand-in for CUDA graphs on the CPU, as strict as they are.

Recording notes every operator with the tensors it got and gave; replaying repeats them on the same memory. So what
Python decided, and every number it passed, stays as it was when it was recorded. An operator whose value the host reads
is an error.
"""

from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape:
    """A :class:`bert.train.graphs.Capture`; counts what it did."""

    def __init__(self) -> None:
        self.ran = self.recorded = self.replayed = 0

    def run(self, work):
        self.ran += 1
        return work()

    def record(self, work):
        self.recorded += 1
        # On CUDA, recording does not run; here it does, so what it changed in place is put back.
        with patch("torch.nn.functional.one_hot", _one_hot), _Recorder() as recorder:
            result = work()
        recorder.undo()

        def replay():
            self.replayed += 1
            recorder.replay()
            return result

        return replay


def _one_hot(index: torch.Tensor, classes: int) -> torch.Tensor:
    """F.one_hot as on CUDA, where it does not read the indices on the host to check them."""
    return (index[:, None] == torch.arange(classes)).long()


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._steps: list[tuple[Any, ...]] = []
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._random = torch.get_rng_state()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError(f"{function} makes the host wait for a value")
        mutates = function._schema.is_mutable
        inputs = _tensors((args, kwargs))
        if mutates:
            self._before += [(each, each.clone()) for each in inputs]
        result = function(*args, **kwargs)
        memory = {each.untyped_storage().data_ptr() for each in inputs}
        new = [each.untyped_storage().data_ptr() not in memory for each in _tensors(result)]
        if mutates or any(new):  # else a view, which shows the memory as it is
            self._steps.append((function, args, kwargs, _tensors(result), new))
        return result

    def undo(self) -> None:
        with torch.no_grad():
            for tensor, before in reversed(self._before):
                tensor.copy_(before)
        self._before.clear()
        torch.set_rng_state(self._random)

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, outputs, new in self._steps:
                for old, again, copied in zip(outputs, _tensors(function(*args, **kwargs)), new, strict=True):
                    if copied:
                        old.copy_(again)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]
