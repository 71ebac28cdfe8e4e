"""The attention of the CPU, against the equation and against autograd."""

import pytest
import torch

from bert.model.attention import blocked_attention, build_layout, reference_attention, resolve_attention
from bert.model.blocked import attention

LENGTHS = [5, 1, 0, 17, 17, 2]
HEADS, SIZE = 3, 8


def stream(lengths=LENGTHS, size=SIZE):
    torch.manual_seed(0)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    qkv = torch.randn(int(cu_seqlens[-1]), 3, HEADS, size, requires_grad=True)
    return qkv, cu_seqlens


def test_it_is_the_equation_and_its_gradient():
    qkv, cu_seqlens = stream()
    layout = build_layout(cu_seqlens, max(LENGTHS), len(qkv))
    assert layout.attention == "blocked"
    ours, expected = attention(qkv, cu_seqlens, 0.0, True)[0], reference_attention(qkv, layout, 0.0)
    torch.testing.assert_close(ours, expected)
    grad = torch.randn_like(ours)
    ours, expected = (torch.autograd.grad(y, qkv, grad, retain_graph=True)[0] for y in (ours, expected))
    torch.testing.assert_close(ours, expected)
    with torch.no_grad():
        torch.testing.assert_close(attention(qkv, cu_seqlens, 0.0, False)[0], reference_attention(qkv, layout, 0.0))


def dropped_weights(qkv, cu_seqlens, probability):
    """Values that are the rows of a unit matrix show the weights: [heads, n, n] of the one sequence."""
    return attention(qkv, cu_seqlens, probability, True)[0].permute(1, 0, 2)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_scales_what_it_keeps_and_has_the_gradient_of_its_mask(probability):
    size = 64
    qkv, cu_seqlens = stream([size], size)
    with torch.no_grad():
        qkv[:, 2] = torch.eye(size)[:, None]
    q, k, v = qkv.permute(1, 2, 0, 3)
    plain = (q @ k.mT / size**0.5).softmax(-1)
    torch.manual_seed(1)
    ours = dropped_weights(qkv, cu_seqlens, probability)
    kept = (ours != 0).float()
    # 12,288 weights: five standard deviations of the share of those kept.
    assert kept.mean() == pytest.approx(1 - probability, abs=5 * (probability * (1 - probability) / 12288) ** 0.5)
    expected = (plain * kept / (1 - probability)) @ v
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    grad = torch.randn_like(ours)
    ours, expected = (torch.autograd.grad(y, qkv, grad, retain_graph=True)[0] for y in (ours, expected))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_a_seed_repeats_the_mask_and_heads_and_sequences_have_their_own():
    qkv, cu_seqlens = stream([64, 64], 64)
    with torch.no_grad():
        qkv[:, 2] = torch.eye(64).repeat(2, 1)[:, None]
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(dropped_weights(qkv, cu_seqlens, 0.5) == 0)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    parts = masks[0].float().unflatten(1, (2, 64)).transpose(0, 1).reshape(6, -1)  # a row for each sequence and head
    # 4,096 weights each: five standard deviations of a correlation.
    assert (torch.corrcoef(parts) - torch.eye(6)).abs().max() < 5 / 64


def test_compiled_equals_eager():
    qkv, cu_seqlens = stream()

    def half(qkv):
        return attention(qkv * 2, cu_seqlens, 0.3, True)[0].sin().sum()

    results = []
    for function in (half, torch.compile(half, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        loss = function(qkv)
        results.append((loss.detach(), *torch.autograd.grad(loss, qkv)))
    torch.testing.assert_close(*results)


def test_half_precision_goes_the_padded_way():
    with torch.autocast("cpu", torch.bfloat16):
        assert resolve_attention("auto", torch.device("cpu")) == "matmul"
    qkv, cu_seqlens = stream()
    half = qkv.detach().bfloat16()
    layout = build_layout(cu_seqlens, max(LENGTHS), len(qkv), "blocked")
    torch.testing.assert_close(
        blocked_attention(half, layout, 0.0).float(),
        reference_attention(half.float(), layout, 0.0),
        atol=0.02,
        rtol=0.02,
    )
