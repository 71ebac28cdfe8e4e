"""Scores of all tasks on whole dev sets, the best model, and the files of the results.

The sets of all tasks are predicted in one stream of mixed batches. The score of a task is its first metric: Matthews'
correlation for CoLA, Pearson's for STS-B, the accuracy of the others; the mean of them says which model is best::

    sets = read_sets(places, start.tokenizer, 128, run)
    best = BestModel(run, objective, sets, start, kept, batch_size=32)
    best(trainer)                           # writes OUTPUT_DIR/best_model/pytorch_model.bin if no mean was higher
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bert.checkpoint import load, load_weights
from bert.checkpoint.open_model import StartingPoint
from bert.distributed import collective_errors
from bert.finetune.output import save_model, write_lines
from bert.finetune.predict import Outputs, predict
from bert.finetune.training import TaskRun
from bert.glue.evaluation import TaskData, read_task, report
from bert.glue.output import write_results
from bert.glue.scores import score
from bert.multi_task.tasks import TaskPlace
from bert.ragged import offsets_of
from bert.sequences import Sequences, concatenate
from bert.tokenization import BertTokenizer
from bert.train.trainer import Trainer

BEST = "best_model"  # folder below --output_dir


@dataclass
class TaskSets:
    """The sets of one task."""

    place: TaskPlace
    data: TaskData

    @property
    def name(self) -> str:
        return self.place.name

    def inputs(self, split: str) -> Sequences:
        """Return a split with the task's number as a label, and the training set with float32 labels."""
        inputs = self.data.inputs[split]
        labels: dict[str, Any] = {"task": np.full(len(inputs), self.place.head, np.int64)}
        if split == "train":
            labels["label"] = inputs.labels["label"].astype(np.float32)
        return replace(inputs, labels=labels)


def read_sets(
    places: Sequence[TaskPlace], tokenizer: BertTokenizer, max_seq_length: int, run: TaskRun
) -> list[TaskSets]:
    """Read and encode the sets that the flags need."""
    return [TaskSets(each, read_task(each.folder, each.task, tokenizer, max_seq_length, run)) for each in places]


def join_split(sets: Sequence[TaskSets], split: str) -> Sequences:
    """Return one split of all tasks that have it, end to end."""
    return concatenate([each.inputs(split) for each in sets if split in each.data.inputs])


class BestModel:
    """Scores the dev sets when called during training, and saves the model if it is the best so far."""

    def __init__(
        self,
        run: TaskRun,
        objective: Any,
        sets: Sequence[TaskSets],
        start: StartingPoint,
        kept: dict[str, Any],
        batch_size: int,
    ) -> None:
        """``kept`` is what every checkpoint holds; "best" in it is the best mean score so far and its step."""
        self.run, self.objective, self.sets, self.start = run, objective, sets, start
        self.kept, self.batch_size = kept, batch_size
        self.progress: dict[str, Any] = (start.state or {}).get("progress", {})

    def __call__(self, trainer: Trainer) -> None:
        step = trainer.state.step
        self.progress = {"steps": step, "examples": list(trainer.state.data["drawn"])}
        if not self.run.settings.run.do_eval:
            return
        outputs = predict_all(self, "dev")
        found = {}
        for each in self.sets:
            found[each.name] = score(each.data.task, outputs[each.name], each.data.inputs["dev"])
        mean = mean_score(self.sets, found)
        data = {f"{name}/{metric}": value for name, scores in found.items() for metric, value in scores.items()}
        data |= {f"score/{name}": headline(scores)[1] for name, scores in found.items()}
        self.run.logger.log((int(trainer.epoch), step), {**data, "mean_score": mean})
        if mean > self.kept["best"].get("mean", float("-inf")):
            self.kept["best"] = {"mean": mean, "steps": step}
            self.save(Path(self.run.output_dir) / BEST)

    def save(self, folder: str | Path) -> None:
        """Write the model as it is now, on one rank."""
        with collective_errors(self.run.world):
            if self.run.world.is_main:
                save_model(folder, self.objective.model, self.start, **self.kept, progress=self.progress)

    def restore(self) -> None:
        """Load the best model, on every rank."""
        path = Path(self.run.output_dir) / BEST / "pytorch_model.bin"
        with collective_errors(self.run.world):
            state = load(path)
            load_weights(self.objective.model, state, str(path))
        self.progress = state["progress"]


def predict_all(best: BestModel, split: str) -> dict[str, Outputs]:
    """Predict one split of all tasks that have it, in one stream; return the outputs of each, by name."""
    run, chosen = best.run, [each for each in best.sets if split in each.data.inputs]
    if not chosen:
        return {}
    whole = predict(
        best.objective, join_split(chosen, split), best.batch_size, run.precision, run.world, run.shows_progress
    )
    ends = offsets_of([len(each.data.inputs[split]) for each in chosen]).tolist()
    return {
        each.name: replace(whole, values=whole.values[low:high, : each.data.task.num_labels])
        for each, low, high in zip(chosen, ends, ends[1:], strict=False)
    }


def headline(scores: Mapping[str, float]) -> tuple[str, float]:
    """Return the name and the value of a task's single score."""
    return next((name, float(value)) for name, value in scores.items() if name != "loss")


def mean_score(sets: Sequence[TaskSets], found: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean over the tasks; MNLI's second dev set does not count."""
    return statistics.fmean(headline(found[each.name])[1] for each in sets if "train" in each.data.task.layouts)


def write_all(best: BestModel, results: dict[str, Any]) -> None:
    """Predict the dev and test sets, write the files of each task and the table of all, and fill ``results``."""
    run, steps, examples = best.run, best.progress.get("steps", 0), best.progress.get("examples")
    if steps:
        results["global_step"] = steps
    outputs = {split: predict_all(best, split) for split in ("dev", "test")}
    rows, found = [["task", "metric", "score", "steps", "examples seen"], ["---", "---", *["---:"] * 3]], {}
    for each in best.sets:
        own = {split: values[each.name] for split, values in outputs.items() if each.name in values}
        run.notice(f"{each.name}:")
        found[each.name] = report(run, Path(run.output_dir) / each.name, each.data, own, {**results})
        metric, value = headline(found[each.name])
        rows.append([each.name, metric, f"{value:.4f}", str(steps), str(examples[each.place.head] if examples else 0)])
    mean = mean_score(best.sets, found)
    rows.append(["mean", "", f"{mean:.4f}", str(steps), str(sum(examples or ()))])
    table = [f"| {' | '.join(row)} |" for row in rows]
    run.notice("\n".join(table))
    results |= {"mean_score": mean, "tasks": found}
    if run.world.is_main:
        write_lines(run.output_dir, "results.md", table)
        write_results(run.output_dir, results)
