"""The dropout of the CPU: its statistics, its gradient, and torch.compile."""

import pytest
import torch

from bert.model.dropout import Dropout, dropout
from bert.train.parallel import missing_compiler


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_share_and_scale(probability):
    torch.manual_seed(0)
    dropped = round(probability * 65536) / 65536
    y = dropout(torch.ones(1000, 1001), probability, training=True)
    values, counts = y.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 1 / (1 - dropped)])
    # One million draws: the standard deviation of the share is at most 0.0005.
    assert counts[0].item() / y.numel() == pytest.approx(dropped, abs=0.0025)
    assert (y[0] != y[1]).any()


def test_neighbours_drawn_from_one_number_are_independent():
    """Four elements share a 64-bit draw; each pair must drop together as often as chance predicts."""
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.5, training=True) == 0).view(-1, 4).float()
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlation.abs().max() < 0.015  # five standard deviations of 100,000 pairs


def test_gradient_passes_where_the_value_did():
    x = torch.randn(64, 3, requires_grad=True)
    y = dropout(x, 0.3, training=True)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_off_in_eval_mode_and_at_zero():
    x = torch.randn(5)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_a_seed_repeats_it():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(dropout(torch.ones(100), 0.5, training=True))
    assert torch.equal(*results)


def test_compiled_equals_eager_forward_and_backward():
    """Twice in one graph: equal calls must not be merged, and the backward pass must not draw again."""
    assert missing_compiler(torch.device("cpu")) is None, "the tests need a C++ compiler (apt install g++)"

    def twice(x):
        return (dropout(x, 0.5, training=True) * dropout(x.sin(), 0.5, training=True)).cos()

    results = []
    for function in (twice, torch.compile(twice)):
        torch.manual_seed(1)
        x = torch.linspace(1, 2, 999).requires_grad_()
        y = function(x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)
