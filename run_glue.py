"""Fine-tune BERT on a GLUE task, or on your own sentences or pairs with labels, and score it.

    python run_glue.py --task_name mrpc --data_dir download/glue/MRPC --init_checkpoint results/ckpt_8601.pt \\
        --output_dir results/MRPC --do_train --do_eval --do_predict
    python run_glue.py --task_name custom --data_dir my_data --text_column review --label_column stars ...

Writes the model (pytorch_model.bin, config.json, vocab.txt), results.txt, eval_results.txt, predictions.json and, where
the task has a test set, test_results.tsv. On several GPUs: torchrun --nproc_per_node=8 run_glue.py ...
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from bert.checkpoint.open_model import load_start
from bert.config import flag, run_command, to_dict
from bert.distributed import collective_errors
from bert.finetune.command import run_fine_tuning
from bert.finetune.output import save_model
from bert.finetune.training import TaskRun, TrainingConfig, find_own_checkpoint, fine_tune, load_objective
from bert.glue.evaluation import evaluate, log_summary, read_task, training_results
from bert.glue.head import fit_head
from bert.glue.output import summarise_seeds, write_results
from bert.glue.tasks import GlueConfig, build_task
from bert.model.bert import BertForSequenceClassification
from bert.model.config import BertConfig
from bert.model.objective import ClassificationObjective
from bert.train.run import build_run, open_log

HEAD = ("classifier.*",)


@dataclass
class SizesConfig:
    max_seq_length: int = flag(128, "Longest input in pieces; longer ones are cut.", minimum=5)
    eval_batch_size: int = flag(8, "Inputs per device in a batch of the evaluation.", aliases=["predict_batch_size"])
    n_seeds: int = flag(1, "Fine-tune with this many seeds, from --seed on, and summarise the results.", minimum=1)


@dataclass
class Config:
    training: TrainingConfig
    task: GlueConfig
    sizes: SizesConfig = field(default_factory=SizesConfig)

    def build_objective(self, size: BertConfig) -> ClassificationObjective:
        classes, attention = build_task(self.task).num_labels, self.training.model.attention
        return ClassificationObjective(BertForSequenceClassification(size, classes, attention))


def main(config: Config) -> None:
    run_fine_tuning(config, classify_with_seeds, config.build_objective)


def classify_with_seeds(config: Config, run: TaskRun) -> None:
    """Fine-tune and score with one seed or, for a summary, with several."""
    results = []
    for seed in range(run.seed, run.seed + config.sizes.n_seeds):
        one = with_seed(config, seed)
        results.append({"seed": seed, **classify(one, build_run(one.training, run.world, run.stop))})
        if run.stop.requested:
            return
    if len(results) > 1 and run.world.is_main:
        table, values = summarise_seeds(results)
        print(table, end="")
        write_results(run.output_dir, values)


def with_seed(config: Config, seed: int) -> Config:
    """Return the configuration of one of several seeds, which has a folder of its own."""
    if config.sizes.n_seeds == 1:
        return config
    run = replace(config.training.run, seed=seed, output_dir=str(Path(config.training.run.output_dir) / f"seed_{seed}"))
    return replace(config, training=replace(config.training, run=run))


def classify(config: Config, run: TaskRun) -> dict[str, float]:
    """Train, evaluate and predict, whichever of it the flags ask for; return the metrics of the dev set."""
    training, sizes = config.training, config.sizes

    # What is learned, and from where.
    found = find_own_checkpoint(run)
    with collective_errors(run.world):
        task = build_task(config.task)
        start = load_start(training.model, training.checkpoint.init_checkpoint, sizes.max_seq_length, found.state)
        data = read_task(config.task.data_dir, task, start.tokenizer, sizes.max_seq_length, run)
        fit_head(start, task, run, found)
        objective = load_objective(run, start, config.build_objective, HEAD, found)

    # Training, then the scores.
    with open_log(run) as run:
        count, results = len(data.examples.get("train", ())), {}
        run.logger.parameter(Config=to_dict(config), SEED=run.seed, training_samples=count)
        if training.run.do_train:
            began, kept = time.perf_counter(), {"task": task.name, "labels": list(task.labels)}
            outcome = fine_tune(run, objective, data.inputs["train"], {**start.constants(), **kept}, found.state)
            if outcome.interrupted:
                return {}
            results |= training_results(outcome, count, time.perf_counter() - began)
            if run.world.is_main:
                save_model(run.output_dir, objective.model, start, **kept)
        scores = evaluate(run, objective, data, sizes.eval_batch_size, results)
        log_summary(run.logger, results)
    return scores


if __name__ == "__main__":
    run_command(main, Config)
