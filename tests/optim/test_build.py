"""Optimizers by name, parameter groups, and one step through apply_gradients."""

import math
import sys
import types

import pytest
import torch
from torch import nn

from bert.config import parse_args
from bert.errors import UsageError
from bert.optim.bertadam import BertAdam
from bert.optim.build import OPTIMIZERS, OptimizerConfig, apply_gradients, build_optimizer, parameter_groups
from bert.optim.lamb import Lamb


class Tiny(nn.Module):
    """An embedding tied to its decoder, a linear layer and a LayerNorm, under BERT's names."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(7, 4)
        self.dense = nn.Linear(4, 4)
        self.LayerNorm = nn.LayerNorm(4)
        self.decoder = nn.Linear(4, 7)
        self.decoder.weight = self.embeddings.weight

    def forward(self, ids):
        return self.decoder(self.LayerNorm(self.dense(self.embeddings(ids))))


def tiny():
    torch.manual_seed(0)
    model = Tiny()
    loss = nn.functional.cross_entropy(model(torch.tensor([1, 2, 3])), torch.tensor([4, 5, 6]))
    loss.backward()
    return model


def names_of(model, group):
    return {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}


# --- parameter groups ------------------------------------------------------------------------------------------------


def test_group_0_decays_and_group_1_does_not():
    model = tiny()
    groups = parameter_groups(model.named_parameters(remove_duplicate=False), 0.01)
    assert names_of(model, groups[0]) == {"embeddings.weight", "dense.weight"}
    assert names_of(model, groups[1]) == {"dense.bias", "LayerNorm.weight", "LayerNorm.bias", "decoder.bias"}
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]


def test_tied_parameters_count_once():
    model = tiny()
    named = list(model.named_parameters(remove_duplicate=False))
    assert len(named) == 7  # the embedding's weight appears under two names
    groups = parameter_groups(named, 0.01)
    assert sum(len(group["params"]) for group in groups) == 6


def test_frozen_parameters_are_left_out_but_satisfy_a_pattern():
    model = tiny()
    for name, p in model.named_parameters():
        p.requires_grad_(name == "dense.weight")
    groups = parameter_groups(model.named_parameters(), 0.01)
    assert names_of(model, groups[0]) == {"dense.weight"} and groups[1]["params"] == []


@pytest.mark.parametrize("name", ["lamb", "adamw", "bertadam"])
def test_a_group_may_be_empty(name):
    model = tiny()
    for key, p in model.named_parameters():
        p.requires_grad_(key == "dense.weight")
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer = build_optimizer(OptimizerConfig(optimizer=name), model)
    assert torch.isfinite(apply_gradients(optimizer))


def test_a_pattern_that_matches_nothing_is_an_error():
    model = tiny()
    with pytest.raises(UsageError, match="'gamma'; there are embeddings.weight, dense.weight, .* and 1 more"):
        parameter_groups(model.named_parameters(), 0.01, no_decay=["bias", "gamma"])


def test_patterns_are_regular_expressions():
    model = tiny()
    groups = parameter_groups(model.named_parameters(), 0.1, no_decay=[r"^dense\."])
    assert names_of(model, groups[1]) == {"dense.weight", "dense.bias"}


def test_parameters_with_a_rate_of_their_own_are_in_two_more_groups():
    model = tiny()
    groups = parameter_groups(model.named_parameters(), 0.1, factors={r"^dense\.": 5.0})
    assert names_of(model, groups[0]) == {"embeddings.weight"}
    assert [names_of(model, group) for group in groups[2:]] == [{"dense.weight"}, {"dense.bias"}]
    assert [group.get("lr_factor", 1.0) for group in groups] == [1.0, 1.0, 5.0, 5.0]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    with pytest.raises(UsageError, match="no parameter name matches the learning-rate pattern 'adapters'"):
        parameter_groups(model.named_parameters(), 0.1, factors={"adapters": 5.0})


# --- building --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("lamb", Lamb), ("adamw", torch.optim.AdamW), ("bertadam", BertAdam)])
def test_options_reach_the_optimizer(name, kind):
    flags = f"--optimizer {name} --weight_decay 0.1 --adam_beta1 0.8 --adam_beta2 0.99 --adam_eps 1e-3".split()
    config = parse_args(OptimizerConfig, [*flags, "--max_grad_norm", "0.5", "--use_nvlamb"])
    optimizer = build_optimizer(config, tiny())
    assert type(optimizer) is kind
    for group, decay in zip(optimizer.param_groups, (0.1, 0.0), strict=True):
        assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == ((0.8, 0.99), 1e-3, decay, 0.0)
    if isinstance(optimizer, Lamb):
        assert optimizer.max_grad_norm == 0.5 and optimizer.use_nvlamb
    if isinstance(optimizer, BertAdam):
        assert {group["max_grad_norm"] for group in optimizer.param_groups} == {0.5}


def test_defaults_are_the_published_recipe():
    config = parse_args(OptimizerConfig, [])
    assert config == OptimizerConfig("lamb", 0.01, 0.9, 0.999, 1e-6, 1.0, False)


def test_unknown_optimizer_names_the_known_ones():
    with pytest.raises(UsageError, match="--optimizer lam: unknown, expected one of lamb, adamw, bertadam, apex_lamb"):
        build_optimizer(OptimizerConfig(optimizer="lam"), tiny())
    assert list(OPTIMIZERS) == ["lamb", "adamw", "bertadam", "apex_lamb"]


def test_a_class_by_name_takes_what_its_constructor_knows():
    optimizer = build_optimizer(OptimizerConfig(optimizer="torch.optim:SGD", weight_decay=0.3), tiny())
    assert type(optimizer) is torch.optim.SGD and optimizer.defaults["weight_decay"] == 0.3


@pytest.mark.parametrize("name", ["torch.optim:Nothing", "no_such_package:Adam", ":Adam", "torch.optim:"])
def test_a_class_that_does_not_exist(name):
    with pytest.raises(UsageError, match=f"--optimizer {name}: .*expected package.module:Class"):
        build_optimizer(OptimizerConfig(optimizer=name), tiny())


def test_apex_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)
    with pytest.raises(UsageError, match="apex_lamb: needs NVIDIA's apex, and it is not installed; --optimizer lamb"):
        build_optimizer(OptimizerConfig(optimizer="apex_lamb"), tiny())


def test_the_other_apex_of_pypi(monkeypatch, tmp_path):
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apex", raising=False)
    with pytest.raises(UsageError, match="is another one"):
        build_optimizer(OptimizerConfig(optimizer="apex_lamb"), tiny())
    monkeypatch.delitem(sys.modules, "apex", raising=False)


def test_apex_is_used_if_installed(monkeypatch):
    package, optimizers = types.ModuleType("apex"), types.ModuleType("apex.optimizers")

    class FusedLAMB(torch.optim.SGD):
        def __init__(self, params, lr, betas, eps, weight_decay, max_grad_norm, use_nvlamb):
            super().__init__(params, lr)
            self.seen = (lr, betas, eps, weight_decay, max_grad_norm, use_nvlamb)

    optimizers.FusedLAMB = FusedLAMB
    monkeypatch.setitem(sys.modules, "apex", package)
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)
    optimizer = build_optimizer(OptimizerConfig(optimizer="apex_lamb", max_grad_norm=2.0), tiny())
    assert optimizer.seen == (0.0, (0.9, 0.999), 1e-6, 0.01, 2.0, False)


# --- applying gradients ----------------------------------------------------------------------------------------------

ALL = ["lamb", "adamw", "bertadam", "torch.optim:AdamW", "torch.optim:SGD"]


def set_lr(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def values(model, optimizer):
    state = [v.clone() for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    steps = [g["step"].clone() for g in optimizer.param_groups if "step" in g]
    return [p.detach().clone() for p in model.parameters()] + state + steps


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1.0, 4096.0, torch.tensor(4096.0)], ids=["1", "4096", "tensor"])
def test_the_norm_is_unscaled_and_the_scale_changes_nothing(name, scale):
    expected, model = tiny(), tiny()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
    reference, optimizer = (build_optimizer(OptimizerConfig(optimizer=name), m) for m in (expected, model))
    for opt in (reference, optimizer):
        set_lr(opt, 0.1)
    for p in model.parameters():
        p.grad *= scale
    apply_gradients(reference)
    assert float(apply_gradients(optimizer, scale)) == pytest.approx(norm, rel=1e-6)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def test_adamw_is_clipped_by_the_global_norm():
    expected, model = tiny(), tiny()
    for m in (expected, model):
        for p in m.parameters():
            p.grad *= 50.0
    optimizer = build_optimizer(OptimizerConfig(optimizer="adamw"), model)
    reference = torch.optim.AdamW(parameter_groups(expected.named_parameters(), 0.01), lr=0.1, eps=1e-6, foreach=False)
    set_lr(optimizer, 0.1)
    for _ in range(2):
        norm = apply_gradients(optimizer, max_grad_norm=0.25)
        assert float(norm) > 1.0
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.25)
        reference.step()
        for m in (expected, model):
            for i, p in enumerate(m.parameters()):
                p.grad = torch.full_like(p, 3.0 + i)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_sgd_moves_by_the_clipped_gradient():
    p = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([p], lr=1.0)
    p.grad = torch.tensor([6.0, 8.0])
    assert float(apply_gradients(optimizer, grad_scale=2.0, max_grad_norm=1.0)) == 5.0
    torch.testing.assert_close(p.data, torch.tensor([-0.6, -0.8]), rtol=1e-6, atol=0)
    p.grad = torch.tensor([6.0, 8.0])
    apply_gradients(optimizer, grad_scale=2.0, max_grad_norm=0)
    torch.testing.assert_close(p.data, torch.tensor([-3.6, -4.8]), rtol=1e-6, atol=0)


def test_an_optimizer_with_its_own_limit_is_only_unscaled():
    class Clipping(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, lr=1.0)
            self.defaults["max_grad_norm"] = 1.0

    p = nn.Parameter(torch.zeros(2))
    optimizer = Clipping([p])
    p.grad = torch.tensor([6.0, 8.0])
    apply_gradients(optimizer, grad_scale=2.0)
    assert p.tolist() == [-3.0, -4.0]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_step_that_is_not_finite_is_skipped(name, bad):
    model = tiny()
    optimizer = build_optimizer(OptimizerConfig(optimizer=name), model)
    set_lr(optimizer, 0.1)
    apply_gradients(optimizer)
    before = values(model, optimizer)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.dense.bias.grad[2] = bad
    assert not torch.isfinite(apply_gradients(optimizer, 1024.0))
    assert all(torch.equal(a, b) for a, b in zip(before, values(model, optimizer), strict=True))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    assert torch.isfinite(apply_gradients(optimizer))
    assert not torch.equal(before[0], next(iter(model.parameters())))


@pytest.mark.parametrize("name", ALL)
def test_without_gradients_nothing_happens(name):
    model = tiny()
    optimizer = build_optimizer(OptimizerConfig(optimizer=name), model)
    set_lr(optimizer, 0.1)
    apply_gradients(optimizer)
    optimizer.zero_grad()
    before = values(model, optimizer)
    assert float(apply_gradients(optimizer)) == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, values(model, optimizer), strict=True))
