"""Fine-tune BERT on a GLUE task, or on your own sentences or pairs with labels, and score it.

    python run_glue.py --task_name mrpc --data_dir download/glue/MRPC --init_checkpoint results/ckpt_8601.pt \\
        --output_dir results/MRPC --do_train --do_eval --do_predict
    python run_glue.py --task_name custom --data_dir my_data --text_column review --label_column stars ...

Writes the model (pytorch_model.bin, config.json, vocab.txt), results.txt, eval_results.txt, predictions.json and, where
the task has a test set, test_results.tsv. On several GPUs: torchrun --nproc_per_node=8 run_glue.py ...
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bert.checkpoint import find_checkpoint
from bert.checkpoint.open_model import load_start
from bert.config import flag, run_command, to_dict
from bert.distributed import StopSignal, World, collective_errors, join_world, seed_everything
from bert.errors import UsageError
from bert.finetune.find_micro_batch import find_micro_batches
from bert.finetune.output import save_model
from bert.finetune.predict import Outputs, predict
from bert.finetune.training import TrainingConfig, fine_tune, place
from bert.glue import output as glue_output
from bert.glue.scores import eval_results, inference_results, score, warn_of_collapse
from bert.glue.tasks import GlueConfig, Task, build_task, encode, read_examples
from bert.log import Logger, build_logger, resolve_tensorboard_dir
from bert.model.bert import BertForSequenceClassification
from bert.model.objective import ClassificationObjective
from bert.train.foreign_flags import refuse_elsewhere
from bert.train.precision import Precision

HEAD = ("classifier.*",)


@dataclass
class SizesConfig:
    max_seq_length: int = flag(128, "Longest input in pieces; longer ones are cut.", minimum=5)
    eval_batch_size: int = flag(8, "Inputs per device in a batch of the evaluation.", aliases=["predict_batch_size"])
    n_seeds: int = flag(1, "Fine-tune with so many seeds, from --seed on, and summarise them.", minimum=1)


@dataclass
class Config:
    training: TrainingConfig
    task: GlueConfig
    sizes: SizesConfig = field(default_factory=SizesConfig)


def main(config: Config) -> None:
    refuse_elsewhere(config.training.elsewhere, to_dict(config))
    run = config.training.run
    if run.find_micro_batch:
        classes, attention = build_task(config.task).num_labels, config.training.model.attention
        find_micro_batches(
            config.training,
            lambda size: ClassificationObjective(BertForSequenceClassification(size, classes, attention)),
            labels=("label",),
        )
        return
    if not (run.do_train or run.do_eval or run.do_predict):
        raise UsageError("nothing to do: add --do_train, --do_eval or --do_predict")
    with join_world(place(config.training)) as world, StopSignal() as stop:
        results = []
        for seed in range(run.seed, run.seed + config.sizes.n_seeds):
            results.append({"seed": seed, **classify(with_seed(config, seed), world, stop)})
            if stop.by_keyboard:
                raise KeyboardInterrupt  # saved, but a script that called this command should not go on
            if stop.requested:
                return
        if len(results) > 1 and world.is_main:
            summary = glue_output.summarise_seeds(results)
            print(summary.text, end="")
            glue_output.write_results(run.output_dir, summary.values)


def with_seed(config: Config, seed: int) -> Config:
    """Return the configuration of one of several seeds, which has a folder of its own."""
    if config.sizes.n_seeds == 1:
        return config
    run = replace(config.training.run, seed=seed, output_dir=str(Path(config.training.run.output_dir) / f"seed_{seed}"))
    return replace(config, training=replace(config.training, run=run))


def classify(config: Config, world: World, stop: StopSignal) -> dict[str, float]:
    """Train, evaluate and predict as the flags say; return the metrics of the dev set."""
    training, run, sizes = config.training, config.training.run, config.sizes
    notice: Callable[[str], None] = print if world.is_main else lambda line: None
    precision = Precision(training.precision, world.device, notice)
    found = find_checkpoint(training.checkpoint, run.output_dir, world, notice) if run.do_train else (None, None)

    # The task, its files and the model.
    with collective_errors(world):
        task = build_task(config.task)
        start = load_start(training.model, training.checkpoint.init_checkpoint, sizes.max_seq_length, found[1])
        sets = {name: read_examples(task, config.task.data_dir, name, notice) for name in splits(task, config)}
        inputs = {
            name: encode(examples, task, start.tokenizer, sizes.max_seq_length) for name, examples in sets.items()
        }
        seed_everything(run.seed)
        model = BertForSequenceClassification(start.model_config, task.num_labels, training.model.attention)
        report = start.load_into(model, HEAD if run.do_train and found[1] is None else ())
    if report is not None:
        notice(f"{start.what}: {report}")
    objective = ClassificationObjective(model.to(world.device, precision.parameter_dtype))

    tensorboard = resolve_tensorboard_dir(training.log.tensorboard_dir, run.output_dir)
    with build_logger(training.log.json_summary, tensorboard, world.is_main) as logger:
        logger.parameter(Config=to_dict(config), SEED=run.seed, training_samples=len(sets.get("train", ())))
        results: dict[str, Any] = {}
        if run.do_train:
            began = time.perf_counter()
            constant = {**start.constants(), "task": task.name, "labels": list(task.labels)}
            outcome = fine_tune(
                training, objective, inputs["train"], precision, world, stop, logger, constant, found[1], notice
            )
            if outcome.interrupted:
                return {}
            results |= training_results(outcome, len(inputs["train"]), time.perf_counter() - began)
            if world.is_main:
                save_model(run.output_dir, model, start, task=task.name, labels=list(task.labels))
        scores = evaluate(config, task, objective, sets, inputs, precision, world, results, notice)
        finish(logger, results)
    return scores


def splits(task: Task, config: Config) -> list[str]:
    """Return the sets that the flags need; a missing test set is no reason not to predict the dev set."""
    run = config.training.run
    needed = [name for name, wanted in (("train", run.do_train), ("dev", run.do_eval or run.do_predict)) if wanted]
    test = task.layouts.get("test")
    has_test = test is not None and (Path(config.task.data_dir) / test.file).is_file()
    return [name for name in needed if name in task.layouts] + ["test"] * (run.do_predict and has_test)


def evaluate(
    config: Config,
    task: Task,
    objective: ClassificationObjective,
    sets: dict[str, Any],
    inputs: dict[str, Any],
    precision: Precision,
    world: World,
    results: dict[str, Any],
    notice: Callable[[str], None],
) -> dict[str, float]:
    """Predict the dev and the test set, write the files and fill ``results``; return the metrics of the dev set."""
    run, scores = config.training.run, {}

    def outputs_of(name: str) -> Outputs:
        return predict(
            objective,
            inputs[name],
            config.sizes.eval_batch_size,
            precision,
            world,
            show=not config.training.log.disable_progress_bar,
        )

    if "dev" in inputs:
        outputs = outputs_of("dev")
        scores = score(task, outputs, inputs["dev"])
        results |= inference_results(outputs, len(inputs["dev"]))
        results |= {"eval:loss": scores["loss"], **{name: value for name, value in scores.items() if name != "loss"}}
        warn_of_collapse(task, outputs, sets["dev"], notice)
        notice(", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if world.is_main and run.do_predict:
            glue_output.write_predictions(run.output_dir, outputs.values, task, sets["dev"])
        if world.is_main and run.do_eval:
            lines = eval_results(task, outputs, inputs["dev"], scores)
            lines |= {name: results[key] for name, key in PUBLISHED.items() if key in results}
            glue_output.write_eval_results(run.output_dir, lines)
    if "test" in inputs:
        outputs = outputs_of("test")
        if world.is_main:
            glue_output.write_test_results(run.output_dir, outputs.values, task)
            glue_output.write_submission(run.output_dir, outputs.values, task)
    if world.is_main:
        glue_output.write_results(run.output_dir, results)
    return scores


PUBLISHED = {"global_step": "global_step", "loss": "train:loss"}  # line of eval_results.txt -> key of results.txt


def training_results(outcome: Any, samples: int, seconds: float) -> dict[str, Any]:
    """Return the training keys of results.txt."""
    return {
        "global_step": outcome.steps,
        "train:loss": outcome.final_loss,
        "train:latency": seconds,
        "train:num_samples_per_gpu": samples,
        "train:num_steps": outcome.steps,
        "train:throughput": outcome.sequences_per_second,
    }


def finish(logger: Logger, results: dict[str, Any]) -> None:
    """Log the summary under NVIDIA's names."""
    names = {
        "e2e_train_time": "train:latency",
        "training_sequences_per_second": "train:throughput",
        "final_loss": "train:loss",
        "inference_sequences_per_second": "infer:throughput(samples/s):avg",
        "exact_match": "acc",
        "F1": "f1",
    }
    summary = {name: results[key] for name, key in names.items() if key in results}
    if "infer:latency(ms)" in results:
        summary["e2e_inference_time"] = results["infer:latency(ms)"]["sum"] / 1000
    logger.summary(summary)


if __name__ == "__main__":
    run_command(main, Config)
