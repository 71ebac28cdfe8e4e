"""Run under torchrun: rank 1's gradients overflow once, then on every step. Each rank writes what it saw."""

import json
import sys
from pathlib import Path

import torch

import bert  # noqa: F401
from bert.batch import Batch
from bert.distributed import DistributedConfig, StopSignal, all_gather_ints, join_world
from bert.errors import UsageError
from bert.finetune.training import RunConfig, TrainingConfig
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.train.parallel import apply_parallelism
from bert.train.precision import PrecisionConfig
from bert.train.run import build_run
from bert.train.trainer import Trainer


def main(output: Path) -> None:
    with join_world(DistributedConfig(device="cpu")) as world:
        torch.manual_seed(0)
        model = BertForPreTraining(BertConfig(24, 16, 1, 2, 32))
        batch = Batch(
            torch.tensor([2, 7, 3]), torch.zeros(3, dtype=torch.long), torch.tensor([0, 3], dtype=torch.int32), 3,
            torch.tensor([1]), torch.tensor([9]), torch.tensor([0]),
        )  # fmt: skip
        settings = TrainingConfig(
            RunConfig(output_dir=str(output), seed=0), precision=PrecisionConfig(fp16=True, init_loss_scale=1024.0)
        )
        run = build_run(settings, world, StopSignal())
        objective = apply_parallelism(PreTrainingObjective(model), [], settings.parallel, world, compiled=False)
        trainer = Trainer(run, objective, build_optimizer(OptimizerConfig(), model), lambda step: 1e-3)
        overflow = {"now": False}
        model.bert.pooler.dense.weight.register_hook(lambda grad: grad * torch.inf if overflow["now"] else grad)

        def step(infinite: bool) -> None:
            overflow["now"] = infinite and world.rank == 1
            trainer.train_step([batch], lambda: False)
            trainer.apply()

        seen: dict = {"steps_after_each": [], "scales": []}
        for infinite in (False, True, False):
            step(infinite)
            seen["steps_after_each"].append(trainer.state.step)
            seen["scales"].append(run.precision.loss_scale.value)
        bits = all_gather_ints(model.bert.pooler.dense.weight.detach().view(torch.int32).flatten().tolist())
        seen["equal_weights"] = bits[0] == bits[1]
        try:
            for _ in range(60):
                step(True)
        except UsageError as error:
            seen["diagnosis"] = str(error)
        seen["final_scale"] = run.precision.loss_scale.value
        (output / f"rank{world.rank}.json").write_text(json.dumps(seen))


main(Path(sys.argv[1]))
