"""Evaluate a fine-tuned classifier: from dev and test sets to the result files of the published scripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.finetune.output import write_eval_results
from bert.finetune.predict import Outputs, predict
from bert.finetune.training import TaskRun
from bert.glue.examples import Example, Task, encode, read_examples
from bert.glue.output import write_predictions, write_results, write_submission, write_test_results
from bert.glue.scores import eval_results, inference_results, score, warn_of_collapse
from bert.log import Logger
from bert.sequences import Sequences
from bert.tokenization import BertTokenizer
from bert.train.graphs import build_predictor
from bert.train.hooks import Outcome

PUBLISHED = {"global_step": "global_step", "loss": "train:loss"}  # line of eval_results.txt -> key of results.txt
SUMMARY = {  # NVIDIA's name in the log -> key of results.txt
    "e2e_train_time": "train:latency",
    "training_sequences_per_second": "train:throughput",
    "final_loss": "train:loss",
    "inference_sequences_per_second": "infer:throughput(samples/s):avg",
    "exact_match": "acc",
    "F1": "f1",
}


@dataclass
class TaskData:
    """A task and the sets that a run needs, as text and encoded."""

    task: Task
    examples: dict[str, list[Example]]  # "train", "dev", "test"
    inputs: dict[str, Sequences]


def read_task(
    data_dir: str | Path, task: Task, tokenizer: BertTokenizer, max_seq_length: int, run: TaskRun
) -> TaskData:
    """Read and encode the sets that the flags need; the test set is optional."""
    actions = run.settings.run
    needed = [("train", actions.do_train), ("dev", actions.do_eval or actions.do_predict)]
    names = [name for name, wanted in needed if wanted and name in task.layouts]
    test = task.layouts.get("test")
    if actions.do_predict and test is not None and (Path(data_dir) / test.file).is_file():
        names.append("test")
    examples = {name: read_examples(task, data_dir, name, run.notice) for name in names}
    inputs = {name: encode(each, task, tokenizer, max_seq_length) for name, each in examples.items()}
    return TaskData(task, examples, inputs)


def evaluate(
    run: TaskRun, objective: Any, data: TaskData, batch_size: int, results: dict[str, Any]
) -> dict[str, float]:
    """Predict the dev and the test set, write the files and fill ``results``; return the metrics of the dev set."""
    predictor = build_predictor(run.settings.parallel, objective, run.precision)
    outputs = {
        name: predict(predictor, data.inputs[name], batch_size, run.precision, run.world, run.shows_progress)
        for name in ("dev", "test")
        if name in data.inputs
    }
    if "dev" in outputs:
        results |= inference_results(outputs["dev"], len(data.inputs["dev"]))
    return report(run, run.output_dir, data, outputs, results)


def report(
    run: TaskRun, folder: str | Path, data: TaskData, outputs: dict[str, Outputs], results: dict[str, Any]
) -> dict[str, float]:
    """Score the ``outputs`` of the sets and write the files to ``folder``; as :func:`evaluate` otherwise."""
    task, is_main, actions, scores = data.task, run.world.is_main, run.settings.run, {}
    if "dev" in outputs:
        dev, inputs = outputs["dev"], data.inputs["dev"]
        scores = score(task, dev, inputs)
        results |= {"eval:loss" if name == "loss" else name: value for name, value in scores.items()}
        warn_of_collapse(task, dev, run.notice)
        run.notice(", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if is_main and actions.do_predict:
            write_predictions(folder, dev.values, task, data.examples["dev"])
        if is_main and actions.do_eval:
            lines = {name: results[key] for name, key in PUBLISHED.items() if key in results}
            write_eval_results(folder, eval_results(task, dev, inputs, scores) | lines)
    if is_main and "test" in outputs:
        write_test_results(folder, outputs["test"].values, task)
        write_submission(folder, outputs["test"].values, task)
    if is_main:
        write_results(folder, results)
    return scores


def training_results(outcome: Outcome, samples: int, seconds: float) -> dict[str, Any]:
    """Return the training keys of results.txt."""
    return {
        "global_step": outcome.steps,
        "train:loss": outcome.final_loss,
        "train:latency": seconds,
        "train:num_samples_per_gpu": samples,
        "train:num_steps": outcome.steps,
        "train:throughput": outcome.sequences_per_second,
    }


def log_summary(logger: Logger, results: dict[str, Any]) -> None:
    """Log a summary under NVIDIA's names."""
    summary = {name: results[key] for name, key in SUMMARY.items() if key in results}
    if "infer:latency(ms)" in results:
        # A rank without a batch, which writes no log, has no latencies.
        summary["e2e_inference_time"] = results["infer:latency(ms)"].get("sum", 0.0) / 1000
    logger.summary(summary)
