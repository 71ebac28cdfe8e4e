"""Micro-batches with kept copies of the weights against autocast alone: the same bits, without its casts."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.train.half_weights import Accumulation
from bert.train.parallel import apply_activation_checkpointing


class Casts(TorchDispatchMode):
    """Counts conversions by the shape of the tensor."""

    def __init__(self):
        super().__init__()
        self.shapes = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.shapes[tuple(args[0].shape)] += 1
        return func(*args, **kwargs or {})


def gradients(config, batches, kept, checkpointed=False, compiled=None, frozen=False, steps=1, device="cpu"):
    """Return the gradients of each step after its micro-batches, and the casts of the last micro-batch."""
    torch.manual_seed(0)
    objective, found = PreTrainingObjective(BertForPreTraining(config)).to(device), []
    layers = objective.model.bert.encoder.layer
    if checkpointed:
        apply_activation_checkpointing(layers)
    if frozen:
        layers[0].intermediate.dense.weight.requires_grad_(False)
    if compiled:
        for layer in layers:
            layer.compile(backend=compiled, dynamic=True)
    accumulation = Accumulation(objective, torch.bfloat16, torch.device(device))
    assert accumulation.usable == (device == "cuda")
    accumulation.usable = kept
    casts = Casts()
    for _ in range(steps):
        objective.zero_grad()
        for index, batch in enumerate(batches):
            with accumulation.micro_batch(index, len(batches)), casts:
                casts.shapes.clear()
                with torch.autocast(device, torch.bfloat16):
                    loss = objective(batch.to(torch.device(device)))["mlm_loss"]
                loss.backward()
        with torch.no_grad():
            for parameter in objective.parameters():  # a step of the optimizer
                parameter -= 0.1 * (0 if parameter.grad is None else parameter.grad)
        found += [(name, p.grad) for name, p in objective.named_parameters()]
    assert all(p.dtype == torch.float32 for p in objective.parameters())
    return found, casts.shapes


@pytest.mark.parametrize(
    "case", [{}, {"steps": 2}, {"checkpointed": True}, {"frozen": True}, {"compiled": "aot_eager"}]
)
def test_gradients_are_the_same_bits(tiny_config, make_batch, case):
    batches = [make_batch([9, 5, 7]), make_batch([4, 12]), make_batch([20])]
    (expected, casts), (actual, fewer) = (gradients(tiny_config, batches, kept, **case) for kept in (False, True))
    for (name, a), (_, b) in zip(expected, actual, strict=True):
        assert (a is None and b is None) or torch.equal(a, b), name
    up = (tiny_config.intermediate_size, tiny_config.hidden_size)
    if case.get("compiled"):
        return  # its casts are inside the graphs
    assert casts[up] >= tiny_config.num_hidden_layers and fewer[up] == 0


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [None, "inductor"])
def test_gradients_are_the_same_on_a_gpu(make_batch, compiled):
    config = BertConfig(101, 128, 2, 2, 256, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batches = [make_batch([90, 128, 7]), make_batch([60, 33])]
    expected, actual = (gradients(config, batches, kept, compiled=compiled, device="cuda")[0] for kept in (False, True))
    for (name, a), (_, b) in zip(expected, actual, strict=True):
        if a is not None:  # embeddings are summed with atomics
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4, msg=name)
