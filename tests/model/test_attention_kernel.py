"""The attention kernels against plain attention: interpreted on the CPU, compiled for GPUs, run on one if there is one.

``TRITON_INTERPRET`` counts only before Triton is imported, so the interpreted cases run in a child process: this file.
"""

import json

import pytest
import torch

import bert  # noqa: F401  # hides the repository's own triton/ folder
from bert.model.dropout import draw_keys

HEADS, SIZE = 2, 16
KERNELS = ["two kernels", "one kernel"]
LENGTHS = {
    "one block of keys": [1, 7, 32, 20],
    "several blocks": [40, 1, 33],
    "one token": [1],
}
CASES = [("one block of keys", 0.25), ("several blocks", 0.0), ("several blocks", 0.25), ("one token", 0.0)]


def masked_attention(qkv, lengths, masks):
    """softmax(q k^T / sqrt(d)) v, with the weights of every head times ``masks[i]``; in qkv's own precision."""
    contexts = []
    for sequence, mask in zip(qkv.split(lengths), masks, strict=True):
        q, k, v = sequence.permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        contexts.append((weights * mask @ v).transpose(0, 1))
    return torch.cat(contexts)


def stream(lengths, dtype=torch.float32, device="cpu", heads=HEADS, size=SIZE):
    draw = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, heads, size, generator=draw).to(device, dtype)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    return qkv, cu_seqlens


def keys_of(lengths, heads, device):
    torch.manual_seed(1)
    return draw_keys(sum(lengths) + heads * max(lengths), torch.device(device))


def drawn_masks(lengths, dropout, device="cpu", dtype=torch.float32, heads=HEADS, size=SIZE):
    """Read the masks off the kernel: equal scores, and values that are 1 for one key at a time."""
    from bert.model.kernels.attention import attention

    qkv, cu_seqlens = stream(lengths, dtype, device, heads, size)
    masks = [torch.zeros(heads, n, n, device=device) for n in lengths]
    for first in range(0, max(lengths), size):
        qkv.zero_()
        for start, n in zip(cu_seqlens.tolist(), lengths, strict=False):
            for column in range(first, min(first + size, n)):
                qkv[start + column, 2, :, column - first] = n
        context = attention(qkv, cu_seqlens, max(lengths), dropout, keys_of(lengths, heads, device))
        for mask, out in zip(masks, context.split(lengths), strict=True):
            width = min(size, max(0, mask.shape[-1] - first))
            mask[:, :, first : first + width] = out.float().transpose(0, 1)[:, :, :width]
    return [(mask * (1 - dropout)).round() / (1 - dropout) for mask in masks]


def compare(lengths, dropout, dtype=torch.float32, device="cpu", heads=HEADS, size=SIZE):
    """Return the largest difference of the context and of the gradient from float64, and the share of kept weights."""
    from bert.model.kernels.attention import attention

    qkv, cu_seqlens = stream(lengths, dtype, device, heads, size)
    masks = drawn_masks(lengths, dropout, device, dtype, heads, size) if dropout else [1.0] * len(lengths)
    exact = qkv.double().requires_grad_()
    qkv.requires_grad_()
    arguments = (cu_seqlens, max(lengths), dropout, keys_of(lengths, heads, device) if dropout else None)
    actual = attention(qkv, *arguments)
    expected = masked_attention(exact, lengths, masks)
    weight = torch.randn_like(expected).to(dtype)
    (gradient,) = torch.autograd.grad(actual, qkv, weight)
    (exact_gradient,) = torch.autograd.grad(expected, exact, weight.double())
    kept = torch.cat([(mask > 0).flatten() for mask in masks]).double().mean().item() if dropout else 1.0
    again = torch.autograd.grad(attention(qkv, *arguments), qkv, weight)[0]
    return {
        "context": (actual - expected).abs().max().item(),
        "gradient": (gradient - exact_gradient).abs().max().item(),
        "kept": kept,
        "same bits": torch.equal(gradient, again),
    }


def child():
    from bert.model.kernels import attention as forward
    from bert.model.kernels import attention_backward as backward
    from bert.model.kernels.blocks import Launch

    forward.FORWARD = backward.QUERIES = Launch(32, 16, 4, 1)
    backward.KEYS = backward.BACKWARD = Launch(16, 32, 4, 1)
    results = {}
    for kernels in KERNELS:
        backward.in_one_kernel = lambda *_, kernels=kernels: kernels == "one kernel"
        for name, p in CASES:
            results[f"{name}, {p}, {kernels}"] = compare(LENGTHS[name], p)
        results[f"padding, {kernels}"] = padding_does_not_count()
    results["fp16"] = compare(LENGTHS["one block of keys"], 0.25, torch.float16)
    print(json.dumps(results))


def padding_does_not_count():
    """Scores of -300: what follows the end of a sequence must not turn into infinity times zero."""
    from bert.model.kernels.attention import attention

    qkv, cu_seqlens = stream([5, 3])
    qkv[:, 0], qkv[:, 1] = 12.0, -6.0
    qkv.requires_grad_()
    context = attention(qkv, cu_seqlens, 5, 0.0, None)
    context.sum().backward()
    return bool(context.isfinite().all() and qkv.grad.isfinite().all())


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize(("name", "dropout"), CASES)
@pytest.mark.parametrize("kernels", KERNELS)
def test_interpreted_kernels_equal_plain_attention(interpreted, name, dropout, kernels):
    result = interpreted[f"{name}, {dropout}, {kernels}"]
    assert result["context"] <= 2e-6 and result["gradient"] <= 5e-6 and result["same bits"], result
    if name != "one token":
        assert result["kept"] == pytest.approx(1 - dropout, abs=0.02), result


@pytest.mark.slow
@pytest.mark.triton
def test_interpreted_kernels_in_half_precision(interpreted):
    result = interpreted["fp16"]
    assert result["context"] <= 5e-3 and result["gradient"] <= 1e-2, result


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("kernels", KERNELS)
def test_what_follows_a_sequence_does_not_count(interpreted, kernels):
    assert interpreted[f"padding, {kernels}"]


@pytest.mark.triton
def test_one_kernel_where_it_fills_the_gpu():
    from bert.model.kernels.attention_backward import in_one_kernel

    assert in_one_kernel(128, 16, 64) and in_one_kernel(512, 16 * 64, 64)
    assert not in_one_kernel(512, 12 * 8, 64) and not in_one_kernel(128, 16 * 256, 128)


@pytest.mark.triton
@pytest.mark.parametrize("whole", [True, False])
def test_the_backward_kernel_keeps_its_sums_in_registers(whole):
    """Needs no GPU. Spilled to memory, the sums of 128 keys would cost more than the second kernel did."""
    from compiled_kernels import compile_kernel, resources

    from bert.model.kernels.attention_backward import BACKWARD, backward_kernel

    types = dict.fromkeys(("qkv", "out", "grad", "dqkv"), "*bf16")
    types |= {"cu_seqlens": "*i32", "keys": "*i32", "tokens": "i32", "longest": "i32", "scale": "fp32"}
    constants = {"HEADS": 16, "SIZE": 64, "DROPOUT": 0.1, "WHOLE": whole, "ROWS": BACKWARD.rows}
    constants |= {"COLUMNS": BACKWARD.columns}
    compiled = compile_kernel(backward_kernel, 90, types, constants, BACKWARD.warps, BACKWARD.stages)
    assert resources(compiled)["STACK"] <= 64  # bytes
    assert compiled.metadata.shared <= 227 * 1024  # what a program can have on Hopper


@pytest.mark.triton
@pytest.mark.gpu
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("lengths", [[128, 1, 77], [512, 3, 128, 300]], ids=["one block", "several blocks"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernels", KERNELS)
def test_kernels_equal_plain_attention_on_a_gpu(lengths, dropout, dtype, size, kernels, monkeypatch):
    from bert.model.kernels import attention_backward

    one = kernels == "one kernel" and size <= 64
    monkeypatch.setattr(attention_backward, "in_one_kernel", lambda *_: one)
    result = compare(lengths, dropout, dtype, "cuda", heads=3, size=size)
    assert result["context"] <= 3e-2 and result["gradient"] <= 8e-2 and result["same bits"], result
    assert result["kept"] == pytest.approx(1 - dropout, abs=0.005), result


if __name__ == "__main__":
    child()
