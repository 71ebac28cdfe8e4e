"""Fine-tune one BERT on several tasks at once, each with a head and, if asked for, an adapter of its own; score all.

    python run_multi_task.py --tasks all --sample anneal --multi --do_train --do_eval --data_dir download/glue \\
        --config_file pals_config.json --init_checkpoint results/ckpt_8601.pt --output_dir results/pals
    python run_multi_task.py --tasks cola,rte,custom:reviews --do_predict ...

Writes the last model (pytorch_model.bin, config.json, vocab.txt), the best one to best_model/, results.md, results.txt,
and a folder for each task with eval_results.txt, predictions.json and, where there is a test set, test_results.tsv and
the file for gluebenchmark.com. On several GPUs: torchrun --nproc_per_node=8 run_multi_task.py ...
"""

from dataclasses import dataclass, field, replace
from typing import Any

from bert.checkpoint.open_model import load_start
from bert.config import flag, run_command, to_dict
from bert.distributed import collective_errors
from bert.finetune.command import run_fine_tuning
from bert.finetune.training import Course, TaskRun, find_own_checkpoint, fine_tune, load_objective
from bert.glue.evaluation import log_summary, training_results
from bert.model.bert import BertForMultiTask
from bert.model.config import BertConfig
from bert.model.objective import MultiTaskObjective
from bert.multi_task.evaluation import BestModel, join_split, read_sets, write_all
from bert.multi_task.loader import MultiTaskLoader
from bert.multi_task.sampling import SamplingConfig, build_sampler
from bert.multi_task.start import HEADS, MultiTaskTrainingConfig, StartConfig, check_rates, with_h_aug
from bert.multi_task.tasks import MultiTaskConfig, check_tasks, describe, find_tasks, mismatched
from bert.train.hooks import Outcome
from bert.train.run import open_log


@dataclass
class SizesConfig:
    max_seq_length: int = flag(128, "Longest input in pieces; longer ones are cut.", minimum=5)
    eval_batch_size: int = flag(8, "Inputs per device in a batch of the evaluation.", aliases=["predict_batch_size"])


@dataclass
class Config:
    training: MultiTaskTrainingConfig
    task: MultiTaskConfig
    start: StartConfig = field(default_factory=StartConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    sizes: SizesConfig = field(default_factory=SizesConfig)

    def build_objective(self, size: BertConfig) -> MultiTaskObjective:
        tasks = [place.task for place in find_tasks(self.task)]
        model = BertForMultiTask(size, [task.num_labels for task in tasks], self.training.model.attention)
        return MultiTaskObjective(model, [task.range for task in tasks])


def main(config: Config) -> None:
    config = replace(config, training=with_h_aug(config.training, config.start.h_aug))
    run_fine_tuning(config, learn_tasks, config.build_objective)


def learn_tasks(config: Config, run: TaskRun) -> None:
    """Train, evaluate and predict, whichever of it the flags ask for."""
    training, length, batch_size = config.training, config.sizes.max_seq_length, config.sizes.eval_batch_size

    # What is learned, and from where.
    found = find_own_checkpoint(run)
    with collective_errors(run.world):
        places = find_tasks(config.task)
        start = load_start(training.model, training.checkpoint.init_checkpoint, length, found.state)
        check_tasks(places, start.state, start.what, config.start.multi)
        sets = read_sets([*places, *mismatched(places)], start.tokenizer, length, run)
        objective = load_objective(run, start, config.build_objective, HEADS if config.start.multi else (), found)
        check_rates(training, objective.model)

    # Training, then the scores of the best model.
    with open_log(run) as run:
        results: dict[str, Any] = {}
        run.logger.parameter(Config=to_dict(config), SEED=run.seed)
        kept = {**start.constants(), "tasks": describe(places), "best": (found.state or {}).get("best", {})}
        best = BestModel(run, objective, sets, start, kept, batch_size)
        if training.run.do_train:
            outcome = train(config, run, best, found.state)
            if outcome.interrupted:
                return
            results |= training_results(outcome, outcome.steps * run.geometry.global_batch, outcome.seconds)
            best.save(run.output_dir)
            if training.run.do_eval:
                best.restore()
        if training.run.do_eval or training.run.do_predict:
            write_all(best, results)
        log_summary(run.logger, results)


def train(config: Config, run: TaskRun, best: BestModel, resumed: dict[str, Any] | None) -> Outcome:
    """Train on all tasks; ``best`` scores them in between."""
    sets = [each.data.inputs["train"] for each in best.sets if "train" in each.data.inputs]
    sampler, steps = build_sampler(config.sampling, [len(each) for each in sets], config.training.run)

    def build_loader(sequences: Any, geometry: Any, seed: int, **more: Any) -> MultiTaskLoader:
        return MultiTaskLoader(sequences, geometry, replace(sampler, seed=seed), **more)

    every = (config.sampling.eval_steps or sampler.steps_per_epoch) if config.training.run.do_eval else 0
    course = Course(steps, build_loader, best, every)
    return fine_tune(run, best.objective, join_split(best.sets, "train"), best.kept, resumed, course)


if __name__ == "__main__":
    run_command(main, Config)
