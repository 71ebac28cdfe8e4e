"""Tests that need a CUDA device; skipped with the reason without one."""

import pytest
import torch

from bert.model.attention import build_layout, reference_attention, varlen_attention
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_varlen_attention_equals_the_reference(dtype):
    lengths = [1, 128, 77, 512, 3]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().cuda()
    layout = build_layout(cu_seqlens, max(lengths), sum(lengths))
    qkv = torch.randn(sum(lengths), 3, 4, 64, device="cuda")
    half = qkv.to(dtype).requires_grad_()
    exact = half.detach().float().requires_grad_()
    ours, expected = varlen_attention(half, layout, 0.0), reference_attention(exact, layout, 0.0)
    weight = torch.randn_like(expected)
    (ours.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.float(), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(half.grad.float(), exact.grad, rtol=5e-2, atol=5e-2)


def test_varlen_dropout_keeps_the_expectation():
    layout = build_layout(torch.tensor([0, 64], dtype=torch.int32, device="cuda"), 64, 64)
    qkv = torch.zeros(64, 3, 2, 64, device="cuda", dtype=torch.bfloat16)
    qkv[:, 2] = 1.0  # uniform attention over ones: the output is 1 without dropout
    mean = torch.stack([varlen_attention(qkv, layout, 0.1).float().mean() for _ in range(50)]).mean()
    assert mean.item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_training_losses_follow_fp32(make_batch, compiled):
    config = BertConfig(1000, 128, 2, 2, 256, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch = make_batch([100, 64, 7], masked=5, vocab_size=1000).to(torch.device("cuda"))
    losses = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        objective = PreTrainingObjective(BertForPreTraining(config)).cuda()
        if compiled:
            for unit in objective.compile_units():
                unit.compile(dynamic=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            loss = objective(batch)["mlm_loss"]
        loss.backward()
        assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
