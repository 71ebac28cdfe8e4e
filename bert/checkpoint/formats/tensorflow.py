"""Checkpoints of Google's scripts: a path such as ``bert_model.ckpt``, which stands for an index and a data file.

The ``bert_config.json`` and ``vocab.txt`` of the published archives are used if they are in the same folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bert.checkpoint.formats.hugging_face import read_neighbours
from bert.checkpoint.formats.names import TENSORFLOW, export_arrays, import_arrays
from bert.checkpoint.formats.tf_bundle import DTYPES, Bundle, write_bundle
from bert.checkpoint.formats.weights import Weights
from bert.errors import UsageError

POINTER = "checkpoint"  # the file in which TensorFlow records the newest checkpoint of a folder
PARTS = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})")  # suffixes of a checkpoint's files


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is the prefix, a file or the folder of such a checkpoint."""
    return _prefix(path) is not None


def read(path: Path) -> dict[str, Any]:
    """Read the weights and the files beside them; counters and an optimizer's slots are skipped."""
    prefix = _prefix(path) or path
    bundle = Bundle(prefix)
    arrays = [name for name, entry in bundle.entries.items() if entry.shape and entry.dtype in DTYPES]
    state = import_arrays(TENSORFLOW, arrays, bundle.read, str(path))
    state["skipped"] += sorted(bundle.entries.keys() - set(arrays))
    return {**state, **read_neighbours(prefix.parent)}


def write(path: Path, weights: Weights) -> list[str]:
    """Write index and data; returns the names of tensors that the format cannot hold."""
    if Path(f"{path}.index").exists():
        raise UsageError(f"--output {path}: {path.name}.index exists; expected a new name")
    arrays, left_out = export_arrays(TENSORFLOW, weights.unpadded())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(path, arrays)
    return left_out


def find_prefixes(folder: Path) -> list[Path]:
    """Return the prefixes of all checkpoints in a folder."""
    return sorted(path.with_suffix("") for path in folder.glob("*.index"))


def _prefix(path: Path) -> Path | None:
    """Return the prefix that ``path`` stands for, None if it is not one of TensorFlow's."""
    if Path(f"{path}.index").is_file():
        return path
    if PARTS.fullmatch(path.suffix):
        return path.with_suffix("")
    if path.name == POINTER and path.is_file():
        return _in_folder(path.parent)
    return _in_folder(path)


def _in_folder(folder: Path) -> Path | None:
    """Return the prefix of a folder's checkpoint: the one recorded as the newest, or the only one.

    What is recorded may be a path on another machine: a checkpoint of that name in the folder comes first.
    """
    found = find_prefixes(folder)
    if (folder / POINTER).is_file():
        text = (folder / POINTER).read_text(encoding="utf8", errors="replace")
        recorded = re.search(r'^model_checkpoint_path: "(.+)"', text, re.MULTILINE)
        for prefix in (folder / Path(recorded[1]).name, folder / recorded[1]) if recorded else ():
            if Path(f"{prefix}.index").is_file():
                return prefix
    return found[0] if len(found) == 1 else None
