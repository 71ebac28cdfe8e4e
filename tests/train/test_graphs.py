"""Recorded steps: the same training as without, on a CPU by a stand-in for CUDA graphs, and on a GPU."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tape import Tape

from bert.batch import TaskBatch
from bert.config import parse_args
from bert.distributed import DistributedConfig, World, join_world
from bert.finetune.training import RunConfig, TaskLogConfig, TrainingConfig
from bert.model.bert import BertForPreTraining, BertForQuestionAnswering, BertForSequenceClassification
from bert.model.config import BertConfig
from bert.model.objective import ClassificationObjective, PreTrainingObjective, QuestionAnsweringObjective
from bert.optim import gradients
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.optim.host import HostOptimizer
from bert.optim.lamb import Lamb
from bert.train import graphs
from bert.train.graphs import CudaCapture, GraphedPredictor, ShapeGraphs, build_capture
from bert.train.hooks import Hooks
from bert.train.parallel import ParallelConfig, apply_parallelism
from bert.train.precision import Precision, PrecisionConfig
from bert.train.run import build_run
from bert.train.static_batch import static_batch, static_shape
from bert.train.trainer import Trainer

CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)
# Tests on a CPU take the attention "matmul": that of CPUs reads lengths on the host, which a graph cannot.
TINY = BertConfig(
    101, 32, 2, 4, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=64
)


class Stop:
    requested = False


class Steps:
    """A loader of given steps."""

    def __init__(self, steps):
        self.steps, self.drawn, self.epoch = steps, 0, 0.0

    def __next__(self):
        self.drawn += 1
        return self.steps[(self.drawn - 1) % len(self.steps)]  # a loader is endless

    def state_dict(self):
        return {"drawn": self.drawn}


def make_trainer(objective, optimizer="adamw", capture=None, world=ALONE, precision=None) -> Trainer:
    settings = TrainingConfig(
        RunConfig(output_dir="", seed=1),
        precision=precision or PrecisionConfig(),
        log=TaskLogConfig(disable_progress_bar=True),
    )
    run = build_run(settings, world, Stop())

    def build(model):
        return build_optimizer(OptimizerConfig(optimizer="adamw" if optimizer == "host" else optimizer), model)

    built = HostOptimizer(objective.model, build) if optimizer == "host" else build(objective.model)
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
        trainer = make_trainer(PreTrainingObjective(BertForPreTraining(TINY, "matmul")), optimizer, capture)
        runs.append(train(trainer, steps))
    assert_same(*runs)
    # Two shapes and the update run once; eight of the ten micro-batches and five updates are replayed.
    assert (tape.ran, tape.recorded, tape.replayed) == (3, 3, 13)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 6)  # a number, for reports and checkpoints


@pytest.mark.parametrize("optimizer", ["lamb", "host"])
def test_an_update_that_reads_values_is_left_out(make_batch, optimizer):
    """LAMB on a CPU, any optimizer in host memory: micro-steps are replayed, the update is not."""
    steps, runs, tape = pretraining_steps(make_batch), [], Tape()
    for capture in (None, tape):
        torch.manual_seed(0)
        runs.append(
            train(make_trainer(PreTrainingObjective(BertForPreTraining(TINY, "matmul")), optimizer, capture), steps)
        )
    assert_same(*runs)
    assert (tape.ran, tape.recorded, tape.replayed) == (2, 2, 8)


def test_dropout_is_drawn_anew_at_every_replay(make_batch):
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.5)
    torch.manual_seed(0)
    trainer = make_trainer(PreTrainingObjective(BertForPreTraining(config, "matmul")), capture=Tape())
    batch, losses = make_batch([30, 20]), []
    for iteration in (0, 1, 0, 1, 2):
        trainer.state.iteration = iteration
        losses.append(float(trainer.train_step([batch], lambda: False)["mlm_loss"]))
        trainer._discard_gradients()
    # The seed decides, whether the step runs, is recorded or is replayed.
    assert losses[2:4] == losses[:2] and len(set(losses)) == 3


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
            objective = QuestionAnsweringObjective(BertForQuestionAnswering(TINY, "matmul"))
        else:
            objective = ClassificationObjective(
                BertForSequenceClassification(TINY, 3 if name == "classes" else 1, "matmul")
            )
        trainer = make_trainer(objective, capture=capture)
        pooler = objective.model.bert.pooler.dense.weight.detach().clone()
        runs.append(train(trainer, steps))
    assert_same(*runs)
    if name == "questions":  # no output depends on it, so it has no gradient, and weight decay leaves it alone
        assert torch.equal(objective.model.bert.pooler.dense.weight, pooler)


def test_an_interrupted_step_leaves_no_gradient(make_batch):
    torch.manual_seed(0)
    trainer = make_trainer(PreTrainingObjective(BertForPreTraining(TINY, "matmul")), capture=Tape())
    assert trainer.train_step([make_batch([5]), make_batch([6])], lambda: True) is None
    assert all(not p.grad.any() for p in trainer.objective.parameters() if p.grad is not None)


def test_predictions_from_graphs():
    torch.manual_seed(0)
    batches = [task_batch(lengths, seed=n) for n, lengths in enumerate([[9, 30], [4, 4, 4], [40], [60, 9]])]
    heads = (BertForSequenceClassification(TINY, 3, "matmul"), BertForQuestionAnswering(TINY, "matmul"))
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
    "words,value",
    [
        ([], None),
        (["--cuda_graphs"], True),  # NVIDIA's spelling
        (["--cuda_graphs", "on"], True),
        (["--cuda_graphs=off"], False),
        (["--no_cuda_graphs"], False),
        (["--cuda_graphs", "auto"], None),
    ],
)
def test_the_flag(words, value):
    assert parse_args(ParallelConfig, words).cuda_graphs is value


def test_another_value_of_the_flag_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_args(ParallelConfig, ["--cuda_graphs", "maybe"])
    assert "argument --cuda_graphs: 'maybe' is not true, false, on, off or auto" in capsys.readouterr().err


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
    objective = PreTrainingObjective(BertForPreTraining(TINY, "matmul"))
    assert build_capture(config, objective, Precision(precision, torch.device(device)), notices.append) is None
    assert (said in notices[0] and notices[0].startswith("--cuda_graphs on: ")) if said else notices == []


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__], env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def leave_out_kernels(monkeypatch, *modules) -> list[str]:
    """Let the kernels of ``modules`` do nothing; return the list to which launches add their names."""
    launched: list[str] = []

    class Kernel:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            return lambda *args, **options: launched.append(self.name)

    for module in modules:
        for name in [
            name for name, value in vars(module).items() if name.endswith("_kernel") and hasattr(value, "run")
        ]:
            monkeypatch.setattr(module, name, Kernel(name))
    return launched


@pytest.mark.triton
def test_nothing_of_a_micro_step_waits_for_the_gpu(monkeypatch, make_batch):
    """The path of CUDA, kernels included, on tensors without values: what needs one raises."""
    from bert.model import layers
    from bert.model.kernels import attention, attention_backward, fused

    monkeypatch.setattr(layers, "_kernels", lambda hidden: fused)
    monkeypatch.setattr(layers, "_compute_dtype", lambda x: torch.bfloat16)
    config = dataclasses.replace(TINY, hidden_size=64, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    meta, names = torch.device("meta"), ("mlm_loss", "nsp_loss")
    with meta:
        objective = PreTrainingObjective(BertForPreTraining(config, "fused")).bfloat16()
        scales, parts = ({name: torch.zeros(()) for name in names} for _ in range(2))
    launched = leave_out_kernels(monkeypatch, fused, attention, attention_backward)
    batch = make_batch([30, 20])
    precision = Precision(PrecisionConfig(), CPU)
    trainer: Any = SimpleNamespace(objective=objective, precision=precision, graphs=True, world=ALONE)
    total = Trainer._forward(trainer, static_batch(batch, static_shape(batch, 64), meta), scales, parts)
    Trainer._backward(trainer, total)
    assert {name: launched.count(name) for name in ("forward_kernel", "norm_kernel", "gelu_backward_kernel")} == {
        "forward_kernel": 2,
        "norm_kernel": 4,
        "gelu_backward_kernel": 2,
    }
    assert all(p.grad is not None and p.grad.device == meta for p in objective.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        parts["mlm_loss"].item()


@pytest.mark.triton
def test_nothing_of_lambs_update_waits_for_the_gpu(monkeypatch, make_batch, on_device):
    """Recorded with its kernels left out: no value is read, and the tables are not uploaded again."""
    from bert.optim.lamb import triton

    launches: list[tuple] = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **options: launches.append(args)

    uploads: list[torch.Tensor] = []
    monkeypatch.setattr(triton, "upload", lambda tensor, device: uploads.append(tensor) or tensor)
    for name in ("moments_kernel", "apply_kernel"):
        monkeypatch.setattr(triton, name, Kernel())
    torch.manual_seed(0)
    objective = PreTrainingObjective(BertForPreTraining(TINY, "matmul"))
    trainer = make_trainer(objective, "lamb", Tape())
    assert isinstance(trainer.optimizer, Lamb)
    trainer.optimizer.implementation = triton.TritonUpdate()
    batch = make_batch([30, 20])
    counts = []
    for rate in (0.5, 0.25, 0.125):
        trainer.learning_rate = lambda step, rate=rate: rate
        trainer.train_step([batch], lambda: False)
        trainer.queue_update()
        counts.append((len(launches), len(uploads)))
    assert counts[0][0] > 0 and counts[1] == (2 * counts[0][0], counts[0][1]) and counts[2] == counts[1]
    table = launches[-1][2]  # of group constants, which the recorded kernels read; its first column is the rate
    assert table[:, 0].tolist() == [0.125, 0.125]


class Eager:
    """A capture that does not record: static batches without graphs."""

    def run(self, work):
        return work()

    def record(self, work):
        return work


GPU = torch.device("cuda", 0)
KERNELS = dataclasses.replace(TINY, num_attention_heads=2)  # heads of 16, which our attention kernel takes
DROPPING = dataclasses.replace(KERNELS, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.1)


def make_gpu_trainer(config, capture, optimizer="lamb", compiled=False) -> Trainer:
    torch.manual_seed(0)
    objective = PreTrainingObjective(BertForPreTraining(config)).to(GPU)
    for unit in objective.compile_units() if compiled else ():
        unit.compile(dynamic=True)
    return make_trainer(objective, optimizer, capture, World(0, 0, 1, GPU), PrecisionConfig(bf16=True))


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer,compiled", [("lamb", False), ("adamw", False), ("bertadam", False), ("lamb", True)])
def test_replay_on_a_gpu_equals_the_run_without_graphs(make_batch, optimizer, compiled):
    """Closely on the same static batches; without padding products have other shapes, hence round differently."""
    steps = [[batch.pinned() for batch in step] for step in pretraining_steps(make_batch)]
    trainers = [make_gpu_trainer(KERNELS, each, optimizer, compiled) for each in (CudaCapture(GPU), Eager(), None)]
    replayed, static, ordinary = (train(trainer, steps)[0] for trainer in trainers)
    assert len(trainers[0].graphs.micro_steps.graphs) == 2
    for (losses, norm, rate), (static_losses, static_norm, static_rate) in zip(replayed, static, strict=True):
        assert losses == pytest.approx(static_losses, rel=1e-3)
        assert norm == pytest.approx(static_norm, rel=1e-2) and rate == static_rate
    for (losses, *_), (ordinary_losses, *_) in zip(replayed, ordinary, strict=True):
        assert losses == pytest.approx(ordinary_losses, rel=5e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "bertadam"])
def test_a_replayed_step_is_a_few_launches_and_never_waits(make_batch, optimizer):
    # 3,600 tokens: from 3,073 on, torch computes the gradient of an embedding in another way.
    trainer, batch = make_gpu_trainer(DROPPING, CudaCapture(GPU), optimizer), make_batch([60] * 60).pinned()

    def step() -> None:
        trainer.train_step([batch], lambda: False)
        trainer.queue_update()

    for _ in range(3):
        step()
        trainer.settle()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.settle()[0]
    with torch.profiler.profile() as profile:
        step()
    assert trainer.settle()[0]
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["cudaGraphLaunch"] == 2
    assert sum(count for name, count in counts.items() if name.startswith("cu") and "Launch" in name) < 60


@pytest.mark.gpu
def test_dropout_on_a_gpu_follows_the_seed(make_batch):
    """Run, recorded or replayed, an iteration draws the same masks."""
    trainer, batch, losses = make_gpu_trainer(DROPPING, CudaCapture(GPU)), make_batch([30, 20]).pinned(), []
    for iteration in (0, 1, 0, 1, 2):
        trainer.state.iteration = iteration
        losses.append(float(trainer.train_step([batch], lambda: False)["mlm_loss"]))
        trainer._discard_gradients()
    assert losses[2:4] == pytest.approx(losses[:2], rel=1e-3)
    assert len({round(loss, 2) for loss in losses}) == 3


@pytest.mark.gpu
def test_predictions_from_graphs_on_a_gpu():
    batches = [task_batch([9, 30 - n], seed=n).to(GPU) for n in range(4)]
    torch.manual_seed(0)
    objective = QuestionAnsweringObjective(BertForQuestionAnswering(KERNELS)).to(GPU).eval()
    predictor = GraphedPredictor(objective, CudaCapture(GPU), GPU)
    with torch.no_grad():
        for batch in batches:
            with torch.autocast("cuda", torch.bfloat16):
                graphed, expected = predictor.predict(batch).float(), objective.predict(batch).float()
            torch.testing.assert_close(graphed, expected, rtol=3e-2, atol=3e-2)


def on_two_ranks() -> None:
    """Train on one process, then on two with graphs; fails where one of them ends with other weights or losses."""
    steps = [[[task([20 + n, 9], 4 * n + 2 * r + m) for m in range(1 + n % 2)] for r in range(2)] for n in range(5)]
    torch.manual_seed(0)
    objective = ClassificationObjective(BertForSequenceClassification(TINY, 3, "matmul"))
    ordinary = train(make_trainer(objective), [[batch for rank in step for batch in rank] for step in steps])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    rank = 1 - bool(os.fork())
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    with join_world(DistributedConfig(device="cpu")) as world:
        torch.manual_seed(rank)  # the weights of rank 0 count
        objective = ClassificationObjective(BertForSequenceClassification(TINY, 3, "matmul"))
        tape = Tape()
        graphed = train(make_trainer(objective, capture=tape, world=world), [step[rank] for step in steps])
        assert_same(ordinary, graphed)
        assert tape.replayed == 6
    if rank == 0:
        assert os.wait()[1] == 0


def task(lengths, seed):
    return task_batch(lengths, seed, label=torch.tensor([seed % 3, 1]))


if __name__ == "__main__":
    on_two_ranks()
