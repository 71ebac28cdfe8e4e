"""Sentences or sentence pairs with a class or a number: what a task is, how its files look, how they become inputs.

A task is a value; the published ones are the rows of :data:`bert.glue.tasks.TASKS`. Labels remain the files' strings
until :func:`encode`. An example's guid is the one of the published scripts::

    examples = read_examples(find_task("mrpc"), "MRPC", "dev")
    examples[0]                 # Example(guid='dev-1', text_a='He said the foodservice ...', text_b=..., label='1')
    inputs = encode(examples, find_task("mrpc"), tokenizer, max_seq_length=128)
    inputs.labels["label"]      # [1, 0, ...]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError
from bert.glue.tables import TableRow, read_table
from bert.sequences import Sequences, concatenate, encode_pairs
from bert.tokenization import BertTokenizer

CHUNK = 8192  # examples to tokenise at once: all of MNLI would need several gigabytes
SHOWN = 8  # labels that an error message lists


class Example(NamedTuple):
    """One row of a file; ``label`` is None in a test set."""

    guid: str
    text_a: str
    text_b: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class SplitLayout:
    """The file of one split of a task and its columns."""

    file: str  # below --data_dir
    prefix: str  # of the guids
    text: tuple[str, ...]  # the column, or the two columns of a pair
    label: str | None = None  # column of the label; None: a test set
    guid: str | None = None  # column of ids; None: the row number, where the header is 0
    names: tuple[str, ...] = ()  # columns of a file without a header
    only: tuple[str, str] | None = None  # (column, value): read only rows with this value
    skip_broken: bool = False  # skip rows with a wrong number of columns


@dataclass(frozen=True)
class Task:
    """A classification if it has ``labels``, in the order of the classes, else a regression."""

    name: str
    submission: str | None  # its name on gluebenchmark.com
    layouts: Mapping[str, SplitLayout]  # by split: train, dev, test
    metrics: Callable[[NDArray, NDArray], dict[str, float]]  # (predictions [n], labels [n]) of a whole set
    labels: tuple[str, ...] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)  # of a regression's values
    aliases: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)  # label in a file, or name in a model -> label

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def range(self) -> float:
        """Width of a regression's bounds; 1 where there are none."""
        return self.bounds[1] - self.bounds[0] if math.isfinite(self.bounds[1] - self.bounds[0]) else 1.0

    @property
    def num_labels(self) -> int:
        """Outputs of the head: 1 for a regression."""
        return len(self.labels) or 1

    def predictions(self, logits: NDArray) -> NDArray:
        """Return the classes [n], or the values of a regression, that ``logits`` [n, num_labels] predict."""
        return logits[:, 0] if self.is_regression else logits.argmax(axis=1)


def read_examples(
    task: Task, data_dir: str | Path, split: str, notice: Callable[[str], None] | None = None
) -> list[Example]:
    """Read ``train``, ``dev`` or ``test`` of a task; ``notice`` reports skipped rows.

    Raises UsageError for a missing or empty file, a malformed row, a label that the task does not have, and an id
    repeated outside the training set.
    """
    if split not in task.layouts:
        raise UsageError(f"--task_name {task.name}: no {split} examples, it has {', '.join(task.layouts)}")
    layout = task.layouts[split]
    path = Path(data_dir) / layout.file
    broken: list[int] = []
    examples: list[Example] = []
    first: dict[str, int] = {}  # guid -> line
    for line, example in _rows(task, layout, path, broken):
        if first.setdefault(example.guid, line) != line and split != "train":
            raise UsageError(f"{path}: line {line}: id {example.guid} repeats that of line {first[example.guid]}")
        examples.append(example)
    if not examples:
        which = f" with {layout.only[0]} {layout.only[1]!r}" if layout.only else ""
        raise UsageError(f"{path}: no examples{which}, expected at least one")
    if broken and notice:
        notice(f"{path}: skipped {len(broken)} lines with a wrong number of columns (first: line {broken[0]})")
    return examples


def _rows(task: Task, layout: SplitLayout, path: Path, broken: list[int]) -> Iterator[tuple[int, Example]]:
    chosen, value = layout.only or (None, None)
    columns = [*layout.text, *filter(None, (layout.label, layout.guid, chosen))]
    for row in read_table(path, columns, names=layout.names, broken=broken if layout.skip_broken else None):
        values = dict(zip(columns, row.values, strict=True))
        if chosen and values[chosen] != value:
            continue
        guid = f"{layout.prefix}-{values[layout.guid] if layout.guid else row.line - 1}"
        texts = [values[column] for column in layout.text]
        label = _check(task, values[layout.label], path, row) if layout.label else None
        yield row.line, Example(guid, texts[0], texts[1] if len(texts) > 1 else None, label)


def _check(task: Task, value: str, path: Path, row: TableRow) -> str:
    """Return the label that the file's ``value`` means."""
    label = task.synonyms.get(value.strip(), value.strip())
    if not (_is_within(label, task.bounds) if task.is_regression else label in task.labels):
        raise UsageError(f"{path}: line {row.line}: label {value[:40]!r}, expected {_expected(task)}")
    return label


def _expected(task: Task) -> str:
    if task.is_regression:
        return "a number" + (f" from {task.bounds[0]} to {task.bounds[1]}" if math.isfinite(task.bounds[0]) else "")
    return shorten_labels(task.labels)


def shorten_labels(labels: Sequence[str]) -> str:
    """Join the first few labels, for a message."""
    return ", ".join(labels[:SHOWN]) + (", ..." if len(labels) > SHOWN else "")


def _is_within(text: str, bounds: tuple[float, float]) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and bounds[0] <= value <= bounds[1]


def encode(examples: Sequence[Example], task: Task, tokenizer: BertTokenizer, max_seq_length: int) -> Sequences:
    """Tokenise examples; ``labels["label"]`` is the class (int64) or the value (float32); a test set has none."""
    parts = []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        first = tokenizer.encode_batch([example.text_a for example in chunk])
        pairs = [example.text_b for example in chunk if example.text_b is not None]
        parts.append(encode_pairs(first, tokenizer.encode_batch(pairs) if pairs else None, max_seq_length, tokenizer))
    return replace(concatenate(parts), labels=_labels(examples, task))


def _labels(examples: Sequence[Example], task: Task) -> dict[str, NDArray]:
    labels = [example.label for example in examples if example.label is not None]
    if not labels:
        return {}
    if task.is_regression:
        return {"label": np.array([float(label) for label in labels], np.float32)}
    classes = {label: index for index, label in enumerate(task.labels)}
    return {"label": np.array([classes[label] for label in labels], np.int64)}
