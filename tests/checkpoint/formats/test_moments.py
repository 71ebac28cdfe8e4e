"""NVIDIA's optimizer state, numbered as its script does, is found by the names of the parameters."""

import pytest
import torch
from random_models import random_model, weights_of

from bert.checkpoint.formats.moments import as_state_dict, moments
from bert.model.names import NVIDIA, older_name

HEADS = ("cls.predictions", "cls.seq_relationship")
NO_DECAY = ("bias", "gamma", "beta", "LayerNorm")  # of NVIDIA's script


@pytest.fixture
def checkpoint(config):
    """Moments that identify their parameter: n for the n-th parameter of the model, and its square."""
    model = random_model(config, HEADS)
    names = [name for name, _ in model.named_parameters()]
    groups = [[n for n in names if any(w in n for w in NO_DECAY) is spared] for spared in (False, True)]
    order = groups[0] + groups[1]
    shapes = dict(model.named_parameters())
    state = {
        index: {"exp_avg": torch.full_like(shapes[name], float(names.index(name))),
                "exp_avg_sq": torch.full_like(shapes[name], float(names.index(name) ** 2))}
        for index, name in enumerate(order)
    }  # fmt: skip
    middle = len(groups[0])
    indexes = [list(range(middle)), list(range(middle, len(order)))]
    theirs = {older_name(f"module.{name}", NVIDIA): tensor for name, tensor in model.state_dict().items()}
    optimizer = {"state": state, "param_groups": [{"params": group, "step": 7038} for group in indexes]}
    return {"model": theirs, "optimizer": optimizer}


def test_each_parameter_gets_its_own(checkpoint, config):
    found = moments(checkpoint)
    names = [name for name, _ in random_model(config, HEADS).named_parameters()]
    assert sorted(found) == sorted(names) == sorted(weights_of(random_model(config, HEADS)).tensors)
    for number, name in enumerate(names):
        assert set(found[name]["exp_avg"].unique().tolist()) == {number}
        assert set(found[name]["exp_avg_sq"].unique().tolist()) == {number**2}


def test_rows_that_are_padding_here_are_zero(checkpoint):
    name = "bert.embeddings.word_embeddings.weight"
    found = {name: {"exp_avg": torch.ones(73, 32), "exp_avg_sq": torch.ones(73, 32)}}
    state = as_state_dict(found, [name], [(80, 32)])
    assert state[0]["exp_avg"].sum() == 73 * 32 and not state[0]["exp_avg"][73:].any()


def test_moments_that_do_not_match_are_refused(checkpoint):
    found = moments(checkpoint)
    with pytest.raises(ValueError, match="no moments of classifier.bias"):
        as_state_dict(found, ["classifier.bias"], [(3,)])
    groups = checkpoint["optimizer"]["param_groups"]
    groups[0]["params"].append(groups[1]["params"].pop(0))
    with pytest.raises(ValueError, match="groups of parameters are not NVIDIA's"):
        moments(checkpoint)
