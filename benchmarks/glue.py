"""Compare fine-tuning on tasks of GLUE with transformers' Trainer: scores on the dev sets, and time.

    python benchmarks/glue.py --data_dir data/download/glue --init_checkpoint bert_hf --tasks mrpc rte cola sst-2/10

Both start from the same Hugging Face folder with the same recipe: AdamW, the dropout of the model's configuration, a
linear schedule and clipping by the global norm. Each draws head, order and dropout from the seed in its own way, so
that scores agree only within the noise of seeds. Both compute in fp32 and leave attention and compilation to their
defaults; transformers pads a batch to its longest sequence. Runs take turns (A B A B ...); a run that --output_dir
already holds is not repeated. ``TASK/N`` uses every N-th training row.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lddl import clean_environment
from bert.config import flag, run_command
from bert.errors import UsageError
from bert.glue import Task, find_task, read_examples

ROOT = Path(__file__).resolve().parents[1]
TASKS = ["mrpc", "rte", "cola", "sst-2"]


@dataclass
class GlueBenchmarkConfig:
    data_dir: str = flag(help="Folder with a folder for each task, such as data/download/glue.")
    init_checkpoint: str = flag(help="Hugging Face folder of the model to start from.")
    output_dir: str = flag("results/glue_benchmark", "Folder of the runs.")
    tasks: list[str] = field(default_factory=lambda: list(TASKS), metadata={"help": "Classification tasks of GLUE."})
    seeds: list[int] = field(default_factory=lambda: [42], metadata={"help": "Seeds; a run of both for each."})
    epochs: float = flag(3.0, "Passes over the training set.", minimum=0)
    batch_size: int = flag(32, "Inputs per optimizer step.", minimum=1)
    learning_rate: float = flag(5e-5, "Highest learning rate.", minimum=0)
    max_seq_length: int = flag(128, "Longest input in pieces.", minimum=5)
    peer_python: str = flag(sys.executable, "Python with transformers and accelerate, which its Trainer needs.")


RECIPE = {"warmup_proportion": 0.1, "weight_decay": 0.01, "adam_eps": 1e-8, "max_grad_norm": 1.0}


def main(config: GlueBenchmarkConfig) -> None:
    if not shutil.which(config.peer_python):
        raise UsageError(f"--peer_python {config.peer_python}: expected a Python with transformers and accelerate")
    chosen = [read_choice(config, each) for each in config.tasks]
    runs = [[compare(config, *each, seed) for seed in config.seeds] for each in chosen]
    print(f"\n{config.epochs:g} epochs, batches of {config.batch_size}, learning rate {config.learning_rate:g}\n")
    print("| task | training rows | dev rows | metric | this suite | transformers | CPU time, ratio |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for (task, folder), pairs in zip(chosen, runs, strict=True):
        counts = [len(read_examples(task, folder, split)) for split in ("train", "dev")]
        ratio = statistics.median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)
        for metric in pairs[0][0]["scores"]:
            ours, theirs = (summary([pair[side]["scores"][metric] for pair in pairs]) for side in (0, 1))
            row = [str(task.submission), f"{counts[0]:,}", f"{counts[1]:,}", metric, ours, theirs, f"{ratio:.2f} x"]
            print(f"| {' | '.join(row)} |")


def summary(values: list[float]) -> str:
    """Return the mean, and with several seeds each value."""
    each = f" ({', '.join(f'{value:.3f}' for value in values)})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{each}"


def read_choice(config: GlueBenchmarkConfig, choice: str) -> tuple[Task, Path]:
    """Return a task and its folder, for ``TASK/N`` a folder in --output_dir with every N-th training row."""
    name, _, every = choice.partition("/")
    task = find_task(name, "--tasks")
    if task.is_regression or (every and not (every.isdigit() and int(every))):
        raise UsageError(f"--tasks {choice}: expected a classification task of GLUE, or TASK/N with a whole number N")
    folder = Path(config.data_dir) / str(task.submission)
    read_examples(task, folder, "dev")  # raises UsageError
    if not every:
        return task, folder
    part = Path(config.output_dir) / f"{task.name}_{every}"
    part.mkdir(parents=True, exist_ok=True)
    with (folder / "train.tsv").open(encoding="utf8", newline="\n") as file:
        lines = file.readlines()
    header = 0 if task.layouts["train"].names else 1
    (part / "train.tsv").write_text(
        "".join(lines[:header] + lines[header :: int(every)]), encoding="utf8", newline="\n"
    )
    shutil.copyfile(folder / "dev.tsv", part / "dev.tsv")
    return task, part


def compare(config: GlueBenchmarkConfig, task: Task, folder: Path, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return scores and CPU seconds, of this suite and of transformers."""
    results = []
    for name, run in (("ours", run_ours), ("transformers", run_peer)):
        output = Path(config.output_dir) / f"{folder.name}_{seed}_{name}"
        file = output / "benchmark.json"
        if not file.is_file():
            output.mkdir(parents=True, exist_ok=True)
            before = cpu_seconds()
            scores = score(task, folder, run(config, task, folder, output.resolve(), seed))
            file.write_text(json.dumps({"scores": scores, "seconds": cpu_seconds() - before}))
        results.append(json.loads(file.read_text(encoding="utf8")))
        print(f"{output.name}: {results[-1]}", flush=True)
    return results[0], results[1]


def cpu_seconds() -> float:
    """Return the time that finished commands have used: unlike time on a clock, other work distorts it little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def score(task: Task, folder: Path, predictions: list[str]) -> dict[str, float]:
    """Score labels, one for each row of the dev set."""
    truth = [str(each.label) for each in read_examples(task, folder, "dev")]
    found, expected = (np.array([task.labels.index(label) for label in labels]) for labels in (predictions, truth))
    return {name: value for name, value in task.metrics(found, expected).items() if "_and_" not in name}


def run_ours(config: GlueBenchmarkConfig, task: Task, folder: Path, output: Path, seed: int) -> list[str]:
    """Run run_glue.py; return the labels that it predicts for the dev set."""
    flags = {
        "task_name": task.name,
        "data_dir": folder,
        "init_checkpoint": config.init_checkpoint,
        "output_dir": output,
        "num_train_epochs": config.epochs,
        "train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "max_seq_length": config.max_seq_length,
        "json_summary": output / "dllogger.json",
        "seed": seed,
        **RECIPE,
    }
    switches = ["--do_train", "--do_eval", "--do_predict", "--no_cuda", "--skip_checkpoint", "--disable_progress_bar"]
    call([sys.executable, str(ROOT / "run_glue.py"), *switches, *(f"--{k}={v}" for k, v in flags.items())], output)
    return list(json.loads((output / "predictions.json").read_text(encoding="utf8")).values())


def run_peer(config: GlueBenchmarkConfig, task: Task, folder: Path, output: Path, seed: int) -> list[str]:
    """Run transformers' Trainer; return as :func:`run_ours`."""
    layout = task.layouts["train"]
    columns = {"columns": layout.names, "text": layout.text, "label": layout.label}
    sizes = {name: getattr(config, name) for name in ("epochs", "batch_size", "learning_rate", "max_seq_length")}
    places = {"data_dir": str(folder), "output_dir": str(output), "model": config.init_checkpoint}
    (output / "recipe.json").write_text(json.dumps({**RECIPE, **columns, **sizes, **places, "seed": seed}))
    call([config.peer_python, str(ROOT / "benchmarks" / "glue_peer.py"), str(output / "recipe.json")], output)
    return json.loads((output / "predictions.json").read_text(encoding="utf8"))


def call(command: list[str], output: Path) -> None:
    """Run a command, its output in log.txt; raises UsageError if it fails."""
    with (output / "log.txt").open("w") as log:
        if subprocess.run(command, stdout=log, stderr=log, env=clean_environment()).returncode:
            raise UsageError(f"{output / 'log.txt'}: {Path(command[1]).name} failed, expected a finished run")


if __name__ == "__main__":
    run_command(main, GlueBenchmarkConfig)
