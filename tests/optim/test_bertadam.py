"""BertAdam against numpy float64 and hand-made steps."""

import io
import math

import numpy as np
import pytest
import torch

from bert.errors import UsageError
from bert.optim.bertadam import BertAdam, BertAdamOptions, bertadam_step

SHAPES = [(37, 29), (29,), (5, 7, 3), (1,)]


def make(dtype=torch.float32, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter((torch.randn(s, generator=generator) * 0.1).to(dtype)) for s in SHAPES]
    groups = [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
    ]
    return params, BertAdam(groups, **options)


def set_grads(params, seed, size=1.0):
    generator = torch.Generator().manual_seed(100 + seed)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * size).to(p.dtype)


def snapshot(params, optimizer):
    state = [optimizer.state[p][k].clone() for p in params for k in sorted(optimizer.state[p])]
    return [p.detach().clone() for p in params] + state


def numpy_bertadam(p, g, m, v, lr, wd, max_grad_norm):
    norm = math.sqrt(float(np.sum(g**2)))
    if max_grad_norm and norm > max_grad_norm:
        g = g * max_grad_norm / (norm + 1e-6)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return p - lr * (m / (np.sqrt(v) + 1e-6) + wd * p), m, v


def test_first_step_by_hand():
    """No bias correction: the first step is 0.1 g / √(0.001 g²) = √10 times the learning rate, whatever g."""
    p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = BertAdam([p], lr=0.01, eps=0.0, weight_decay=0.0)
    p.grad = torch.tensor([0.5, -0.001])
    optimizer.step()
    step = 0.01 * math.sqrt(10)
    torch.testing.assert_close(p.data, torch.tensor([1.0 - step, -1.0 + step]), rtol=1e-6, atol=0)


def test_clipping_is_per_tensor():
    """Norms 5 and 0.5 with a limit of 1: the first is divided by 5, the second is left, and no global norm counts."""
    big, small = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    optimizer = BertAdam([big, small], lr=0.0)
    big.grad, small.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[big]["exp_avg"], torch.tensor([0.06, 0.08]), rtol=1e-6, atol=0)
    torch.testing.assert_close(optimizer.state[small]["exp_avg"], torch.tensor([0.03, 0.04]), rtol=1e-6, atol=0)
    assert float(optimizer.grad_norm) == pytest.approx(math.sqrt(25.25), rel=1e-6)


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0, None, 100.0])
def test_five_steps_equal_numpy_float64_and_the_pure_function(max_grad_norm):
    params, optimizer = make(lr=0.01, max_grad_norm=max_grad_norm)
    expected = [(p.detach().double().numpy(), 0.0, 0.0) for p in params]
    pure = [(p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)) for p in params]
    for t in range(5):
        set_grads(params, t, size=0.3)
        for i, p in enumerate(params):
            wd = 0.01 if p.dim() > 1 else 0.0
            expected[i] = numpy_bertadam(
                expected[i][0], p.grad.double().numpy(), *expected[i][1:], 0.01, wd, max_grad_norm
            )
            before = pure[i][0].clone()
            options = BertAdamOptions(lr=0.01, weight_decay=wd, max_grad_norm=max_grad_norm)
            new = bertadam_step(pure[i][0], p.grad, *pure[i][1:], options)
            assert torch.equal(before, pure[i][0])
            pure[i] = new
        optimizer.step()
    for p, e, q in zip(params, expected, pure, strict=True):
        state = optimizer.state[p]
        for actual in ((p.detach(), state["exp_avg"], state["exp_avg_sq"]), q):
            for a, b in zip(actual, e, strict=True):
                assert np.abs(a.double().numpy() - b).max() <= 1e-6 * np.abs(b).max()


def test_the_loss_scale_changes_nothing_and_gradients_are_kept():
    expected, plain = make()
    params, scaled = make()
    for t in range(3):
        set_grads(expected, t)
        plain.step()
        set_grads(params, t, size=1024.0)
        before = [p.grad.clone() for p in params]
        scaled.step(grad_scale=torch.tensor(1024.0))
        assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p, e, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_overflow_leaves_everything_untouched(bad, dtype):
    params, optimizer = make(dtype=dtype)
    set_grads(params, 0)
    optimizer.step()
    before = snapshot(params, optimizer)
    set_grads(params, 1)
    params[3].grad[0] = bad  # the last tensor; the others have finite norms of their own
    optimizer.step()
    assert optimizer.skipped and not torch.isfinite(optimizer.grad_norm)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(params, optimizer), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_parameters_follow_an_fp32_run_through_master_copies(dtype):
    half, optimizer = make(dtype=dtype, lr=1e-4)
    full, reference = make(lr=1e-4)
    for p, h in zip(full, half, strict=True):
        p.data.copy_(h)
    for t in range(10):
        set_grads(half, t)
        for p, h in zip(full, half, strict=True):
            p.grad = h.grad.float()
        optimizer.step()
        reference.step()
    for p, h in zip(full, half, strict=True):
        torch.testing.assert_close(optimizer.state[h]["master"], p.detach(), rtol=1e-6, atol=1e-8)
        assert torch.equal(h.detach(), optimizer.state[h]["master"].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_round_trip_is_bitwise(dtype):
    params, optimizer = make(dtype=dtype)
    set_grads(params, 0)
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed_params, resumed = make(dtype=dtype, seed=1)
    for p, r in zip(params, resumed_params, strict=True):
        r.data.copy_(p.data)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for group, opt in ((params, optimizer), (resumed_params, resumed)):
        set_grads(group, 1)
        opt.step()
    pairs = list(zip(snapshot(params, optimizer), snapshot(resumed_params, resumed), strict=True))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_no_gradient_is_no_step_and_mixed_dtypes_may_share_a_group():
    a, b, idle = (torch.nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float16, torch.float32, torch.float32))
    optimizer = BertAdam([a, b, idle], lr=0.01, weight_decay=0.0)
    optimizer.step()
    assert not optimizer.state
    a.grad, b.grad = torch.full((3,), 0.25, dtype=torch.float16), torch.full((3,), 0.25)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[a]["master"], b.detach(), rtol=1e-6, atol=0)
    assert torch.equal(idle.detach(), torch.ones(3))


def test_wrong_betas_are_refused():
    with pytest.raises(UsageError, match="betas"):
        BertAdam([torch.nn.Parameter(torch.ones(1))], betas=(1.0, 0.999))
