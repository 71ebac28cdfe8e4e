"""OneFlow's snapshots: a folder with one folder per variable, which holds its raw fp32 numbers in a file ``out``.

Shapes are not stored. They follow from the names: the hidden size is the length of a LayerNorm, and the width of a
dense layer that of its bias. There are no checksums either: a wrong size is detected, a flipped bit is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.checkpoint import shorten
from bert.checkpoint.formats.names import ONEFLOW, export_arrays, import_arrays
from bert.checkpoint.formats.weights import Weights
from bert.errors import UsageError, naming_os_errors
from bert.files import new_folder

HIDDEN = "bert-embeddings-LayerNorm-gamma"
COUNTER = "System-Train-TrainStep"  # the number of the iteration, which drives the learning rate
SYSTEM = "System-"


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is a snapshot."""
    return next(path.glob("*/out"), None) is not None


def read(path: Path) -> dict[str, Any]:
    """Read the weights; counters and an optimizer's moments are skipped."""
    sizes = _sizes(path)
    if not sizes.get(HIDDEN):
        raise UsageError(f"{path}: no {HIDDEN} in it, expected the weights of a BERT")
    counters = [name for name in sizes if name.startswith(SYSTEM)]
    state = import_arrays(ONEFLOW, sizes.keys() - set(counters), partial(_read_array, path, sizes), str(path))
    state["skipped"] += counters
    return state


def write(path: Path, weights: Weights) -> list[str]:
    """Write a snapshot without counter and moments; returns the names of tensors that the format cannot hold."""
    arrays, left_out = export_arrays(ONEFLOW, weights.unpadded())
    with new_folder(path) as folder:
        for name, array in arrays.items():
            (folder / name).mkdir()
            array.astype("<f4").tofile(folder / name / "out")
    return left_out


def merge(fresh: Path, pretrained: Path, output: Path, notice: Callable[[str], None]) -> None:
    """Write ``fresh`` with the values of ``pretrained`` where both have a variable, and the counter at 0.

    So a model gets trained weights under a fresh head. ``notice`` receives what was overwritten, kept and ignored.
    Raises UsageError, before anything is written, if either is not a snapshot or the sizes of a variable differ.
    """
    for path in (fresh, pretrained):
        if not recognise(path):
            raise UsageError(f"{path}: expected a snapshot of OneFlow, a folder of folders with a file named out")
    ours, theirs = _sizes(fresh), _sizes(pretrained)
    counters = [name for name in ours if name.startswith(COUNTER)]
    common = [name for name in theirs if name in ours and not name.startswith(SYSTEM)]
    if not common:
        raise UsageError(f"{pretrained} has no variable of {fresh}")
    for name in common:
        if theirs[name] != ours[name]:
            raise UsageError(f"{pretrained}: {name} has {theirs[name]} bytes; expected {ours[name]}, as in {fresh}")
    with naming_os_errors(f"--output {output}"), new_folder(output) as folder:
        shutil.copytree(fresh, folder, dirs_exist_ok=True)
        for name in common:
            shutil.copyfile(pretrained / name / "out", folder / name / "out")
        for name in counters:
            np.zeros(1, "<i8").tofile(folder / name / "out")
    kept = [name for name in ours if name not in common and name not in counters]
    ignored = [name for name in theirs if name not in common]
    for verb, names in (("overwritten", common), ("kept", kept), ("ignored", ignored), ("set to 0", counters)):
        notice(f"{verb}: {len(names)}" + (f" ({shorten(names)})" if names else ""))


def _sizes(path: Path) -> dict[str, int]:
    """Return the bytes of every variable, sorted by name."""
    with naming_os_errors(str(path)):
        return {file.parent.name: file.stat().st_size for file in sorted(path.glob("*/out"))}


def _read_array(path: Path, sizes: dict[str, int], name: str) -> NDArray[np.float32]:
    file = path / name / "out"
    if sizes[name] % 4:
        raise UsageError(f"{file}: {sizes[name]} bytes; expected fp32 numbers of 4 bytes each")
    numbers = np.fromfile(file, "<f4")
    found = ONEFLOW.to_today(name)
    if found is None or not found.name.endswith(".weight") or ".LayerNorm." in found.name:
        return numbers
    bias = name.removesuffix("weight") + "bias"
    columns = sizes.get(bias if found.transposed else HIDDEN, 0) // 4
    if not columns or len(numbers) % columns:
        raise UsageError(f"{file}: {len(numbers)} numbers; expected rows of {columns}")
    return numbers.reshape(-1, columns)
