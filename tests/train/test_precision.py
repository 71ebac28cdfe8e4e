"""The loss scale against a table written by hand, and the rule for steps whose gradients are not finite."""

import pytest
import torch

from bert.errors import UsageError
from bert.train.precision import LossScale, Precision, PrecisionConfig

CPU = torch.device("cpu")


def test_loss_scale_halves_on_overflow_and_doubles_after_the_interval():
    scale = LossScale(8.0, dynamic=True, growth_interval=3)
    values = []
    for overflow in (False, True, False, False, False, False, False, True, True, True, True, True, True):
        scale.update(overflow)
        values.append(scale.value)
    assert values == [8, 4, 4, 4, 8, 8, 8, 4, 2, 1, 1, 1, 1]  # never below the floor of 1


def test_a_constant_loss_scale_never_moves():
    scale = Precision(PrecisionConfig(fp16=True, loss_scale=128.0), CPU).loss_scale
    scale.update(overflow=True)
    assert scale.value == 128


def test_fifty_overflows_in_a_row_end_at_the_floor_with_a_diagnosis():
    precision = Precision(PrecisionConfig(fp16=True), CPU)
    for _ in range(49):
        precision.update(finite=False, grad_norm=float("inf"))
    assert precision.loss_scale.value == 1.0
    with pytest.raises(UsageError, match=r"50 optimizer steps in a row had a gradient norm of inf.*--learning_rate"):
        precision.update(finite=False, grad_norm=float("inf"))


def test_a_good_step_in_between_starts_the_count_again():
    precision = Precision(PrecisionConfig(bf16=True, max_skipped_steps=2), CPU)
    for finite in (False, True, False, True):
        precision.update(finite, grad_norm=1.0)
    assert precision.skipped == 2
    assert precision.loss_scale.value == 1.0  # no scale outside fp16


def test_state_survives_a_restart():
    first = Precision(PrecisionConfig(fp16=True), CPU)
    first.update(finite=False, grad_norm=float("nan"))
    second = Precision(PrecisionConfig(fp16=True), CPU)
    second.load_state_dict(first.state_dict())
    assert (second.loss_scale.value, second.skipped, second.skipped_in_a_row) == (2.0**19, 1, 1)


def test_autocast_computes_in_the_chosen_type():
    linear = torch.nn.Linear(2, 2)
    for config, dtype in ((PrecisionConfig(bf16=True), torch.bfloat16), (PrecisionConfig(), torch.float32)):
        with Precision(config, CPU).autocast():
            assert linear(torch.ones(1, 2)).dtype == dtype


@pytest.mark.parametrize(
    "config,message",
    [
        (PrecisionConfig(fp16=True, bf16=True), "--fp16 and --bf16: choose one"),
        (PrecisionConfig(allreduce_post_accumulation_fp16=True), "needs --fp16 or --bf16"),
    ],
)
def test_contradictions_are_refused(config, message):
    with pytest.raises(UsageError, match=message):
        Precision(config, CPU)


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_that_a_cpu_computes_element_by_element_is_told_of(monkeypatch, fast):
    monkeypatch.setattr("bert.train.precision.has_bf16_instructions", lambda: fast)
    said = []
    for config in (PrecisionConfig(), PrecisionConfig(fp16=True), PrecisionConfig(bf16=True)):
        Precision(config, CPU, said.append)
    Precision(PrecisionConfig(bf16=True), torch.device("cuda"), said.append)
    assert len(said) == (0 if fast else 1)
    assert all("--bf16" in line for line in said)
