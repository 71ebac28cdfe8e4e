"""Recorded steps: the same training as without, on a CPU by a stand-in for CUDA graphs, and on a GPU."""

import dataclasses
import os
import socket
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # also for the ranks, which run this file

from tape import Tape

from bert.batch import TaskBatch
from bert.distributed import DistributedConfig, World, join_world
from bert.finetune.training import RunConfig, TaskLogConfig, TrainingConfig
from bert.model.bert import BertForPreTraining, BertForQuestionAnswering, BertForSequenceClassification
from bert.model.config import BertConfig
from bert.model.objective import ClassificationObjective, PreTrainingObjective, QuestionAnsweringObjective
from bert.optim import gradients
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.optim.lamb import Lamb
from bert.optim.lamb.foreach import foreach_update
from bert.train import graphs
from bert.train.graphs import GraphedPredictor, ShapeGraphs, build_capture
from bert.train.hooks import Hooks
from bert.train.parallel import ParallelConfig, apply_parallelism
from bert.train.precision import Precision, PrecisionConfig
from bert.train.run import build_run
from bert.train.static_batch import static_batch, static_shape
from bert.train.trainer import Trainer

CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)
TINY = BertConfig(
    101, 32, 2, 4, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=64
)


class Stop:
    requested = False


class Steps:
    """A loader of given steps."""

    def __init__(self, steps):
        self.steps, self.drawn = steps, 0

    def __next__(self):
        self.drawn += 1
        return self.steps[self.drawn - 1]

    def state_dict(self):
        return {"drawn": self.drawn}


def make_trainer(objective, optimizer="adamw", capture=None, world=ALONE, precision=None) -> Trainer:
    settings = TrainingConfig(
        RunConfig(output_dir="", seed=1),
        precision=precision or PrecisionConfig(),
        log=TaskLogConfig(disable_progress_bar=True),
    )
    run = build_run(settings, world, Stop())
    built = build_optimizer(OptimizerConfig(optimizer=optimizer), objective.model)
    wrapped = apply_parallelism(objective, [], settings.parallel, world, False, capture is not None)
    return Trainer(run, wrapped, built, lambda step: 1e-2 / step, capture=capture)


def train(trainer: Trainer, steps) -> tuple[list, dict[str, torch.Tensor]]:
    """Run all steps; return what was reported and the weights after them."""
    reports: list = []
    hooks = Hooks(lambda report: reports.append((report.losses, report.grad_norm, report.learning_rate)))
    trainer.fit(Steps(steps), len(steps), hooks)
    parameters = trainer.run.world.size > 1 and not trainer.graphs
    module = trainer.objective.module if parameters else trainer.objective
    return reports, {name: p.detach().cpu().clone() for name, p in module.named_parameters()}


def assert_same(ordinary, graphed, tolerance=1e-5):
    for (losses, norm, rate), (graphed_losses, graphed_norm, graphed_rate) in zip(ordinary[0], graphed[0], strict=True):
        assert graphed_losses == pytest.approx(losses, rel=tolerance)
        assert (graphed_norm, graphed_rate) == (pytest.approx(norm, rel=10 * tolerance), rate)
    for name, expected in ordinary[1].items():
        if "key.bias" not in name:  # its gradient is 0 in theory, and Adam blows rounding up to full steps
            torch.testing.assert_close(graphed[1][name], expected, rtol=10 * tolerance, atol=10 * tolerance, msg=name)


def pretraining_steps(make_batch):
    """Six steps of one to three micro-batches, of two static shapes (41 and 270 tokens)."""
    sizes = [[[9, 30, 2]], [[9, 32], [8, 5]], [[60] * 4 + [30], [20]], [[60] * 4 + [21], [9], [3, 3]], [[40]], [[50]]]
    return [
        [make_batch(lengths, seed=10 * step + index) for index, lengths in enumerate(micro_batches)]
        for step, micro_batches in enumerate(sizes)
    ]


@pytest.fixture
def on_device(monkeypatch):
    """Let optimizers work as on a GPU: no value is read on the host, so that the update can be recorded too."""

    def norms(tensors):
        return torch.stack(torch._foreach_norm(list(tensors), 2))

    for module in ("bert.optim.gradients", "bert.optim.bertadam"):
        monkeypatch.setattr(f"{module}.tensor_norms", norms)
    monkeypatch.setattr(graphs, "updates_on_device", lambda optimizer, device: True)
    assert gradients.tensor_norms is norms


@pytest.mark.parametrize("optimizer", ["adamw", "bertadam"])
def test_pretraining_equals_the_run_without_graphs(make_batch, on_device, optimizer):
    """Micro-steps and updates are replayed, with other batches, loss scales and learning rates than were recorded."""
    steps, runs, tape = pretraining_steps(make_batch), [], Tape()
    for capture in (None, tape):
        torch.manual_seed(0)
        trainer = make_trainer(PreTrainingObjective(BertForPreTraining(TINY)), optimizer, capture)
        runs.append(train(trainer, steps))
    assert_same(*runs)
    # Two shapes and the update run once; eight of the ten micro-batches and five updates are replayed.
    assert (tape.ran, tape.recorded, tape.replayed) == (3, 3, 13)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 6)  # a number, for reports and checkpoints


def test_an_update_that_reads_values_is_left_out(make_batch):
    """LAMB on a CPU: micro-steps are replayed, the update is not."""
    steps, runs, tape = pretraining_steps(make_batch), [], Tape()
    for capture in (None, tape):
        torch.manual_seed(0)
        runs.append(train(make_trainer(PreTrainingObjective(BertForPreTraining(TINY)), "lamb", capture), steps))
    assert_same(*runs)
    assert (tape.ran, tape.recorded, tape.replayed) == (2, 2, 8)


def test_dropout_is_drawn_anew_at_every_replay(make_batch):
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.5)
    torch.manual_seed(0)
    trainer = make_trainer(PreTrainingObjective(BertForPreTraining(config)), capture=Tape())
    batch, losses = make_batch([30, 20]), []
    for iteration in (0, 1, 2, 1):
        trainer.state.iteration = iteration
        losses.append(float(trainer.train_step([batch], lambda: False)["mlm_loss"]))
        trainer._discard_gradients()
    assert losses[3] == losses[1] and len(set(losses)) == 3  # the seed decides, whether recorded or replayed


def task_batch(lengths, seed, **labels):
    draw, tokens = torch.Generator().manual_seed(seed), sum(lengths)
    ids = torch.randint(101, (tokens,), generator=draw)
    return TaskBatch(ids, ids % 2, torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths), labels)


def task_steps(make):
    return [[task_batch([9, 5 + n, 20], n, **make(n)), task_batch([12], n + 9, **make(n, 1))] for n in range(4)]


@pytest.mark.parametrize("name", ["classes", "regression", "questions"])
def test_fine_tuning_equals_the_run_without_graphs(name):
    if name == "questions":
        steps = task_steps(lambda n, count=3: {"start": torch.arange(n, n + count), "end": torch.full((count,), n + 1)})
    elif name == "classes":
        steps = task_steps(lambda n, count=3: {"label": (torch.arange(count) + n) % 3})
    else:
        steps = task_steps(lambda n, count=3: {"label": torch.arange(count) + n / 7})
    runs = []
    for capture in (None, Tape()):
        torch.manual_seed(0)
        if name == "questions":
            objective = QuestionAnsweringObjective(BertForQuestionAnswering(TINY))
        else:
            objective = ClassificationObjective(BertForSequenceClassification(TINY, 3 if name == "classes" else 1))
        trainer = make_trainer(objective, capture=capture)
        pooler = objective.model.bert.pooler.dense.weight.detach().clone()
        runs.append(train(trainer, steps))
    assert_same(*runs)
    if name == "questions":  # no output depends on it, so it has no gradient, and weight decay leaves it alone
        assert torch.equal(objective.model.bert.pooler.dense.weight, pooler)


def test_an_interrupted_step_leaves_no_gradient(make_batch):
    torch.manual_seed(0)
    trainer = make_trainer(PreTrainingObjective(BertForPreTraining(TINY)), capture=Tape())
    assert trainer.train_step([make_batch([5]), make_batch([6])], lambda: True) is None
    assert all(not p.grad.any() for p in trainer.objective.parameters() if p.grad is not None)


def test_predictions_from_graphs():
    torch.manual_seed(0)
    batches = [task_batch(lengths, seed=n) for n, lengths in enumerate([[9, 30], [4, 4, 4], [40], [60, 9]])]
    heads = (BertForSequenceClassification(TINY, 3), BertForQuestionAnswering(TINY))
    for objective in (ClassificationObjective(heads[0]), QuestionAnsweringObjective(heads[1])):
        objective.eval()
        predictor = GraphedPredictor(objective, Tape(), CPU)
        with torch.no_grad():
            for batch in batches:
                torch.testing.assert_close(predictor.predict(batch), objective.predict(batch))


def test_shapes_beyond_the_limit_run_without_a_graph(monkeypatch, make_batch):
    monkeypatch.setattr(graphs, "LIMIT", 1)
    tape = Tape()
    run = ShapeGraphs(lambda batch: batch.input_ids.sum(), tape, CPU, longest=64)
    for lengths in ([5], [6], [60] * 5, [60] * 5, [60] * 5, [7]):
        batch = make_batch(lengths)
        assert int(run(batch)) == int(batch.input_ids.sum())
    assert len(run.graphs) == 1 and (tape.ran, tape.replayed) == (4, 2)


@pytest.mark.parametrize(
    "config,precision,device,said",
    [
        (ParallelConfig(cuda_graphs=True), PrecisionConfig(), "cpu", "graphs need a CUDA device"),
        (ParallelConfig(cuda_graphs=True, checkpoint_activations=True), PrecisionConfig(), "cuda", "random state"),
        (ParallelConfig(cuda_graphs=True), PrecisionConfig(fp16=True), "cuda", "adaptive loss scale"),
        (ParallelConfig(), PrecisionConfig(), "cuda", ""),  # auto
        (ParallelConfig(cuda_graphs=False), PrecisionConfig(), "cuda", ""),
    ],
)
def test_obstacles_are_named_where_graphs_were_asked_for(config, precision, device, said):
    notices: list[str] = []
    objective = PreTrainingObjective(BertForPreTraining(TINY))
    assert build_capture(config, objective, Precision(precision, torch.device(device)), notices.append) is None
    assert (said in notices[0] and notices[0].startswith("--cuda_graphs on: ")) if said else notices == []
