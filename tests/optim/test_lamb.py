"""LAMB against golden values, a numpy float64 implementation, and itself along every path."""

import io
import math

import numpy as np
import pytest
import torch

from bert.errors import UsageError
from bert.optim.gradients import global_norm, gradient_factor, tensor_norms
from bert.optim.lamb import IMPLEMENTATIONS, Lamb, LambOptions, default_implementation, lamb_step
from bert.optim.lamb.blocked import BlockedUpdate
from bert.pretrain.run import reset_optimizer_step

PATHS = ["reference", "foreach", "blocked"]
SHAPES = [(37, 29), (29,), (5, 7, 3), (1,), (64, 64)]  # two-dimensional tensors decay, the others do not


def numpy_lamb(params, grads, state, lrs, decays, t, max_grad_norm=1.0, nvlamb=False, correct=True, average=True):
    """One LAMB step in float64, written from the paper and NVIDIA's variant of it; lists in, lists out."""
    b1, b2, eps = 0.9, 0.999, 1e-6
    norm = math.sqrt(sum(float(np.sum(g**2)) for g in grads))
    clip = norm / max_grad_norm if max_grad_norm and norm > max_grad_norm else 1.0
    new, new_state = [], []
    for p, g, (m, v), lr, wd in zip(params, grads, state, lrs, decays, strict=True):
        g = g / clip
        m = b1 * m + (1 - b1 if average else 1.0) * g
        v = b2 * v + (1 - b2) * g**2
        mh, vh = (m / (1 - b1**t), v / (1 - b2**t)) if correct else (m, v)
        u = mh / (np.sqrt(vh) + eps) + wd * p
        pn, un = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(u**2))
        ratio = pn / un if (nvlamb or wd != 0) and pn > 0 and un > 0 else 1.0
        new.append(p - lr * ratio * u)
        new_state.append((m, v))
    return new, new_state


def make(shapes=SHAPES, dtype=torch.float32, seed=0, **options):
    """Return (parameters, optimizer): group 0 decays and holds the tensors of rank 2 and above, group 1 does not."""
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter((torch.randn(s, generator=generator) * 0.1).to(dtype)) for s in shapes]
    groups = [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
    ]
    return params, Lamb(groups, **options)


def set_grads(params, seed, size=1.0):
    generator = torch.Generator().manual_seed(100 + seed)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * size).to(p.dtype)


def snapshot(params, optimizer):
    state = [optimizer.state[p][k].clone() for p in params for k in sorted(optimizer.state[p])]
    return [p.detach().clone() for p in params] + state + [g["step"].clone() for g in optimizer.param_groups]


def assert_relative(actual, expected, tolerance=1e-6):
    """Largest difference over the largest element: single elements may cancel to anything near zero."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


# --- the golden run: a 2 x 2 weight with decay and a bias without, two steps ---------------------------------------

W0, B0 = [[1.0, -2.0], [3.0, 0.5]], [0.1, -0.2]
GRADS = [([[0.3, -0.4], [1.2, 0.0]], [0.5, -0.1]), ([[0.01, 0.02], [-0.03, 0.04]], [0.005, -0.006])]
LRS = [0.01, 0.02]
W1, B1 = [[0.97841999, -1.97820630], [2.97799259, 0.49989317]], [0.0900000279, -0.1900001396]
W2, B2 = [[0.93997998, -1.94393369], [2.94172178, 0.45954768]], [0.0763923145, -0.1754028802]
B1_NVLAMB = [0.0984188523, -0.1984188700]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_run(path, dtype):
    w, b = (torch.nn.Parameter(torch.tensor(x, dtype=dtype)) for x in (W0, B0))
    optimizer = Lamb([{"params": [w]}, {"params": [b], "weight_decay": 0.0}], implementation=path)
    for lr, (gw, gb), (w_expected, b_expected) in zip(LRS, GRADS, [(W1, B1), (W2, B2)], strict=True):
        w.grad, b.grad = torch.tensor(gw, dtype=dtype), torch.tensor(gb, dtype=dtype)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        torch.testing.assert_close(w.data, torch.tensor(w_expected, dtype=dtype), rtol=2e-7, atol=2e-8)
        torch.testing.assert_close(b.data, torch.tensor(b_expected, dtype=dtype), rtol=2e-7, atol=2e-8)
    assert [int(group["step"]) for group in optimizer.param_groups] == [2, 2]


def test_golden_norm_and_nvlamb():
    w, b = (torch.nn.Parameter(torch.tensor(x)) for x in (W0, B0))
    optimizer = Lamb([{"params": [w]}, {"params": [b], "weight_decay": 0.0}], lr=0.01, use_nvlamb=True)
    w.grad, b.grad = (torch.tensor(g) for g in GRADS[0])
    optimizer.step()
    assert float(optimizer.grad_norm) == pytest.approx(1.396424004, rel=1e-7)
    torch.testing.assert_close(w.data, torch.tensor(W1), rtol=2e-7, atol=1e-8)
    torch.testing.assert_close(b.data, torch.tensor(B1_NVLAMB), rtol=2e-7, atol=1e-8)


def test_pure_function_leaves_its_arguments_alone():
    w, g = torch.tensor(W0, dtype=torch.float64), torch.tensor(GRADS[0][0], dtype=torch.float64) / 1.396424004
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    new, new_m, new_v = lamb_step(w, g, m, v, 1, LambOptions(lr=0.01))
    assert_relative(new, W1, 1e-8)
    assert_relative(new_m, 0.1 * g, 1e-12)
    assert_relative(new_v, 0.001 * g * g, 1e-12)
    assert torch.equal(w, torch.tensor(W0, dtype=torch.float64)) and not m.any() and not v.any()


# --- every path and every option against numpy -----------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_nvlamb": True},
        {"bias_correction": False},
        {"grad_averaging": False},
        {"max_grad_norm": 0},
        {"max_grad_norm": 1e9},
    ],
    ids=str,
)
def test_five_steps_equal_numpy_float64(path, options):
    params, optimizer = make(implementation=path, lr=0.01, **options)
    names = {"use_nvlamb": "nvlamb", "bias_correction": "correct", "grad_averaging": "average"}
    numpy_options = {names.get(k, k): v for k, v in options.items()}
    expected = [p.detach().double().numpy() for p in params]
    state = [(np.zeros_like(p), np.zeros_like(p)) for p in expected]
    decays = [0.01 if p.dim() > 1 else 0.0 for p in params]
    for t in range(1, 6):
        set_grads(params, t, size=0.3)
        grads = [p.grad.double().numpy() for p in params]
        expected, state = numpy_lamb(expected, grads, state, [0.01] * len(params), decays, t, **numpy_options)
        optimizer.step()
        assert float(optimizer.grad_norm) == pytest.approx(math.sqrt(sum((g**2).sum() for g in grads)), rel=1e-6)
    for p, e, (m, v) in zip(params, expected, state, strict=True):
        assert_relative(p.detach(), e)
        assert_relative(optimizer.state[p]["exp_avg"], m)
        assert_relative(optimizer.state[p]["exp_avg_sq"], v)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_the_size_of_a_cache_block_does_not_matter(block):
    expected, reference = make(implementation="reference", lr=0.02)
    params, optimizer = make(implementation=BlockedUpdate(block), lr=0.02)
    for t in range(3):
        for group, opt in ((expected, reference), (params, optimizer)):
            set_grads(group, t)
            opt.step()
    for p, e in zip(params, expected, strict=True):
        assert_relative(p.detach(), e.detach())


@pytest.mark.parametrize("path", PATHS)
def test_zero_parameters_and_zero_gradients(path):
    """A zero norm on either side means a ratio of 1: a zero weight leaves zero, and nothing becomes NaN."""
    fresh, idle, both = (torch.nn.Parameter(x) for x in (torch.zeros(4, 4), torch.ones(4, 4), torch.zeros(3, 3)))
    optimizer = Lamb([fresh, idle, both], lr=0.1, implementation=path)
    fresh.grad, idle.grad, both.grad = torch.full((4, 4), 0.1), torch.zeros(4, 4), torch.zeros(3, 3)
    optimizer.step()
    # fresh: û = 0.1 / (0.1 + 1e-6), ratio 1. idle: u = 0.01 p, so the trust ratio 100 makes a step of lr · p.
    torch.testing.assert_close(fresh.data, torch.full((4, 4), -0.1 / 1.00001), rtol=1e-6, atol=0)
    torch.testing.assert_close(idle.data, torch.full((4, 4), 0.9), rtol=1e-6, atol=0)
    assert not both.data.any()


# --- gradients: norm, scale, clipping, overflow ----------------------------------------------------------------------


def test_norms_are_exact_to_1e_6_on_millions_of_elements():
    """torch's own CPU norm is 1e-4 off here."""
    x = torch.randn(5_000_000, generator=torch.Generator().manual_seed(0))
    small = torch.tensor([3.0, 4.0])
    norms = tensor_norms([x, small, torch.zeros(0)])
    assert float(norms[0]) == pytest.approx(float(np.linalg.norm(x.double().numpy())), rel=1e-6)
    assert norms[1:].tolist() == [5.0, 0.0]


def test_global_norm_of_half_gradients_is_fp32():
    big = torch.full((300,), 60000.0, dtype=torch.float16)  # its norm, 1.04e6, is beyond float16
    assert float(global_norm([big, torch.tensor([1.0])])) == pytest.approx(60000 * math.sqrt(300), rel=1e-6)
    assert global_norm([big]).dtype == torch.float32
    assert float(global_norm([])) == 0.0


def test_gradient_factor_by_hand():
    norm = torch.tensor(4.0)
    assert float(gradient_factor(norm, 1.0)) == 0.25
    assert float(gradient_factor(norm, 1.0, 8.0)) == 1 / 32
    assert float(gradient_factor(norm, 8.0, torch.tensor(2.0))) == 0.5
    assert float(gradient_factor(norm, 0)) == float(gradient_factor(norm, None)) == 1.0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [False, True], ids=["own norm", "given norm"])
def test_the_loss_scale_changes_nothing(path, given):
    expected, plain = make(implementation=path)
    params, scaled = make(implementation=path)
    for t in range(3):
        set_grads(expected, t)
        plain.step()
        set_grads(params, t, size=1024.0)
        norm = global_norm([p.grad for p in params]) / 1024 if given else None
        scaled.step(grad_scale=torch.tensor(1024.0), grad_norm=norm)
        assert float(scaled.grad_norm) == pytest.approx(float(plain.grad_norm), rel=1e-6)
    for p, e in zip(params, expected, strict=True):
        assert_relative(p.detach(), e.detach())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_overflow_leaves_everything_untouched(path, bad, dtype):
    params, optimizer = make(implementation=path, dtype=dtype)
    set_grads(params, 0)
    optimizer.step()
    assert not optimizer.skipped
    before = snapshot(params, optimizer)
    set_grads(params, 1)
    params[1].grad[3] = bad  # one element of one bias
    optimizer.step(grad_scale=2.0**20)
    assert optimizer.skipped and not torch.isfinite(optimizer.grad_norm)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(params, optimizer), strict=True))
    set_grads(params, 1)
    optimizer.step()
    assert not optimizer.skipped and int(optimizer.param_groups[0]["step"]) == 2


def test_overflow_in_the_very_first_step_does_not_count():
    params, optimizer = make()
    expected, clean = make()
    set_grads(params, 0)
    params[0].grad.fill_(math.inf)
    optimizer.step()
    for group, opt in ((params, optimizer), (expected, clean)):
        set_grads(group, 1)
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(snapshot(params, optimizer), snapshot(expected, clean), strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_not_changed(path):
    params, optimizer = make(implementation=path)
    set_grads(params, 0, size=3.0)
    before = [p.grad.clone() for p in params]
    optimizer.step(grad_scale=4.0)
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_parameters_without_gradient_stay(path):
    params, optimizer = make(implementation=path)
    set_grads(params, 0)
    params[0].grad = params[1].grad = None
    before = [params[0].detach().clone(), params[1].detach().clone()]
    optimizer.step()
    assert torch.equal(params[0], before[0]) and torch.equal(params[1], before[1])
    assert params[0] not in optimizer.state
    optimizer.zero_grad()
    optimizer.step()  # nothing has a gradient: not a step
    assert int(optimizer.param_groups[0]["step"]) == 1


@pytest.mark.parametrize("path", PATHS)
def test_transposed_gradient(path):
    expected, reference = make([(6, 4)], implementation="reference")
    params, optimizer = make([(6, 4)], implementation=path)
    g = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    expected[0].grad, params[0].grad = g.t().contiguous(), g.t()
    reference.step()
    optimizer.step()
    assert_relative(params[0].detach(), expected[0].detach())


# --- half precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_parameters_follow_an_fp32_run_through_master_copies(path, dtype):
    half, optimizer = make(dtype=dtype, implementation=path, lr=1e-4)
    full, reference = make(implementation="reference", lr=1e-4)
    for p, h in zip(full, half, strict=True):
        p.data.copy_(h)
    for t in range(20):  # 20 steps of 1e-4: a bfloat16 weight of 0.1 (spacing 5e-4) alone would never move
        set_grads(half, t)
        for p, h in zip(full, half, strict=True):
            p.grad = h.grad.float()
        optimizer.step()
        reference.step()
    for p, h in zip(full, half, strict=True):
        assert_relative(optimizer.state[h]["master"], p.detach())
        assert torch.equal(h.detach(), optimizer.state[h]["master"].to(dtype))
        assert {optimizer.state[h][k].dtype for k in ("exp_avg", "exp_avg_sq", "master")} == {torch.float32}


@pytest.mark.parametrize("path", PATHS)
def test_mixed_dtypes_in_one_group(path):
    expected, reference = make([(8, 8), (9, 9)], implementation="reference")
    params, optimizer = make([(8, 8), (9, 9)], implementation=path)
    for group in (expected, params):
        group[0].data = group[0].data.bfloat16()
    for t in range(3):
        for group, opt in ((expected, reference), (params, optimizer)):
            set_grads(group, t)
            opt.step()
    assert_relative(params[1].detach(), expected[1].detach())
    assert_relative(optimizer.state[params[0]]["master"], reference.state[expected[0]]["master"])


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_round_trip_is_bitwise(dtype):
    params, optimizer = make(dtype=dtype, lr=0.01)
    for t in range(3):
        set_grads(params, t)
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed_params, resumed = make(dtype=dtype, lr=0.5, seed=1)
    for p, r in zip(params, resumed_params, strict=True):
        r.data.copy_(p.data)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    pairs = list(zip(snapshot(params, optimizer), snapshot(resumed_params, resumed), strict=True))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert resumed.param_groups[0]["lr"] == 0.01
    for group, opt in ((params, optimizer), (resumed_params, resumed)):
        set_grads(group, 7)
        opt.step()
    pairs = zip(snapshot(params, optimizer), snapshot(resumed_params, resumed), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_two_runs_do_not_share_state_after_loading():
    params, optimizer = make()
    set_grads(params, 0)
    optimizer.step()
    before = snapshot(params, optimizer)
    other_params, other = make()
    other.load_state_dict(optimizer.state_dict())
    set_grads(other_params, 1)
    other.step()
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(params, optimizer), strict=True))


def test_loading_nvidia_state_with_a_plain_step_and_fewer_keys():
    params, optimizer = make()
    set_grads(params, 0)
    optimizer.step()
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["step"] = 7038
        del group["grad_averaging"]
    fresh_params, fresh = make()
    fresh.load_state_dict(saved)
    assert [group["step"].tolist() for group in fresh.param_groups] == [7038, 7038]
    assert fresh.param_groups[0]["grad_averaging"] is True
    set_grads(fresh_params, 1)
    fresh.step()
    assert int(fresh.param_groups[1]["step"]) == 7039


def test_a_step_set_to_a_number_is_continued():
    params, optimizer = make()
    optimizer.param_groups[0]["step"] = 4
    set_grads(params, 0)
    optimizer.step()
    assert [group["step"].tolist() for group in optimizer.param_groups] == [5, 1]


def test_half_run_continues_an_fp32_run():
    params, optimizer = make()
    set_grads(params, 0)
    optimizer.step()
    half_params, half = make(dtype=torch.bfloat16)
    half.load_state_dict(optimizer.state_dict())
    set_grads(half_params, 1)
    half.step()
    assert all(half.state[p]["master"].dtype == torch.float32 for p in half_params)
    back_params, back = make()
    back.load_state_dict(half.state_dict())
    set_grads(back_params, 2)
    back.step()
    assert not any("master" in back.state[p] for p in back_params)


def test_a_reset_of_the_step_keeps_the_moments():
    params, optimizer = make(lr=0.01)
    set_grads(params, 0)
    optimizer.step()
    expected = [p.detach().double().numpy() for p in params]
    state = [tuple(optimizer.state[p][k].double().numpy() for k in ("exp_avg", "exp_avg_sq")) for p in params]
    reset_optimizer_step(optimizer)
    set_grads(params, 1)
    grads = [p.grad.double().numpy() for p in params]
    decays = [0.01 if p.dim() > 1 else 0.0 for p in params]
    expected, _ = numpy_lamb(expected, grads, state, [0.01] * len(params), decays, t=1)
    optimizer.step()
    for p, e in zip(params, expected, strict=True):
        assert_relative(p.detach(), e)


def test_tied_parameters_move_once():
    embedding = torch.nn.Embedding(5, 4)
    decoder = torch.nn.Linear(4, 5, bias=False)
    decoder.weight = embedding.weight
    model = torch.nn.ModuleList([embedding, decoder])
    lone = torch.nn.Parameter(embedding.weight.detach().clone())
    optimizer, reference = Lamb(model.parameters(), lr=0.1), Lamb([lone], lr=0.1)
    decoder(embedding(torch.tensor([1, 2]))).square().sum().backward()
    lone.grad = embedding.weight.grad.clone()
    optimizer.step()
    reference.step()
    assert torch.equal(embedding.weight, lone) and decoder.weight is embedding.weight


def test_lr_may_be_a_tensor_and_groups_may_differ():
    for path in PATHS:
        params, optimizer = make(implementation=path)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = torch.tensor(0.01), 0.02
        expected = [p.detach().double().numpy() for p in params]
        state = [(np.zeros_like(p), np.zeros_like(p)) for p in expected]
        set_grads(params, 0)
        grads = [p.grad.double().numpy() for p in params]
        decays = [0.01 if p.dim() > 1 else 0.0 for p in params]
        lrs = [0.01 if p.dim() > 1 else 0.02 for p in params]
        expected, _ = numpy_lamb(expected, grads, state, lrs, decays, 1)
        optimizer.step()
        for p, e in zip(params, expected, strict=True):
            assert_relative(p.detach(), e)


def test_closure_is_evaluated_with_gradients():
    p = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    torch.testing.assert_close(p.data, torch.full((2, 2), 0.9), rtol=1e-6, atol=0)  # uniform, so a step of lr · ‖p‖


# --- wrong arguments -------------------------------------------------------------------------------------------------


def test_unknown_implementation_names_the_known_ones():
    with pytest.raises(
        UsageError, match="cuda: unknown, expected one of auto, triton, persistent, blocked, foreach, reference"
    ):
        Lamb([torch.nn.Parameter(torch.ones(1))], implementation="cuda")
    assert set(PATHS) | {"triton", "persistent"} == set(IMPLEMENTATIONS)


def test_wrong_betas_and_layouts_are_refused():
    with pytest.raises(UsageError, match="betas"):
        Lamb([torch.nn.Parameter(torch.ones(1))], betas=(0.9, 1.0))
    with pytest.raises(UsageError, match="contiguous"):
        Lamb([torch.nn.Parameter(torch.ones(3, 2).t())])


def test_triton_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("bert.optim.lamb.optimizer.has_triton_package", lambda: False)
    params, optimizer = make(implementation="triton")
    set_grads(params, 0)
    with pytest.raises(UsageError, match="the package `triton` is not installed"):
        optimizer.step()
    assert default_implementation(torch.device("cuda"), {torch.float32}) == "foreach"


def test_the_default_goes_by_device_and_dtype(monkeypatch):
    monkeypatch.setattr("bert.optim.lamb.optimizer.has_triton_package", lambda: True)
    assert default_implementation(torch.device("cpu"), {torch.float32}) == "blocked"
    assert default_implementation(torch.device("cuda"), {torch.float32, torch.bfloat16}) == "triton"
    assert default_implementation(torch.device("cuda"), {torch.float64}) == "foreach"
    assert default_implementation(torch.device("mps"), {torch.float32}) == "foreach"
