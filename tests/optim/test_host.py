"""An optimizer in host memory takes the same steps as one on the model's device."""

import copy

import pytest
import torch
from torch import nn

from bert.optim.build import OptimizerConfig, apply_gradients, build_optimizer
from bert.optim.host import HostOptimizer


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense = nn.Linear(6, 4)
        self.LayerNorm = nn.LayerNorm(4)

    def forward(self, x):
        return self.LayerNorm(self.dense(x)).square().sum() + self.dense(x).sum()


def step(model: nn.Module, optimizer, batch: torch.Tensor, scale: float = 1.0) -> float:
    (model(batch) * scale).backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    norm = float(apply_gradients(optimizer, scale, 1.0))
    optimizer.zero_grad(set_to_none=True)
    return norm


@pytest.mark.parametrize("name", ["adamw", "bertadam", "lamb"])
def test_same_parameters_norms_and_moments(name):
    config, batches = OptimizerConfig(name), torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(1))
    model, twin = Model(), Model()
    on_device, host = build_optimizer(config, model), HostOptimizer(twin, lambda copy: build_optimizer(config, copy))
    for batch in batches:
        assert step(model, on_device, batch) == step(twin, host, batch)
        for expected, found in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(expected, found)
    assert all(parameter.grad is None for parameter in twin.parameters())


def test_a_restored_one_continues_alike():
    config, batches = OptimizerConfig("adamw"), torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))
    model = Model()
    optimizer = HostOptimizer(model, lambda copy: build_optimizer(config, copy))
    for batch in batches[:2]:
        step(model, optimizer, batch)
    twin = copy.deepcopy(model)
    other = HostOptimizer(twin, lambda each: build_optimizer(config, each))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for batch in batches[2:]:
        step(model, optimizer, batch)
        step(twin, other, batch)
    for expected, found in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_infinite_gradients_change_nothing():
    model = Model()
    before = copy.deepcopy(model.state_dict())
    optimizer = HostOptimizer(model, lambda each: build_optimizer(OptimizerConfig("adamw"), each))
    norm = step(model, optimizer, torch.full((3, 6), float("inf")))
    assert not norm < float("inf")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_model_in_half_precision_keeps_its_moments_in_single():
    model = Model().bfloat16()
    optimizer = HostOptimizer(model, lambda each: build_optimizer(OptimizerConfig("adamw"), each))
    step(model, optimizer, torch.randn(3, 6).bfloat16())
    assert all(parameter.dtype is torch.bfloat16 for parameter in model.parameters())
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    assert moments
    assert all(moment.dtype is torch.float32 for moment in moments)
