"""OneFlow's snapshots: a folder with one folder per variable, which holds its raw fp32 numbers in a file ``out``.

There are no shapes in it. They follow from the names: the hidden size is the length of a LayerNorm, and the width of a
dense layer that of its bias. There are no checksums either: a wrong size is found, a flipped bit is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.checkpoint import shorten
from bert.checkpoint.formats.names import ONEFLOW, from_today, to_today
from bert.checkpoint.formats.weights import Weights
from bert.errors import UsageError
from bert.files import new_folder

HIDDEN = "bert-embeddings-LayerNorm-gamma"
COUNTER = "System-Train-TrainStep"  # the number of the iteration, which drives the learning rate
SYSTEM = "System-"


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is a snapshot."""
    return next(path.glob("*/out"), None) is not None


def read(path: Path) -> dict[str, Any]:
    """Read the weights; counters and an optimizer's moments are skipped."""
    names = _variables(path)
    counters = [name for name in names if name.startswith(SYSTEM)]
    sizes = {name: (path / name / "out").stat().st_size for name in names}
    if HIDDEN not in sizes or not sizes[HIDDEN]:
        raise UsageError(f"{path}: no {HIDDEN} in it, expected the weights of a BERT")

    def read_array(name: str) -> NDArray:
        return _shaped(_numbers(path, name), name, sizes, path)

    state = to_today(ONEFLOW, [name for name in names if name not in counters], read_array, str(path))
    state["skipped"] += counters
    return state


def write(path: Path, weights: Weights) -> list[str]:
    """Write a snapshot without counter and moments; returns the names of tensors that have no place there."""
    arrays, left_out = from_today(ONEFLOW, weights.unpadded())
    with new_folder(path) as folder:
        for name, array in arrays.items():
            (folder / name).mkdir()
            array.astype("<f4").tofile(folder / name / "out")
    return left_out


def merge(fresh: Path, pretrained: Path, output: Path, notice: Callable[[str], None]) -> None:
    """Write ``fresh`` with the values of ``pretrained`` where both have a variable, and the counter at 0.

    So a model gets trained weights under a fresh head. ``notice`` hears what was overwritten, kept and ignored.
    Raises UsageError, before anything is written, where the sizes of a variable differ.
    """
    ours, theirs = _variables(fresh), _variables(pretrained)
    counters = [name for name in ours if name.startswith(COUNTER)]
    common = [name for name in theirs if name in ours and not name.startswith(SYSTEM)]
    if not common:
        raise UsageError(f"{pretrained} has no variable of {fresh}")
    for name in common:
        sizes = [(folder / name / "out").stat().st_size for folder in (pretrained, fresh)]
        if sizes[0] != sizes[1]:
            raise UsageError(f"{pretrained}: {name} has {sizes[0]} bytes; expected {sizes[1]}, as in {fresh}")
    with new_folder(output) as folder:
        shutil.copytree(fresh, folder, dirs_exist_ok=True)
        for name in common:
            shutil.copyfile(pretrained / name / "out", folder / name / "out")
        for name in counters:
            np.zeros(1, "<i8").tofile(folder / name / "out")
    kept = [name for name in ours if name not in common and name not in counters]
    ignored = [name for name in theirs if name not in common]
    for verb, names in (("overwritten", common), ("kept", kept), ("ignored", ignored), ("set to 0", counters)):
        notice(f"{verb}: {len(names)}" + (f" ({shorten(names)})" if names else ""))


def _variables(path: Path) -> list[str]:
    return sorted(file.parent.name for file in path.glob("*/out"))


def _numbers(path: Path, name: str) -> NDArray[np.float32]:
    file = path / name / "out"
    if file.stat().st_size % 4:
        raise UsageError(f"{file}: {file.stat().st_size} bytes; expected fp32 numbers of 4 bytes each")
    return np.fromfile(file, "<f4")


def _shaped(numbers: NDArray[np.float32], name: str, sizes: dict[str, int], path: Path) -> NDArray[np.float32]:
    place = ONEFLOW.to_today(name)
    if place is None or not place.name.endswith(".weight") or ".LayerNorm." in place.name:
        return numbers
    bias = name.removesuffix("weight") + "bias"
    columns = sizes.get(bias if place.transposed else HIDDEN, 0) // 4
    if not columns or len(numbers) % columns:
        raise UsageError(f"{path / name / 'out'}: {len(numbers)} numbers; expected rows of {columns}")
    return numbers.reshape(-1, columns)
