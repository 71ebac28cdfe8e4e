"""The loop: accumulation, interruption, skipped steps and batch arithmetic."""

import math
from dataclasses import asdict

import pytest
import torch

from bert.distributed import World
from bert.errors import UsageError
from bert.finetune.training import RunConfig, TaskLogConfig, TrainingConfig
from bert.model.bert import BertForPreTraining
from bert.model.objective import PreTrainingObjective
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.train.batch_geometry import BatchConfig, BatchGeometry, batch_geometry
from bert.train.hooks import Hooks, StepReport
from bert.train.precision import PrecisionConfig
from bert.train.run import build_run
from bert.train.trainer import Trainer

CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)


class Endless:
    """A loader that yields the same steps over and over and counts them."""

    def __init__(self, *steps):
        self.steps, self.drawn = steps, 0

    def __next__(self):
        step = self.steps[self.drawn % len(self.steps)]
        self.drawn += 1
        return step

    def state_dict(self):
        return {"drawn": self.drawn}

    @property
    def epoch(self):
        return self.drawn / len(self.steps)


class Stop:
    requested = False


def make_trainer(
    config, precision: PrecisionConfig | None = None, optimizer: str = "lamb", lr: float = 1e-2, world: World = ALONE
) -> Trainer:
    torch.manual_seed(0)
    model = BertForPreTraining(config).to(world.device)
    settings = TrainingConfig(
        RunConfig(output_dir="", seed=1),
        precision=precision or PrecisionConfig(),
        log=TaskLogConfig(disable_progress_bar=True),
    )
    run = build_run(settings, world, Stop())
    optimizer = build_optimizer(OptimizerConfig(optimizer=optimizer), model)
    return Trainer(run, PreTrainingObjective(model), optimizer, lambda step: lr * step)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.objective.named_parameters()}


def never() -> bool:
    return False


@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "bertadam"])
def test_accumulation_equals_one_large_batch(tiny_config, make_batch, optimizer):
    """Micro-batches of unequal numbers of masked tokens: a mean of means would differ."""
    lengths = [5, 6, 7, 20, 21, 22]
    whole = make_batch(lengths, masked=3)
    cut = whole.cu_seqlens[3].item()
    parts = []
    for begin, end, low, high in ((0, 3, 0, cut), (3, 6, cut, sum(lengths))):
        inside = (whole.masked_positions >= low) & (whole.masked_positions < high)
        if begin:  # drop two labels of the second half, from the whole batch as well
            inside[-2:] = False
        parts.append(
            type(whole)(
                whole.input_ids[low:high],
                whole.token_type_ids[low:high],
                whole.cu_seqlens[begin : end + 1] - low,
                max(lengths[begin:end]),
                whole.masked_positions[inside] - low,
                whole.masked_labels[inside],
                whole.next_sentence_labels[begin:end],
            )
        )
    whole = type(whole)(
        whole.input_ids,
        whole.token_type_ids,
        whole.cu_seqlens,
        whole.max_seqlen,
        whole.masked_positions[:-2],
        whole.masked_labels[:-2],
        whole.next_sentence_labels,
    )
    results = []
    for step in ([whole], parts):
        trainer = make_trainer(tiny_config, optimizer=optimizer, lr=3e-5)
        for _ in range(3):
            losses = trainer.train_step(step, never)
            trainer.apply()
        results.append((weights(trainer), losses))
    for name, expected in results[0][0].items():
        if "key.bias" not in name:  # its gradient is 0 in theory, and Adam blows rounding up to full steps
            torch.testing.assert_close(
                results[1][0][name], expected, rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
            )
    for name, expected in results[0][1].items():
        torch.testing.assert_close(
            results[1][1][name], expected, rtol=1e-6, atol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_reported_loss_is_the_mean_cross_entropy(tiny_config, make_batch):
    batch = make_batch([8, 12])
    trainer = make_trainer(tiny_config)
    scores, relationship = trainer.objective.logits(batch)
    losses = trainer.train_step([batch], never)
    mlm = -scores.log_softmax(-1)[torch.arange(4), batch.masked_labels].mean()
    nsp = -relationship.log_softmax(-1)[torch.arange(2), batch.next_sentence_labels].mean()
    torch.testing.assert_close(losses["mlm_loss"], mlm.detach())
    torch.testing.assert_close(losses["nsp_loss"], nsp.detach())


def test_a_step_interrupted_between_micro_batches_changes_nothing(tiny_config, make_batch):
    trainer = make_trainer(tiny_config)
    before = weights(trainer)
    outcome = trainer.train_step([make_batch([5]), make_batch([6])], lambda: True)
    assert outcome is None
    assert all(p.grad is None for p in trainer.objective.parameters())
    for name, value in weights(trainer).items():
        assert torch.equal(value, before[name])


def test_fit_saves_at_an_interruption_and_the_rest_is_done_later(tiny_config, make_batch):
    """5 steps, a stop during step 3's accumulation, then the remaining steps: bitwise as without the stop."""
    steps = [[make_batch([5, 9], seed=n), make_batch([7], seed=n + 10)] for n in range(5)]
    straight = make_trainer(tiny_config)
    straight.fit(Endless(*steps), 5, Hooks(lambda report: None))

    trainer, saves = make_trainer(tiny_config), []
    stop = trainer.run.stop
    objective, calls = trainer.objective.forward, []

    def stop_in_third_step(batch):
        calls.append(batch)
        stop.requested = len(calls) == 5  # two micro-batches a step: the first one of step 3
        return objective(batch)

    trainer.objective.forward = stop_in_third_step
    loader = Endless(*steps)
    hooks = Hooks(lambda report: None, save=lambda: saves.append((trainer.state.step, dict(trainer.state.data))))
    outcome = trainer.fit(loader, 5, hooks)
    assert outcome.interrupted and saves == [(2, {"drawn": 2})]
    stop.requested = False
    loader.drawn = trainer.state.data["drawn"]
    trainer.objective.forward = objective
    trainer.fit(loader, 5, hooks)
    for name, value in weights(straight).items():
        assert torch.equal(weights(trainer)[name], value), name


def test_infinite_gradients_skip_the_step_and_move_neither_step_nor_rate(tiny_config, make_batch):
    trainer = make_trainer(tiny_config, PrecisionConfig(loss_scale=0.0))
    before = weights(trainer)
    trainer.train_step([make_batch([5])], never)
    next(trainer.objective.parameters()).grad[0, 0] = math.inf
    assert trainer.apply()[0] is False
    assert (trainer.state.step, trainer.state.iteration, trainer.precision.skipped) == (0, 1, 1)
    for name, value in weights(trainer).items():
        assert torch.equal(value, before[name])
    trainer.train_step([make_batch([5])], never)
    assert trainer.apply()[0] is True
    assert trainer.optimizer.param_groups[0]["lr"] == 1e-2  # the rate of step 1, although it is the second attempt


def test_a_run_of_infinite_gradients_ends_with_a_diagnosis(tiny_config, make_batch):
    trainer = make_trainer(tiny_config, PrecisionConfig(max_skipped_steps=3))
    parameter = next(trainer.objective.parameters())
    parameter.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(UsageError, match="3 optimizer steps in a row had a gradient norm of nan"):
        trainer.fit(Endless([make_batch([5])]), 10, Hooks(lambda report: None))
    assert trainer.state.step == 0


def test_hooks_run_when_due(tiny_config, make_batch):
    trainer, calls = make_trainer(tiny_config), []

    def report(report: StepReport) -> None:
        calls.append(("report", report.step, report.learning_rate))

    hooks = Hooks(
        report,
        report_every=2,
        evaluate=lambda: calls.append(("evaluate", trainer.state.step)),
        evaluate_every=3,
        save=lambda: calls.append(("save", trainer.state.step)),
        save_every=2,
    )
    trainer.fit(Endless([make_batch([5])]), 5, hooks)
    assert calls == [
        ("report", 2, 2e-2),
        ("save", 2),
        ("evaluate", 3),
        ("report", 4, 4e-2),
        ("save", 4),
        ("report", 5, 5e-2),
        ("save", 5),
        ("evaluate", 5),
    ]


def test_queueing_ahead_changes_nothing(tiny_config, make_batch):
    """What a GPU run does, on a CPU: settled late or at once, the same weights, rates, reports and calls.

    The gradients of the third global batch are infinite, so that a late answer is also a surprising one.
    """
    runs = []
    for ahead in (False, True):
        trainer, calls = make_trainer(tiny_config), []
        trainer.queues_ahead = ahead
        spoil = next(trainer.objective.parameters()).register_hook(
            lambda grad, trainer=trainer: grad * (math.inf if trainer.state.iteration == 2 else 1.0)
        )
        hooks = Hooks(
            lambda report, calls=calls: calls.append(
                (report.step, report.losses, report.learning_rate, report.grad_norm)
            ),
            report_every=3,
            save=lambda trainer=trainer, calls=calls: calls.append(asdict(trainer.state)),
            save_every=4,
        )
        trainer.fit(Endless([make_batch([5, 9]), make_batch([8])]), 7, hooks)
        spoil.remove()
        runs.append((calls, weights(trainer)))
    assert runs[0][0] == runs[1][0]
    assert [call["iteration"] for call in runs[0][0] if isinstance(call, dict)] == [5, 8]
    for name, value in runs[0][1].items():
        assert torch.equal(value, runs[1][1][name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "bertadam"])
def test_a_step_is_queued_without_waiting_for_the_gpu(tiny_config, make_batch, optimizer):
    """CUDA itself raises where the host would wait."""
    world = World(rank=0, local_rank=0, size=1, device=torch.device("cuda", 0))
    trainer = make_trainer(tiny_config, PrecisionConfig(bf16=True), optimizer, world=world)
    batches = [make_batch([5, 9]).pinned(), make_batch([8]).pinned()]
    for _ in range(2):  # here kernels are compiled and moments made
        trainer.train_step(batches, never)
        trainer.apply()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(batches, never)
        trainer.queue_update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.settle()[0]


def test_fp16_loss_scale_does_not_change_the_step(tiny_config, make_batch):
    """A power of two in the loss, taken out of the gradients: the update is the unscaled one (bf16 has no scale)."""
    results = []
    for scale in (1.0, 1024.0):
        trainer = make_trainer(tiny_config)
        trainer.precision.loss_scale.value = scale
        trainer.train_step([make_batch([8, 4])], never)
        results.append((trainer.apply()[1], weights(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, value in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "config,world,expected",
    [
        (BatchConfig(8192, 128), 8, BatchGeometry(64, 128, 8)),  # NVIDIA's phase 1 on a DGX: 65536 in all
        (BatchConfig(32, 1), 1, BatchGeometry(32, 1, 1)),
        (BatchConfig(32, 4, global_batch_size=256), 2, BatchGeometry(32, 4, 2)),
    ],
)
def test_batch_semantics(config, world, expected):
    geometry = batch_geometry(config, world)
    assert geometry == expected
    assert geometry.banner().endswith(f"= {expected.micro * expected.accumulation * world} per optimizer step")


@pytest.mark.parametrize(
    "config,message",
    [
        (BatchConfig(100, 8), "--train_batch_size 100 is not divisible by --gradient_accumulation_steps 8"),
        (BatchConfig(32, 1, global_batch_size=7), "--global_batch_size 7 is not divisible by 2 devices"),
        (BatchConfig(32, 8, global_batch_size=20), "10 is not divisible by --gradient_accumulation_steps 8"),
    ],
)
def test_batches_that_do_not_divide_are_refused(config, message):
    with pytest.raises(UsageError, match=message):
        batch_geometry(config, 2)
