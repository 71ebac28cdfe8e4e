"""BERT's tensors in TensorFlow and OneFlow: tables of names that read in both directions, and arrays under them.

    TENSORFLOW.to_today("bert/encoder/layer_3/output/dense/kernel")
    # Translation(name='bert.encoder.layer.3.output.dense.weight', transposed=True)
    state = import_arrays(TENSORFLOW, names, bundle.read, "bert_model.ckpt")     # {"model": tensors, "skipped": names}
    arrays, left_out = export_arrays(TENSORFLOW, state["model"])

Both systems store the matrix of a dense layer as [in, out], PyTorch as [out, in]; they store embeddings and the output
layers that Google's scripts add on top of BERT as PyTorch does. OneFlow's names are TensorFlow's with another
separator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bert.errors import UsageError

LAYER = "bert.encoder.layer.{i}"
DENSE = [  # kernel [in, out] and bias in TensorFlow
    f"{LAYER}.attention.self.{{x}}",
    f"{LAYER}.attention.output.dense",
    f"{LAYER}.intermediate.dense",
    f"{LAYER}.output.dense",
    "bert.pooler.dense",
    "cls.predictions.transform.dense",
]
LAYER_NORM = [  # gamma and beta in TensorFlow
    "bert.embeddings.LayerNorm",
    f"{LAYER}.attention.output.LayerNorm",
    f"{LAYER}.output.LayerNorm",
    "cls.predictions.transform.LayerNorm",
]
# Today's module -> TensorFlow's scope: output_weights [out, in] and output_bias.
OUTPUT = {"cls.seq_relationship": "cls/seq_relationship/", "qa_outputs": "cls/squad/", "classifier": ""}
OTHERS = {
    "bert.embeddings.{x}_embeddings.weight": "bert/embeddings/{x}_embeddings",
    "cls.predictions.bias": "cls/predictions/output_bias",
}
SLOTS = ("adam_m", "adam_v", "m", "v")  # of the optimizers in Google's and OneFlow's scripts


class Translation(NamedTuple):
    """A tensor's name in the other system, and whether the axes are swapped between the two."""

    name: str
    transposed: bool


class NameRow(NamedTuple):
    today: str  # {x} stands for a word
    theirs: str
    transposed: bool = False


class NameTable:
    """Rows of names, translated in both directions; the first row that matches decides."""

    def __init__(self, rows: list[NameRow], separator: str) -> None:
        self.separator = separator
        self._today = [(_pattern(row.today), row.theirs, row.transposed) for row in rows]
        self._theirs = [(_pattern(row.theirs), row.today, row.transposed) for row in rows]

    def to_today(self, name: str) -> Translation | None:
        """Translate one of their names; None if the table lacks it."""
        return _translate(name, self._theirs)

    def from_today(self, name: str) -> Translation | None:
        """Translate one of today's names; None if the table lacks it."""
        return _translate(name, self._today)

    def is_slot(self, name: str, names: set[str]) -> bool:
        """Tell whether ``name`` is an optimizer's slot: one of ``names`` plus a word, or any plus one of ``SLOTS``."""
        owner, _, word = name.rpartition(self.separator)
        return owner in names or (bool(owner) and word in SLOTS)


def _translate(name: str, rows: list[tuple[re.Pattern[str], str, bool]]) -> Translation | None:
    for pattern, template, transposed in rows:
        found = pattern.fullmatch(name)
        if found:
            return Translation(template.format(**found.groupdict()), transposed)
    return None


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", re.escape(template)))


def _scope(module: str) -> str:
    return module.replace(".layer.", ".layer_").replace(".", "/")


def _tensorflow_rows() -> list[NameRow]:
    rows = [NameRow(today, theirs) for today, theirs in OTHERS.items()]
    for today in DENSE:
        scope = _scope(today)
        rows += [NameRow(f"{today}.weight", f"{scope}/kernel", True), NameRow(f"{today}.bias", f"{scope}/bias")]
    for today in LAYER_NORM:
        scope = _scope(today)
        rows += [NameRow(f"{today}.weight", f"{scope}/gamma"), NameRow(f"{today}.bias", f"{scope}/beta")]
    for today, scope in OUTPUT.items():
        rows += [NameRow(f"{today}.weight", f"{scope}output_weights"), NameRow(f"{today}.bias", f"{scope}output_bias")]
    return rows


def _oneflow_rows() -> list[NameRow]:
    """TensorFlow's rows, preceded by the head of OneFlow's own SQuAD script, a dense layer [hidden, 2]."""
    squad = [
        NameRow("qa_outputs.weight", "cls-squad-output-weight", True),
        NameRow("qa_outputs.bias", "cls-squad-output-bias"),
    ]
    theirs = [(row, row.theirs.replace("kernel", "weight").replace("/", "-")) for row in _tensorflow_rows()]
    return squad + [row._replace(theirs=name) for row, name in theirs]


TENSORFLOW = NameTable(_tensorflow_rows(), "/")
ONEFLOW = NameTable(_oneflow_rows(), "-")


def import_arrays(table: NameTable, names: Iterable[str], read: Callable[[str], NDArray], what: str) -> dict[str, Any]:
    """Return ``{"model": tensors, "skipped": names}``; ``read`` returns the array of a name, in the other layout.

    An optimizer's slots are skipped unread. A name that the table lacks keeps its words, so that it is reported.
    """
    model: dict[str, Tensor] = {}
    skipped, known = [], set(names)
    for name in sorted(known):
        if table.is_slot(name, known):
            skipped.append(name)
            continue
        today, transposed = table.to_today(name) or (name.replace(table.separator, "."), False)
        if today in model:
            raise UsageError(f"{what}: two tensors mean {today}; one of them is {name}")
        tensor = torch.from_numpy(read(name))
        model[today] = tensor.t().contiguous() if transposed and tensor.ndim == 2 else tensor
    return {"model": model, "skipped": skipped}


def export_arrays(table: NameTable, tensors: dict[str, Tensor]) -> tuple[dict[str, NDArray], list[str]]:
    """Return the arrays in the other system's names and layout, in fp32, and the names that the table lacks."""
    arrays: dict[str, NDArray] = {}
    left_out = []
    for name, tensor in tensors.items():
        found = table.from_today(name)
        if found is None:
            left_out.append(name)
            continue
        array = tensor.detach().float().numpy()
        arrays[found.name] = np.ascontiguousarray(array.T) if found.transposed else array
    return arrays, left_out
