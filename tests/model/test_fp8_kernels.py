"""The kernels that write FP8, against PyTorch: interpreted on the CPU, compiled for Hopper, run on one if there is one.

``TRITON_INTERPRET`` counts only before Triton is imported, so the interpreted cases run in a child process: this file.
"""

import json

import pytest
import torch
import torch.nn.functional as F

import bert  # noqa: F401  # hides the repository's own triton/ folder
from bert.model.dropout import draw_keys

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
LARGEST = {E4M3: 448.0, E5M2: 57344.0}
SHAPES = {"several tiles": (70, 48), "one row": (1, 32)}
PARTS = ["input", "gradient", "gelu", "gelu backward", "norm", "norm backward"]


def mask_of(keys, tokens, dropout):
    """What the docstring of bert.model.kernels.random promises, in Python's integers: float32 [T, H], 1 where kept."""
    x = keys[:tokens, None].long() * keys[None, tokens:].long() & 0xFFFFFFFF
    x ^= x >> 15
    return ((x * 0x7FEB352D & 0xFFFFFFFF) >= int(dropout * 2**32)).float()


def wrong(q, q_t, amax, x, scale, dtype):
    """Return the share of values that differ from torch's cast of x, which has to be kept from making NaN.

    None may differ by more than rounding's choice: the kernels compute x in another order, so a value in the middle
    between two FP8 values may go either way.
    """
    expected = (x.float() * scale).clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype)
    torch.testing.assert_close(q.float(), expected.float(), rtol=0.26 if dtype == E5M2 else 0.13, atol=2.0**-6)
    assert torch.equal(q_t.view(torch.uint8)[:, : len(x)], q.view(torch.uint8).t())
    assert (q_t[:, len(x) :].float() == 0).all()
    assert amax.item() == pytest.approx(x.abs().max().item(), rel=1e-5)
    return (q.float() != expected.float()).float().mean().item()  # 0 equals -0


def quantized(x, scale, amax, which):
    """bert.model.fp8.quantize, by the kernel on any device."""
    from bert.model.kernels import fp8

    padded, format = -(-len(x) // 16) * 16, E5M2 if which == 2 else E4M3
    q, q_t = (x.new_empty(shape, dtype=format) for shape in (x.shape, (x.shape[1], padded)))
    total = x.new_empty(x.shape[1] if which == 2 else 0, dtype=torch.float32)
    fp8.quantize(x, scale, amax, which, q, q_t, total)
    return q, q_t, total


def shares(tokens, width, device="cpu", dtype=torch.float32):
    """Return, of each kernel, the share of FP8 values that differ; scales are those of half the maximum."""
    from bert.model.kernels import fp8

    torch.manual_seed(0)
    x, dy, residual = (torch.randn(tokens, width, device=device).to(dtype) for _ in range(3))
    bias, gamma, beta = (torch.randn(width, device=device) for _ in range(3))
    keys, scale = draw_keys(tokens + width, x.device), torch.tensor([200.0, 1.0, 2e4], device=device)
    found = {}
    for which, name, format in ((0, "input", E4M3), (2, "gradient", E5M2)):
        amax = torch.zeros(3, device=device)
        q, q_t, total = quantized(x, scale, amax, which)
        found[name] = wrong(q, q_t, amax[which], x, scale[which], format)
        torch.testing.assert_close(total, x.float().sum(0)[: len(total)], rtol=1e-5, atol=1e-5)
    inner = x.float().requires_grad_()
    activated = F.gelu(inner + bias)
    amax = torch.zeros(3, device=device)
    found["gelu"] = wrong(*fp8.gelu_quantize(x, bias, False, scale, amax), amax[0], activated.detach(), scale[0], E4M3)
    q, q_t, dbias = fp8.gelu_backward_quantize(dy, x, bias, False, scale, amax)
    dx = torch.autograd.grad(activated, inner, dy.float())[0]
    found["gelu backward"] = wrong(q, q_t, amax[2], dx, scale[2], E5M2)
    torch.testing.assert_close(dbias, dx.sum(0), rtol=1e-4, atol=1e-4)

    mask = mask_of(keys, tokens, 0.25) / 0.75
    inputs = [each.float().requires_grad_() for each in (x, bias, residual, gamma, beta)]
    normed = F.layer_norm(inputs[2] + (inputs[0] + inputs[1]) * mask, (width,), inputs[3], inputs[4], 1e-12)
    amax = torch.zeros(3, device=device)
    y, q, q_t, mean, rstd = fp8.norm_quantize(x, bias, residual, gamma, beta, keys, 0.25, 1e-12, scale, amax)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(y.float(), normed.detach(), **close)
    found["norm"] = wrong(q, q_t, amax[0], normed.detach(), scale[0], E4M3)
    q, q_t, dresidual, sums = fp8.norm_backward_quantize(
        dy, x, bias, residual, gamma, keys, mean, rstd, 0.25, scale, amax
    )
    dx, *dvectors = torch.autograd.grad(normed, inputs, dy.float())
    found["norm backward"] = wrong(q, q_t, amax[2], dx, scale[2], E5M2)
    torch.testing.assert_close(dresidual.float(), dvectors[1], **close)
    torch.testing.assert_close(sums, torch.stack([dvectors[0], *dvectors[2:]]), rtol=1e-3, atol=1e-3)
    return found


def special_values():
    """What becomes of infinity, NaN and what is too large, in both formats; and the maximum without the NaN."""
    inf, nan = float("inf"), float("nan")
    x, amax = torch.tensor([[inf, -inf, nan, 1e30, -1e30, 0.0, 3.0, 2.0**-20]]), torch.zeros(3)
    results = [quantized(x, torch.ones(3), amax, which)[0].float().nan_to_num(-1).tolist()[0] for which in (0, 2)]
    quantized(torch.tensor([[-5.0, 2.0]]), torch.ones(3), amax := torch.tensor([3.0, 0.0, 7.0]), 0)
    return [*results, amax.tolist()]


def cast_like_hardware():
    """Replace the interpreter's cast to FP8, which loses the carry when it rounds, by torch's."""
    import triton.language as tl
    from triton.runtime import interpreter

    dtypes = {tl.float8e4nv: E4M3, tl.float8e5: E5M2}
    before = interpreter._convert_float

    def convert(data, source, target, mode):
        if target not in dtypes or source != tl.float32:
            return before(data, source, target, mode)
        return torch.from_numpy(data.astype("float32")).to(dtypes[target]).view(torch.uint8).numpy()

    interpreter._convert_float = convert


def layer_differences(device="cpu", dtype=torch.float32):
    """A layer with the kernels and one without: the largest relative differences of result and gradients."""
    from bert.model import fp8_layers
    from bert.model.attention import build_layout
    from bert.model.bert import BertModel
    from bert.model.config import BertConfig
    from bert.model.kernels import fp8_layer

    config = BertConfig(100, 32, 2, 2, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    lengths = [5, 9, 7]
    cu_seqlens = torch.tensor([0, *lengths], device=device).cumsum(0).int()
    layout = build_layout(cu_seqlens, max(lengths), sum(lengths), "sdpa")
    results = []
    for kernels in (None, fp8_layer):
        torch.manual_seed(0)
        model, hidden = BertModel(config), torch.randn(sum(lengths), 32)
        for parameter in model.encoder.parameters():
            torch.nn.init.normal_(parameter, 0.1, 0.3)
        weight = torch.randn(sum(lengths), 32).to(device, dtype)
        hidden = hidden.to(device, dtype).requires_grad_()
        scaling = fp8_layers.apply_fp8(model.to(device))
        fp8_layers._kernels = lambda *_, kernels=kernels: kernels
        for _ in range(2):  # the first step observes
            model.zero_grad()
            hidden.grad = None
            if scaling.observed and kernels:  # without a graph break; one layer, since it takes seconds
                model.encoder.layer[1].compile(backend="aot_eager", fullgraph=True)
            scaling.begin_step()
            out = model.encoder(hidden, layout)[-1]
            (out * weight).sum().backward()
            scaling.end_step()
        scales = scaling.state_dict()["scale"]
        results.append([out, hidden.grad, *(p.grad for p in model.encoder.parameters()), scales])
    return [((a - b).norm() / b.norm().clamp(min=0.1)).item() for a, b in zip(*results, strict=True)]


def child():
    from bert.model.kernels import fp8

    cast_like_hardware()
    fp8.TILES, fp8.ROWS, fp8.COLUMNS = 2, 32, 32
    results = {f"{part}, {name}": share for name, shape in SHAPES.items() for part, share in shares(*shape).items()}
    results["special"] = special_values()
    results["layer"] = layer_differences()
    print(json.dumps(results))


@pytest.mark.triton
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", SHAPES)
def test_interpreted_kernels_equal_pytorch(interpreted, part, name):
    assert interpreted[f"{part}, {name}"] <= (0 if part in ("input", "gradient") else 0.002)


@pytest.mark.triton
def test_what_is_too_large_saturates_and_what_is_infinite_stays_visible(interpreted):
    e4m3, e5m2, amax = interpreted["special"]
    assert e4m3 == [-1, -1, -1, 448, -448, 0, 3, 0]  # -1 stands for NaN
    assert e5m2 == [-1, -1, -1, 57344, -57344, 0, 3, 0]
    assert amax == [5, 0, 7]


@pytest.mark.triton
def test_layers_with_the_kernels_equal_layers_without(interpreted):
    assert max(interpreted["layer"]) <= 0.02


@pytest.mark.triton
def test_kernels_compile_for_hopper_to_saturating_casts_and_16_byte_accesses():
    from compiled_kernels import compile_kernel, resources  # pyright: ignore[reportMissingImports]

    from bert.model.kernels import fp8

    tile = {"WIDTH": 4096, "TANH": False, "ROWS": fp8.ROWS, "COLUMNS": fp8.COLUMNS}
    row = {"WIDTH": 1024, "BLOCK": 1024, "DROPOUT": 0.1, "ROWS": fp8.NORM_ROWS}
    for kernel, warps, dtype, constants in (
        (fp8.quantize_kernel, fp8.WARPS, "*fp8e4nv", tile | {"GELU": True, "SUM": False}),
        (fp8.gelu_backward_kernel, fp8.WARPS, "*fp8e5", tile | {"TILES": fp8.TILES}),
        (fp8.norm_kernel, fp8.NORM_WARPS, "*fp8e4nv", row),
        (fp8.norm_backward_kernel, fp8.NORM_WARPS, "*fp8e5", row),
    ):
        largest = LARGEST[E4M3 if dtype == "*fp8e4nv" else E5M2]
        types = dict.fromkeys(("tokens", "padded"), "i32") | {"keys_ptr": "*i32", "eps": "fp32"}
        types |= dict.fromkeys(("x_ptr", "y_ptr", "dy_ptr", "residual_ptr", "dresidual_ptr"), "*bf16")
        types |= dict.fromkeys(("q_ptr", "qt_ptr"), dtype)
        compiled = compile_kernel(kernel, 90, types, constants | {"LARGEST": largest}, warps)
        ptx = compiled.asm["ptx"]
        assert resources(compiled)["STACK"] == 0  # nothing that a thread keeps in memory
        assert f"cvt.rn.satfinite.{'e4m3' if largest == 448 else 'e5m2'}x2.f32" in ptx
        assert "st.global.v4.b32" in ptx
        assert "red.global.gpu.relaxed.max" in ptx  # no fence around the maximum


def skip_without_fp8():
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no FP8 before compute capability 8.9")


@pytest.mark.triton
@pytest.mark.gpu
def test_layers_with_the_kernels_equal_layers_without_on_a_gpu(monkeypatch):
    skip_without_fp8()
    monkeypatch.setattr("bert.model.fp8_layers._kernels", None)  # put back after the test
    assert max(layer_differences("cuda", torch.bfloat16)) <= 0.1


@pytest.mark.triton
@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3000, 1024), (333, 4096), (5, 768)])
def test_kernels_equal_pytorch_on_a_gpu(shape):
    skip_without_fp8()
    found = shares(*shape, "cuda", torch.bfloat16)
    assert max(found.values()) <= 0.002, found
    assert found["input"] == found["gradient"] == 0


if __name__ == "__main__":
    child()
