"""The names of BERT's tensors in TensorFlow and OneFlow, each a table that is read in both directions.

    TENSORFLOW.to_today("bert/encoder/layer_3/output/dense/kernel")
    # Place(name='bert.encoder.layer.3.output.dense.weight', transposed=True)

Both keep the matrix of a dense layer as [in, out], PyTorch as [out, in]; embeddings and the output layers that Google's
scripts add on top of BERT are stored as in PyTorch. OneFlow's names are TensorFlow's with other separators.
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

LAYER = "bert.encoder.layer.{i}", "bert/encoder/layer_{i}"

# Today's module, TensorFlow's scope: kernel [in, out] and bias.
DENSE = [
    (LAYER[0] + ".attention.self.{x}", LAYER[1] + "/attention/self/{x}"),
    (LAYER[0] + ".attention.output.dense", LAYER[1] + "/attention/output/dense"),
    (LAYER[0] + ".intermediate.dense", LAYER[1] + "/intermediate/dense"),
    (LAYER[0] + ".output.dense", LAYER[1] + "/output/dense"),
    ("bert.pooler.dense", "bert/pooler/dense"),
    ("cls.predictions.transform.dense", "cls/predictions/transform/dense"),
]
# Today's module, TensorFlow's scope: gamma and beta.
LAYER_NORM = [
    ("bert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
    (LAYER[0] + ".attention.output.LayerNorm", LAYER[1] + "/attention/output/LayerNorm"),
    (LAYER[0] + ".output.LayerNorm", LAYER[1] + "/output/LayerNorm"),
    ("cls.predictions.transform.LayerNorm", "cls/predictions/transform/LayerNorm"),
]
# Today's module, TensorFlow's scope: output_weights [out, in] and output_bias.
OUTPUT = [
    ("cls.seq_relationship", "cls/seq_relationship/"),
    ("qa_outputs", "cls/squad/"),
    ("classifier", ""),
]
OTHERS = [
    ("bert.embeddings.{x}_embeddings.weight", "bert/embeddings/{x}_embeddings"),
    ("cls.predictions.bias", "cls/predictions/output_bias"),
]
SLOTS = ("adam_m", "adam_v", "m", "v")  # of the optimizers in Google's and OneFlow's scripts


class Place(NamedTuple):
    """A tensor's name in another system, and whether its axes are swapped there."""

    name: str
    transposed: bool


class Row(NamedTuple):
    today: str  # {x} stands for a word
    theirs: str
    transposed: bool = False


class NameTable:
    """Rows of names, translated in both directions; of two rows that match, the first one decides."""

    def __init__(self, rows: list[Row], separator: str) -> None:
        self.separator = separator
        self._today = [(_pattern(row.today), row.theirs, row.transposed) for row in rows]
        self._theirs = [(_pattern(row.theirs), row.today, row.transposed) for row in rows]

    def to_today(self, name: str) -> Place | None:
        """Translate one of their names; None where the table lacks it."""
        return _translate(name, self._theirs)

    def from_today(self, name: str) -> Place | None:
        """Translate one of today's names; None where the table lacks it."""
        return _translate(name, self._today)

    def is_slot(self, name: str, names: set[str]) -> bool:
        """Tell whether an optimizer keeps ``name`` for a weight: it is the name of one of ``names`` and a word more."""
        owner, _, word = name.rpartition(self.separator)
        return owner in names or (bool(owner) and word in SLOTS)


def _translate(name: str, rows: list[tuple[re.Pattern[str], str, bool]]) -> Place | None:
    for pattern, template, transposed in rows:
        found = pattern.fullmatch(name)
        if found:
            return Place(template.format(**found.groupdict()), transposed)
    return None


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", re.escape(template)))


def _tensorflow_rows() -> list[Row]:
    rows = [Row(*pair) for pair in OTHERS]
    for today, scope in DENSE:
        rows += [Row(f"{today}.weight", f"{scope}/kernel", True), Row(f"{today}.bias", f"{scope}/bias")]
    for today, scope in LAYER_NORM:
        rows += [Row(f"{today}.weight", f"{scope}/gamma"), Row(f"{today}.bias", f"{scope}/beta")]
    for today, scope in OUTPUT:
        rows += [Row(f"{today}.weight", f"{scope}output_weights"), Row(f"{today}.bias", f"{scope}output_bias")]
    return rows


def _oneflow_rows() -> list[Row]:
    """TensorFlow's, and before them the head of OneFlow's own SQuAD script, which is a dense layer [hidden, 2]."""
    squad = [
        Row("qa_outputs.weight", "cls-squad-output-weight", True),
        Row("qa_outputs.bias", "cls-squad-output-bias"),
    ]
    theirs = [(row, row.theirs.replace("kernel", "weight").replace("/", "-")) for row in _tensorflow_rows()]
    return squad + [row._replace(theirs=name) for row, name in theirs]


TENSORFLOW = NameTable(_tensorflow_rows(), "/")
ONEFLOW = NameTable(_oneflow_rows(), "-")


def to_today(table: NameTable, names: Iterable[str], read: Callable[[str], NDArray], what: str) -> dict[str, Any]:
    """Return ``{"model": tensors, "skipped": names}``; ``read`` gives the array of a name, in the other's layout.

    An optimizer's slots are skipped unread. A name that the table lacks keeps its words, so that it is reported.
    """
    model: dict[str, Tensor] = {}
    skipped, known = [], set(names)
    for name in sorted(known):
        if table.is_slot(name, known):
            skipped.append(name)
            continue
        place, tensor = table.to_today(name), torch.from_numpy(read(name))
        today = place.name if place else name.replace(table.separator, ".")
        if today in model:
            raise UsageError(f"{what}: two tensors mean {today}; one of them is {name}")
        swapped = place is not None and place.transposed and tensor.ndim == 2
        model[today] = tensor.t().contiguous() if swapped else tensor
    return {"model": model, "skipped": skipped}


def from_today(table: NameTable, tensors: dict[str, Tensor]) -> tuple[dict[str, NDArray], list[str]]:
    """Return the arrays in the other's names and layout, in fp32, and the names that the table lacks."""
    arrays: dict[str, NDArray] = {}
    left_out = []
    for name, tensor in tensors.items():
        place = table.from_today(name)
        if place is None:
            left_out.append(name)
            continue
        array = tensor.detach().float().numpy()
        arrays[place.name] = np.ascontiguousarray(array.T) if place.transposed else array
    return arrays, left_out
