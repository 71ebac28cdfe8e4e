"""Predictions come back in the order of the input, and a device is given the next batches before the last is read."""

from typing import Any

import numpy as np
import pytest
import torch

from bert.distributed import World
from bert.finetune import predict as module
from bert.memory import HostCopy
from bert.sequences import from_rows
from bert.train.precision import Precision, PrecisionConfig

ROWS = [[3, 4], [5], [6, 7, 8, 9], [10], [11, 12, 13]]


class Doubled:
    """Twice every token's id: the second output is the token's number in its batch."""

    per_token, width = True, 2

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def predict(self, batch: Any) -> torch.Tensor:
        self.calls.append("predict")
        return torch.stack([2 * batch.input_ids, torch.arange(batch.num_tokens, device=batch.input_ids.device)], -1)

    def eval(self) -> None: ...
    def train(self, mode: bool = True) -> None: ...


def run(device: str, calls: list[str]) -> module.Outputs:
    where = torch.device(device)
    world = World(0, 0, 1, where)
    sequences = from_rows(ROWS, [len(row) for row in ROWS])
    return module.predict(Doubled(calls), sequences, 1, Precision(PrecisionConfig(), where), world)


@pytest.mark.parametrize("ahead", [{}, {"cpu": 2}])
def test_results_keep_their_order(monkeypatch, ahead):
    calls: list[str] = []

    class Copy(HostCopy):
        def wait(self) -> torch.Tensor:
            calls.append("read")
            return super().wait()

    monkeypatch.setattr(module, "AHEAD", ahead)
    monkeypatch.setattr(module, "HostCopy", Copy)
    outputs = run("cpu", calls)
    assert outputs.values[:, 0].tolist() == [2.0 * token for row in ROWS for token in row]
    assert outputs.values[:, 1].tolist() == [0, 1, 0, 0, 1, 2, 3, 0, 0, 1, 2]
    assert len(outputs.latencies) == len(ROWS) == sum(outputs.batch_sizes)
    assert 0 < sum(outputs.latencies) < outputs.seconds or ahead
    turn = ["predict", "read"]
    assert calls == (["predict", "predict", *(turn * 3), "read", "read"] if ahead else turn * 5)


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for(monkeypatch):
    """CUDA itself raises where the host would wait, other than for a batch that it reads."""
    monkeypatch.setattr(module, "all_reduce_sum", _unguarded)
    torch.zeros(1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        outputs = run("cuda", [])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.array_equal(outputs.values, run("cpu", []).values)
    assert min(outputs.latencies) > 0


def _unguarded(values: torch.Tensor) -> torch.Tensor:
    torch.cuda.set_sync_debug_mode("default")  # the results are complete; adding those of the ranks may wait
    return values
