"""The fused kernels against plain PyTorch: interpreted on the CPU, compiled for GPUs, run on one if there is one.

``TRITON_INTERPRET`` counts only before Triton is imported, so the interpreted cases run in a child process: this file.
"""

import json

import pytest
import torch
import torch.nn.functional as F

import bert  # noqa: F401  # hides the repository's own triton/ folder
from bert.model.attention import build_layout
from bert.model.config import BertConfig
from bert.model.dropout import draw_keys
from bert.model.layers import BertLayer
from bert.train.parallel import apply_activation_checkpointing

SHAPES = {"several tiles": (37, 96), "one row": (1, 40), "no row": (0, 32)}
KINDS = ["gelu", "gelu_tanh", "norm", "norm with dropout"]


def mask_of(keys, tokens, dropout):
    """What the docstring of bert.model.kernels.random promises, in Python's integers: float64 [T, H], 1 where kept."""
    x = keys[:tokens, None].long() * keys[None, tokens:].long() & 0xFFFFFFFF
    x ^= x >> 15
    return ((x * 0x7FEB352D & 0xFFFFFFFF) >= int(dropout * 2**32)).double()


def differences(kind, tokens, width, dtype=torch.float32, device="cpu", parameters=torch.float32):
    """Return the largest differences of the result and of every gradient from float64, over the largest value."""
    from bert.model.kernels import fused

    torch.manual_seed(0)

    def draw(*shape, scale=1.0, dtype=torch.float32):
        return (torch.randn(shape) * scale).to(device, dtype).requires_grad_()

    dropout = 0.25 if "dropout" in kind else 0.0
    if kind.startswith("gelu"):
        inputs = [draw(tokens, width, scale=3, dtype=dtype), draw(width, dtype=parameters)]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        actual = fused.bias_gelu(*inputs, kind == "gelu_tanh")
        expected = F.gelu(exact[0] + exact[1], approximate="tanh" if kind == "gelu_tanh" else "none")
    else:
        rows, vectors = (
            [draw(tokens, width, dtype=dtype) for _ in range(2)],
            [draw(width, dtype=parameters) for _ in range(3)],
        )
        inputs = [rows[0], vectors[0], rows[1], vectors[1], vectors[2]]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        keys = draw_keys(tokens + width, torch.device(device))
        actual = fused.bias_dropout_add_norm(*inputs, keys if dropout else None, dropout, 1e-12)
        mask = mask_of(keys, tokens, dropout)
        total = exact[2] + (exact[0] + exact[1]) * mask / (1 - dropout)
        expected = F.layer_norm(total, (width,), exact[3], exact[4], 1e-12)
    weight = torch.randn(tokens, width).to(device)
    gradients = torch.autograd.grad((actual * weight).sum(), inputs)
    exact_gradients = torch.autograd.grad((expected * weight).sum(), exact)
    pairs = zip((actual, *gradients), (expected, *exact_gradients), strict=True)
    return [((a - e).abs().max() / e.abs().max().clamp(min=1)).item() if a.numel() else 0.0 for a, e in pairs]


def layer_equals_plain():
    """A whole layer with the kernels against the same layer without."""
    from bert.model import layers
    from bert.model.kernels import fused

    config = BertConfig(100, 32, 1, 2, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    lengths = [5, 9, 1]
    layout = build_layout(torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths), sum(lengths), "sdpa")
    results = []
    for kernels in (None, fused):
        torch.manual_seed(0)
        layer, hidden = BertLayer(config), torch.randn(sum(lengths), 32, requires_grad=True)
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, 0.1, 0.3)
        layers._kernels = lambda _, kernels=kernels: kernels
        out = layer(hidden, layout)
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        results.append([out, hidden.grad, *(p.grad for p in layer.parameters())])
    return max((a - b).abs().max().item() for a, b in zip(*results, strict=True))


def mask_statistics():
    """Return, in standard deviations, what independent draws would make small: means and correlations of neighbours."""
    worst = {}
    for seed in range(5):
        torch.manual_seed(seed)
        n, p = 1024, 0.1
        centred = (mask_of(draw_keys(2 * n, torch.device("cpu")), n, p) - (1 - p)) / (p * (1 - p)) ** 0.5
        found = {
            "mean": centred.mean() * n,
            "row": centred.mean(1).abs().max() * n**0.5,
            "column": centred.mean(0).abs().max() * n**0.5,
            "rows": (centred[1:] * centred[:-1]).mean() * n,
            "columns": (centred[:, 1:] * centred[:, :-1]).mean() * n,
            "rectangles": (centred[1:, 1:] * centred[1:, :-1] * centred[:-1, 1:] * centred[:-1, :-1]).mean() * n,
        }
        worst = {name: max(abs(float(value)), worst.get(name, 0.0)) for name, value in found.items()}
    return worst


def child():
    from bert.model.kernels import fused

    fused.COLUMNS, fused.TILES = 32, 2
    fused.NORM_PROGRAMS, fused.NORM_BACKWARD_PROGRAMS = 3, 4
    results = {f"{kind}, {name}": differences(kind, *shape) for kind in KINDS for name, shape in SHAPES.items()}
    half = torch.float16
    results["fp16"] = [x for kind in KINDS for x in differences(kind, 37, 96, half)]
    results["fp16 parameters"] = [x for kind in KINDS for x in differences(kind, 37, 96, half, parameters=half)]
    results["layer"] = layer_equals_plain()
    print(json.dumps(results))


@pytest.mark.triton
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_interpreted_kernels_equal_pytorch(interpreted, kind, name):
    result = interpreted[f"{kind}, {name}"]
    assert max(result) <= 2e-6, result


@pytest.mark.triton
@pytest.mark.parametrize("case", ["fp16", "fp16 parameters"])
def test_interpreted_kernels_in_half_precision(interpreted, case):
    assert max(interpreted[case]) <= 2e-3, interpreted[case]


@pytest.mark.triton
def test_a_layer_with_the_kernels_equals_one_without(interpreted):
    assert interpreted["layer"] <= 1e-5


def test_masks_look_independent():
    worst = mask_statistics()
    assert all(value <= 5 for value in worst.values()), worst


@pytest.mark.triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_to_16_byte_accesses(capability):
    """Needs no GPU. Narrower accesses would cost half the bandwidth; one of 16 bytes is 8 values in half precision."""
    from compiled_kernels import compile_kernel, resources

    from bert.model.kernels import fused

    tile = {"WIDTH": 4096, "TANH": False, "ROWS": fused.ROWS, "COLUMNS": fused.COLUMNS}
    row = {"WIDTH": 1024, "BLOCK": 1024, "DROPOUT": 0.1, "ROWS": fused.NORM_ROWS}
    types = dict.fromkeys(("x_ptr", "y_ptr", "dx_ptr", "dy_ptr", "residual_ptr", "dresidual_ptr"), "*bf16")
    types |= {"tokens": "i32", "eps": "fp32", "keys_ptr": "*i32"}
    narrow = {}
    for kernel, constants in (
        (fused.gelu_kernel, tile),
        (fused.gelu_backward_kernel, tile | {"TILES": fused.TILES}),
        (fused.norm_kernel, row),
        (fused.norm_backward_kernel, row),
    ):
        compiled = compile_kernel(kernel, capability, types, constants, fused.WARPS)
        assert resources(compiled)["STACK"] == 0
        lines = compiled.asm["ptx"].splitlines()
        accesses = [line for line in lines if "ld.global" in line or "st.global" in line]
        assert any(".v4.b32" in line for line in accesses)
        narrow[kernel.__name__] = sum(".v4.b32" not in line for line in accesses)
        ahead = [line for line in lines if "cp.async.cg" in line]  # of 16 bytes; narrower ones are cp.async.ca
        assert bool(ahead) == ("norm" in kernel.__name__)
    # Eight keys of columns once per program; the mean and deviation of a row, which only the forward pass stores.
    assert narrow == {"gelu_kernel": 0, "gelu_backward_kernel": 0, "norm_kernel": 10, "norm_backward_kernel": 8}


@pytest.mark.triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3000, 1024), (333, 4096), (5, 768)])
def test_kernels_equal_pytorch_on_a_gpu(kind, shape, dtype):
    result = differences(kind, *shape, dtype, "cuda")
    assert max(result) <= (2e-2 if dtype == torch.bfloat16 else 3e-3), result


@pytest.mark.triton
@pytest.mark.gpu
def test_a_recomputed_layer_drops_the_same_on_a_gpu():
    """Activation checkpointing runs the forward pass again, and every mask has to come out as before."""
    config = BertConfig(100, 128, 1, 2, 512)
    cu_seqlens = torch.tensor([0, 100, 164], dtype=torch.int32, device="cuda")
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        layer, hidden = BertLayer(config).cuda(), torch.randn(164, 128, device="cuda", dtype=torch.bfloat16)
        if recompute:
            apply_activation_checkpointing([layer])
        hidden.requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            out = layer(hidden, build_layout(cu_seqlens, 100, 164))
        out.float().square().sum().backward()
        gradients.append([hidden.grad, *(p.grad for p in layer.parameters())])
    for kept, recomputed in zip(*gradients, strict=True):
        assert torch.equal(kept, recomputed)


if __name__ == "__main__":
    child()
