"""What two ranks exchange for a step, how they stop, and how an error of one ends both."""

import threading

import torch
import torch.distributed as dist
from ranks import run_ranks
from torch.nn.parallel import DistributedDataParallel

from bert.batch import Batch
from bert.distributed import TreeSums, World
from bert.errors import UsageError
from bert.finetune.training import RunConfig, TaskLogConfig, TrainingConfig
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.train.control import Control
from bert.train.hooks import Hooks, StepReport
from bert.train.run import build_run
from bert.train.trainer import Trainer

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
TINY = BertConfig(20, **SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
COLLECTIVES = ("all_reduce", "all_gather", "all_gather_single", "broadcast", "barrier", "isend", "send")


class Stop:
    requested = False


class Loader:
    """Steps of ``accumulation`` micro-batches; more masked tokens on higher ranks. Draws from ``bad`` on fail."""

    def __init__(self, rank: int = 0, accumulation: int = 1, bad: int = 99) -> None:
        self.rank, self.accumulation, self.bad, self.drawn = rank, accumulation, bad, 0

    def __next__(self) -> list[Batch]:
        if self.drawn >= self.bad:
            raise UsageError(f"shard {self.drawn} is damaged")
        self.drawn += 1
        return [self.batch(1 + self.rank) for _ in range(self.accumulation)]

    def batch(self, masked: int) -> Batch:
        ids = torch.arange(5) + self.drawn
        places, label = torch.arange(masked), torch.zeros(1, dtype=torch.int64)
        return Batch(ids, torch.zeros_like(ids), torch.tensor([0, 5]).int(), 5, places, ids[:masked], label)

    def state_dict(self) -> dict[str, int]:
        return {"drawn": self.drawn}

    @property
    def epoch(self) -> float:
        return self.drawn / 2


def build(world: World) -> Trainer:
    torch.manual_seed(0)
    settings = TrainingConfig(RunConfig(output_dir="", seed=1), log=TaskLogConfig(disable_progress_bar=True))
    run = build_run(settings, world, Stop())
    model = BertForPreTraining(TINY)
    optimizer = build_optimizer(OptimizerConfig(), model)
    objective = PreTrainingObjective(model)
    return Trainer(run, DistributedDataParallel(objective), optimizer, lambda step: 1e-3)


def count_collectives(world: World) -> tuple[list, list]:
    """Return (function, thread) of all calls until four steps were done, and until the end."""
    trainer, calls = build(world), []
    for name in COLLECTIVES:
        real = getattr(dist, name, None)

        def counted(*tensors, name=name, real=real, **more):
            calls.append((name, threading.current_thread().name))
            return real(*tensors, **more)

        setattr(dist, name, counted)
    trainer._report = lambda *arguments: StepReport(4, {}, 0.0, 0.0, 0.0, 0.0, 0.0, [], 0, 0, None)
    steps: list[list] = []
    hooks = Hooks(lambda report: None, report_every=9, step=lambda: steps.append(list(calls)))
    trainer.fit(Loader(world.rank), 4, hooks)
    return steps[3], calls


def test_a_step_costs_one_sum_that_no_rank_waits_for(tmp_path):
    """On two ranks a sum is one message from each. DDP's own reductions are not called from Python."""
    within, to_the_end = run_ranks(2, count_collectives, tmp_path)[1]
    assert {thread for _, thread in within} == {"sums"}
    assert to_the_end.count(("isend", "sums")) == 5  # of four steps, and of the one ahead


def stop_and_fail(world: World) -> dict:
    """A signal on rank 1 within step 3, without and with accumulation; then a damaged file on rank 1."""
    result = {}
    for accumulation in (1, 4):
        trainer = build(world)
        stop, forward = trainer.run.stop, trainer.objective.module.forward

        def request_stop(batch, trainer=trainer, stop=stop, forward=forward):
            stop.requested |= world.rank == 1 and trainer.state.step == 2
            return forward(batch)

        trainer.objective.module.forward = request_stop
        saved = []
        hooks = Hooks(lambda report: None, save=lambda trainer=trainer, saved=saved: saved.append(trainer.state.data))
        outcome = trainer.fit(Loader(world.rank, accumulation), 9, hooks)
        result[accumulation] = outcome.interrupted, outcome.steps, saved, trainer.epoch
    trainer = build(world)
    try:
        trainer.fit(Loader(world.rank, bad=2 if world.rank else 99), 9, Hooks(lambda report: None))
    except UsageError as error:
        result["error"] = str(error), trainer.state.step
    return result


def test_a_stop_and_an_error_of_one_rank_reach_both_at_the_same_step(tmp_path):
    ranks = run_ranks(2, stop_and_fail, tmp_path)
    assert ranks[0] == ranks[1]
    assert ranks[0][1] == (True, 4, [{"drawn": 4}], 2.0)  # the step of the signal, and the one under way
    assert ranks[0][4] == (True, 2, [{"drawn": 2}], 1.0)  # within the accumulation: step 3 is repeated later
    assert ranks[0]["error"] == ("shard 2 is damaged", 2)


def gradients(world: World) -> dict[str, torch.Tensor]:
    trainer = build(world)
    control = Control(world, Loader(world.rank), trainer.run.stop)
    drawn = control.next()
    trainer.train_step(drawn.micro_batches, control.interrupted, drawn.terms)
    control.close()
    return {name: p.grad for name, p in trainer.objective.module.model.named_parameters()}


def test_terms_are_counted_over_the_ranks(tmp_path):
    """One masked token on rank 0 and two on rank 1: the gradient of the mean over three, not of a mean of means."""
    found = run_ranks(2, gradients, tmp_path)[0]
    torch.manual_seed(0)
    model = BertForPreTraining(TINY)
    objective = PreTrainingObjective(model)
    losses = [objective(next(Loader(rank))[0]) for rank in range(2)]
    (sum(each["mlm_loss"] for each in losses) / 3 + sum(each["nsp_loss"] for each in losses) / 2).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=lambda m, name=name: f"{name}: {m}")


def add_up(world: World) -> list[list[int]]:
    sums = TreeSums()
    started = [sums.start([world.rank, 1, 10**k]) for k in range(3)]
    sums.close()
    return [each.result() for each in started]


def test_sums_of_any_number_of_ranks(tmp_path):
    for size in (3, 5):
        found = run_ranks(size, add_up, tmp_path)
        assert found == [[[size * (size - 1) // 2, size, size * 10**k] for k in range(3)]] * size


def test_alone_a_sum_is_what_was_given():
    assert TreeSums().start([3, 4]).result() == [3, 4]
