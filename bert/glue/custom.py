"""``--task_name custom``: classification or regression on your own .tsv, .csv or .jsonl files.

The classes are the labels of the training file, unless ``--labels`` lists them, which runs without a training file
need. A label is its text, whether a .jsonl file has it as ``1`` or ``"1"``; spelled in two ways, it is an error. Fields
of a .csv file may be quoted; a .tsv file has no quoting::

    --task_name custom --data_dir reviews --text_column review --label_column stars --labels 1,2,3,4,5
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.errors import UsageError
from bert.glue.examples import SplitLayout, Task
from bert.glue.metrics import acc_and_macro_f1, correlations
from bert.glue.tables import SUFFIXES, read_table

CUSTOM = "custom"
BOOLEANS = {"true": 1.0, "false": 0.0}
MISSING = ("", "nan", "null", "n/a", "#n/a", "<na>")  # what programs write for no value; None may be a class


@dataclass
class CustomConfig:
    """Flags of ``--task_name custom``."""

    text_column: str = flag("text", "custom: column of the text, or of the first text of a pair.")
    text_pair_column: str | None = flag(None, "custom: column of the second text of a pair.")
    label_column: str = flag("label", "custom: column of the label.")
    labels: str | None = flag(
        None,
        "custom: labels in the order of the classes, such as no,maybe,yes; by default the training file's, sorted.",
    )
    regression: bool = flag(False, "custom: the labels are numbers to predict, not classes.")
    train_file: str | None = flag(None, "custom: training file in --data_dir; by default train.tsv, .csv or .jsonl.")
    dev_file: str | None = flag(None, "custom: dev file in --data_dir; by default dev.tsv, .csv or .jsonl.")
    test_file: str | None = flag(None, "custom: test file in --data_dir; by default test.tsv, .csv or .jsonl.")


def build_custom(config: CustomConfig, data_dir: str | Path) -> Task:
    """Return the task that the flags describe. Raises UsageError."""
    text = tuple(column for column in (config.text_column, config.text_pair_column) if column)
    files = {"train": config.train_file, "dev": config.dev_file, "test": config.test_file}
    labels_of = {"train": config.label_column, "dev": config.label_column, "test": None}
    layouts = {
        split: SplitLayout(file or _find(Path(data_dir), split), split, text, labels_of[split])
        for split, file in files.items()
    }
    if config.regression:
        if config.labels is not None:
            raise UsageError(
                f"--labels {config.labels}: --regression predicts numbers, expected only one of the two flags"
            )
        return Task(CUSTOM, None, layouts, correlations)
    labels = _stated(config.labels) if config.labels is not None else _found(Path(data_dir), layouts["train"])
    return Task(CUSTOM, None, layouts, acc_and_macro_f1, tuple(labels))


def _find(folder: Path, split: str) -> str:
    """Return the file of a split; if there is none, the name to report as missing."""
    names = [f"{split}{suffix}" for suffix in SUFFIXES]
    found = [name for name in names if (folder / name).exists()]
    if len(found) > 1:
        raise UsageError(f"--data_dir {folder}: has {' and '.join(found)}, expected one of them or --{split}_file")
    return (found or names)[0]


def _stated(text: str) -> Sequence[str]:
    labels = [label.strip() for label in text.split(",")]
    if len(labels) < 2 or not all(labels) or len(set(labels)) < len(labels):
        raise UsageError(f"--labels {text}: expected at least two different labels separated by commas")
    return labels


def _found(folder: Path, layout: SplitLayout) -> Sequence[str]:
    """Return the training file's labels, sorted. Raises UsageError for one that is missing or spelled in two ways."""
    assert layout.label is not None
    path = folder / layout.file
    if not path.exists():
        raise UsageError(f"{path}: no such file, expected training data, or --labels with the classes")
    first: dict[Any, tuple[str, int]] = {}  # what a label means -> its spelling and line
    for row in read_table(path, [layout.label]):
        label = row.values[0].strip()
        meaning = _meaning(label)
        if meaning in MISSING:
            raise UsageError(f"{path}: line {row.line}: label {label!r}, expected a class (--labels can name it one)")
        spelling, line = first.setdefault(meaning, (label, row.line))
        if spelling != label:
            raise UsageError(
                f"{path}: line {row.line}: label {label!r}, but {spelling!r} in line {line}; expected one spelling, or "
                "--labels with both"
            )
    numbers = [label for meaning, (label, _) in first.items() if isinstance(meaning, float)]
    if 0 < sum(label.casefold() in BOOLEANS for label in numbers) < len(numbers):
        raise UsageError(f"{path}: column {layout.label!r} has {', '.join(numbers)}; expected one kind, or --labels")
    if len(first) < 2:
        raise UsageError(f"{path}: column {layout.label!r} has {len(first)} different labels, expected at least two")
    return sorted(label for label, _ in first.values())


def _meaning(label: str) -> float | str:
    """Return what labels that mean the same have in common: a number, true as 1, else letters regardless of case."""
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    try:
        value = float(BOOLEANS.get(text, text))
    except ValueError:
        return text
    return value if math.isfinite(value) else text
