"""Products of several tasks in one stream, and attention with heads of any size on kernels that want powers of two."""

import pytest
import torch
from torch import Tensor

from bert.model import attention
from bert.model.adapters.groups import Weights, batched_linear, grouped_linear, grouped_norm, grouped_scale
from bert.model.attention import attend, build_layout, reference_attention

BOUNDS = [(0, 3), (3, 4), (4, 9)]


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    maps = [Weights(torch.randn(5, 4), torch.randn(5)) for _ in BOUNDS]
    return torch.randn(9, 4, requires_grad=True), maps


def test_each_token_is_multiplied_by_the_map_of_its_task(drawn):
    x, maps = drawn
    task = [0, 0, 0, 1, 2, 2, 2, 2, 2]
    expected = torch.stack([maps[t].weight @ row + maps[t].bias for t, row in zip(task, x, strict=True)])
    for product in (grouped_linear, batched_linear):  # the second is the one of a GPU
        torch.testing.assert_close(product(x, maps, BOUNDS), expected)
    (gradient,) = torch.autograd.grad(batched_linear(x, maps, BOUNDS).sum(), x)
    torch.testing.assert_close(gradient, torch.stack([maps[t].weight.sum(0) for t in task]))
    factors = [torch.full((4,), float(k)) for k in range(3)]
    assert torch.equal(grouped_scale(x, factors, BOUNDS), x * torch.tensor(task)[:, None])
    shifts = [lambda rows, k=k: rows + k for k in range(3)]
    assert torch.equal(grouped_norm(x, shifts, BOUNDS), x + torch.tensor(task)[:, None])


@pytest.mark.parametrize("size", [2, 26, 34, 64])
def test_padded_heads_give_the_same_attention(size, monkeypatch):
    seen = []

    def kernel(qkv: Tensor, layout, dropout: float) -> Tensor:
        seen.append(qkv.shape[-1])
        return reference_attention(qkv, layout, dropout)

    monkeypatch.setitem(attention.ATTENTION, "fused", kernel)
    torch.manual_seed(0)
    qkv = torch.randn(9, 3, 6, size, dtype=torch.float64)
    layout = build_layout(torch.tensor([0, 4, 9], dtype=torch.int32), 5, 9, "reference")
    expected = reference_attention(qkv, layout, 0.0)
    torch.testing.assert_close(attend(qkv, layout._replace(attention="fused"), 0.0), expected)
    assert seen == [{2: 16, 26: 32, 34: 64, 64: 64}[size]]
