"""What every fine-tuning command does around its own story: flags, ranks, signals, and ``--find_micro_batch``.

::

    def classify(config: Config, run: TaskRun) -> None: ...     # what is learned, from where, the training, the end

    def main(config: Config) -> None:
        run_fine_tuning(config, classify, lambda size: ClassificationObjective(...))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from bert.config import to_dict
from bert.distributed import StopSignal, join_world
from bert.errors import UsageError
from bert.finetune.find_micro_batch import find_micro_batches
from bert.finetune.training import TaskRun, TrainingConfig, place
from bert.model.config import BertConfig
from bert.train.foreign_flags import refuse_foreign_flags
from bert.train.run import build_run, check_output_dir


def run_fine_tuning(
    config: Any, story: Callable[[Any, TaskRun], None], build: Callable[[BertConfig], nn.Module]
) -> None:
    """Run ``story``, or with --find_micro_batch print what fits; ``build`` makes the objective.

    Raises UsageError where the flags ask for nothing, and KeyboardInterrupt after a Ctrl-C, once all is saved.
    """
    training: TrainingConfig = config.training
    refuse_foreign_flags(training.foreign, to_dict(config))
    if training.run.find_micro_batch:
        find_micro_batches(training, build)
        return
    if not (training.run.do_train or training.run.do_eval or training.run.do_predict):
        raise UsageError("nothing to do: add --do_train, --do_eval or --do_predict")
    with join_world(place(training), training.run.output_dir) as world, StopSignal() as stop:
        run = build_run(training, world, stop)
        check_output_dir(run)
        story(config, run)
        if stop.by_keyboard:
            raise KeyboardInterrupt  # saved, but a script that called this command should not continue
