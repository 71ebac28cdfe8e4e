"""FP8 products against float64 on an FP8 written here from the formats' definition, and scales against tables."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bert.errors import UsageError
from bert.model import fp8
from bert.model.attention import build_layout
from bert.model.bert import BertForPreTraining, BertModel
from bert.model.config import BertConfig
from bert.model.fp8 import GRADIENT, INPUT, WEIGHT, Product, Scaling
from bert.model.fp8_layers import apply_fp8
from bert.model.objective import PreTrainingObjective
from bert.train.precision import Precision, PrecisionConfig

CPU = torch.device("cpu")
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def grid(mantissa, bias, largest):
    """Return all non-negative numbers of a format of 7 bits besides the sign, in the order of their codes."""
    values = []
    for code in range(128):
        exponent, fraction = code >> mantissa, (code & (1 << mantissa) - 1) / 2**mantissa
        values.append(2.0 ** (exponent - bias) * (1 + fraction) if exponent else 2.0 ** (1 - bias) * fraction)
    return torch.tensor([value for value in values if value <= largest], dtype=torch.float64)


E4M3, E5M2 = grid(3, 7, 448), grid(2, 15, 57344)


def nearest(x, scale, numbers):
    """Return x in float64, rounded to the nearest of ``numbers`` / scale, to the even code from the middle."""
    scaled = (x.double() * scale.double()).abs().clamp(max=numbers[-1].item())
    above = torch.searchsorted(numbers, scaled).clamp(min=1, max=len(numbers) - 1)
    low, high = scaled - numbers[above - 1], numbers[above] - scaled
    code = torch.where((low < high) | ((low == high) & (above % 2 == 1)), above - 1, above)
    return numbers[code] * x.sign() / scale.double()


def make_product(scales=(150.0, 900.0, 20_000.0), sizes=(32, 32)):
    torch.manual_seed(0)
    product = Product([nn.Linear(48, size) for size in sizes])
    product.scale.copy_(torch.tensor(scales))
    product.inverse.copy_(1 / product.scale)
    product.begin_step()
    return product


def test_the_three_products_equal_float64_on_quantised_operands():
    product = make_product()  # saturates the largest of each operand
    x, dy = torch.randn(21, 48, requires_grad=True), torch.randn(21, 64) * torch.randn(21, 64).exp()
    y = product(x, True)
    y.backward(dy)
    weight = torch.cat([linear.weight for linear in product.linears]).detach()
    bias = torch.cat([linear.bias for linear in product.linears]).detach()
    x8, w8 = nearest(x.detach(), product.scale[INPUT], E4M3), nearest(weight, product.scale[WEIGHT], E4M3)
    dy8 = nearest(dy, product.scale[GRADIENT], E5M2)
    gradient, dbias = (
        torch.cat([getattr(linear, name).grad for linear in product.linears]) for name in ("weight", "bias")
    )
    expected = {"y": x8 @ w8.T + bias, "dx": dy8 @ w8, "dw": dy8.T @ x8, "dbias": dy.double().sum(0)}
    for (name, value), actual in zip(expected.items(), (y, x.grad, gradient, dbias), strict=True):
        torch.testing.assert_close(
            actual.double(), value, rtol=1e-5, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert product.amax.tolist() == [x.abs().max(), weight.abs().max(), dy.abs().max()]


def test_micro_batches_share_a_scale_and_add_up():
    x, dy = torch.randn(40, 48), torch.randn(40, 64)
    results = []
    for cuts in ([0, 40], [0, 7, 40]):
        product = make_product()
        for low, high in pairwise(cuts):
            product(x[low:high], True).backward(dy[low:high])
        results.append((product.linears[0].weight.grad, product.amax))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    assert torch.equal(results[0][1], results[1][1])


def test_scales_follow_a_table(monkeypatch):
    """The largest number of the format over the largest maximum of three steps, the one just finished among them."""
    monkeypatch.setattr(fp8, "HISTORY", 3)
    product = make_product(scales=(1.0, 1.0, 1.0))
    scaling = Scaling([product])
    inf, nan = float("inf"), float("nan")
    found = []
    for amax in (0.0, 2.0, 4.0, 1.0, inf, nan, 0.5, 0.0, 0.0, 0.0):
        product.amax.copy_(torch.tensor([amax, 7.0, 2 * amax]))
        scaling.end_step()
        found.append([round(value, 3) for value in product.scale.tolist()])
    inputs = [1, 224, 112, 112, 112, 448, 896, 896, 896, 896]  # nothing seen: as before, at first 1
    assert [row[0] for row in found] == inputs
    assert [row[1] for row in found] == [64] * 10
    assert [row[2] for row in found] == [1, *(scale * 64 for scale in inputs[1:])]  # 57344 / (2 * 448) = 64
    assert product.inverse.tolist() == pytest.approx([1 / value for value in found[-1]])


def test_ranks_agree_on_the_largest_maximum():
    product = make_product()
    scaling = Scaling([product])
    product.amax.copy_(torch.tensor([2.0, float("inf"), 1.0]))
    scaling.end_step(lambda amax: torch.maximum(amax, torch.tensor([[1.0, 3.5, 4.0]])))  # of another rank
    assert product.scale.tolist() == [224, 128, 14336]


def test_names_and_evaluation_are_those_of_the_plain_model(make_batch):
    torch.manual_seed(0)
    plain = BertForPreTraining(BertConfig(101, 32, **SIZES))
    model = BertForPreTraining(BertConfig(101, 32, **SIZES))
    model.load_state_dict(plain.state_dict())
    apply_fp8(model.bert).end_step()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_buffers()] == [name for name, _ in plain.named_buffers()]
    batch = make_batch([5, 9])
    losses = [PreTrainingObjective(each.eval())(batch)["mlm_loss"] for each in (plain, model)]
    assert torch.equal(*losses)


def test_the_first_step_is_exact_and_the_second_close(make_batch):
    torch.manual_seed(0)
    plain, model = (BertForPreTraining(BertConfig(101, 32, **SIZES, **NO_DROPOUT)) for _ in range(2))
    model.load_state_dict(plain.state_dict())
    scaling, batch, distances = apply_fp8(model.bert), make_batch([5, 9, 20]), []
    for _ in range(2):
        scaling.begin_step()
        gradients = []
        for each in (plain, model):
            each.zero_grad()
            PreTrainingObjective(each)(batch)["mlm_loss"].backward()
            gradients.append(torch.cat([p.grad.flatten() for p in each.bert.encoder.parameters()]))
        scaling.end_step()
        distances.append(((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item())
    assert distances[0] <= 1e-5
    assert 1e-3 <= distances[1] <= 0.1  # three bits after the point, two in gradients


class NoReading(TorchDispatchMode):
    """Raises where the host would read a value, and so would wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


def test_the_host_reads_no_value_in_a_step():
    model, hidden = BertModel(BertConfig(101, 32, **SIZES)), torch.randn(14, 32)
    scaling, layout = apply_fp8(model), build_layout(torch.tensor([0, 5, 14]), 9, 14, "sdpa")
    with NoReading():
        for _ in range(2):
            scaling.begin_step()
            model.encoder(hidden, layout)[-1].sum().backward()
            scaling.end_step()


@pytest.mark.parametrize(
    "config,message",
    [
        (PrecisionConfig(fp8=True, fp16=True), "--fp8 and --fp16: choose one"),
        (PrecisionConfig(fp8=True, bf16=True, allreduce_post_accumulation_fp16=True), "--fp8 and --allreduce_post"),
    ],
)
def test_contradictions_are_refused(config, message):
    with pytest.raises(UsageError, match=message):
        Precision(config, CPU)


def test_a_gpu_without_fp8_is_refused_and_a_cpu_told_of(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    with pytest.raises(UsageError, match=r"--fp8: NVIDIA A100 has compute capability 8\.0, expected at least 8\.9"):
        Precision(PrecisionConfig(fp8=True), torch.device("cuda"))
    said = []
    assert Precision(PrecisionConfig(fp8=True), CPU, said.append).name == "fp8"
    assert "--fp8: emulated on a CPU" in said[0]


def test_sizes_and_adapters_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="--fp8: a linear layer has 40 columns or rows, expected a multiple of 16"):
        apply_fp8(BertModel(BertConfig(101, 32, **{**SIZES, "intermediate_size": 40})))
    model = BertModel(BertConfig(101, 32, **SIZES))
    model.adapters = nn.Identity()
    with pytest.raises(UsageError, match="--fp8: not supported with adapters"):
        apply_fp8(model)
