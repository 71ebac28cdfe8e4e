"""A sharded optimizer against the one that it wraps: bit for bit, on two and three ranks."""

import copy
import math

import pytest
import torch
from ranks import run_ranks
from torch import nn

from bert.distributed import World
from bert.errors import UsageError
from bert.optim.build import OptimizerConfig, apply_gradients, build_optimizer, shard_optimizer
from bert.optim.sharded import deal


class Model(nn.Module):
    """Names as BERT's, tensors of very different sizes."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.words, self.dense, self.LayerNorm = nn.Embedding(50, 7), nn.Linear(7, 3), nn.LayerNorm(3)
        self.to(dtype)


def train(model: nn.Module, optimizer, steps: range, scale: float = 4.0) -> None:
    """Steps with gradients that are the same on every rank; the third is not finite."""
    for step in steps:
        torch.manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * scale
        if step == 2:
            next(model.parameters()).grad[0, 0] = math.inf
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1)
        apply_gradients(optimizer, scale)
        optimizer.zero_grad()


def compare(world: World) -> dict:
    """Six steps of both; the sharded one is saved after four, put together, and loaded into a new one."""
    results = {}
    for name, dtype in (("lamb", torch.float32), ("lamb", torch.bfloat16), ("adamw", torch.float32)):
        config = OptimizerConfig(optimizer=name)
        torch.manual_seed(0)
        whole = Model(dtype)
        model = copy.deepcopy(whole)
        reference = build_optimizer(config, whole)
        optimizer = shard_optimizer(build_optimizer(config, model), name, world.rank, world.size)
        train(whole, reference, range(4))
        train(model, optimizer, range(4))
        pieces = [None] * world.size
        torch.distributed.all_gather_object(pieces, optimizer.state_dict())
        merged = copy.deepcopy(
            {**pieces[0], "state": {index: s for piece in pieces for index, s in piece["state"].items()}}
        )
        expected = copy.deepcopy(reference.state_dict())
        again = shard_optimizer(build_optimizer(config, model), name, world.rank, world.size)
        again.load_state_dict(copy.deepcopy(merged))
        train(whole, reference, range(4, 6))
        train(model, again, range(4, 6))
        same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
        numbers = [len(piece["state"]) for piece in pieces]
        results[name, str(dtype)] = same, numbers, merged["state"], expected["state"], merged["param_groups"]
    return results


@pytest.mark.parametrize("size", [2, 3])
def test_the_step_is_that_of_the_whole_optimizer(tmp_path, size):
    for found in run_ranks(size, compare, tmp_path):
        for key, (same, numbers, merged, expected, groups) in found.items():
            assert same, key
            assert sum(numbers) == 5 and min(numbers) >= 1, key
            assert merged.keys() == expected.keys(), key
            for index, state in expected.items():
                assert state.keys() == merged[index].keys(), key
                for name, value in state.items():
                    assert torch.equal(value, merged[index][name]), (key, index, name)
            assert [group["params"] for group in groups] == [[0, 1], [2, 3, 4]]
            assert key[1] != "torch.bfloat16" or all("master" in state for state in merged.values())


def test_parameters_are_dealt_by_size():
    assert deal([5, 30, 20, 10, 5], 2) == [0, 0, 1, 1, 1]  # 30 and 20 + 10; of equals the lower rank
    assert deal([7, 7], 3) == [0, 1]


def test_an_optimizer_that_clips_by_itself_is_refused():
    model = Model(torch.float32)
    config = OptimizerConfig(optimizer="bertadam")
    with pytest.raises(UsageError, match="--shard_optimizer: expected --optimizer lamb or adamw, found bertadam"):
        shard_optimizer(build_optimizer(config, model), "bertadam", 0, 2)
