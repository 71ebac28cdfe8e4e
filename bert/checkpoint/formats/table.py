"""The formats of checkpoints, a table, and reading and writing any of them.

state = read_checkpoint("uncased_L-12_H-768_A-12/bert_model.ckpt")      # {"model": ..., "model_config": ..., ...}
write_checkpoint("made", "hf", weights)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bert.checkpoint import shorten
from bert.checkpoint.formats import hugging_face, oneflow, tensorflow, torch_file
from bert.checkpoint.formats.weights import Weights
from bert.errors import UsageError, naming_os_errors


class CheckpointFormat(NamedTuple):
    recognise: Callable[[Path], bool]
    read: Callable[[Path], dict[str, Any]]
    write: Callable[[Path, Weights], list[str]]  # returns the names of tensors that the format cannot hold


# If several formats recognise a path, the first one reads it.
FORMATS: dict[str, CheckpointFormat] = {
    "tf": CheckpointFormat(tensorflow.recognise, tensorflow.read, tensorflow.write),
    "oneflow": CheckpointFormat(oneflow.recognise, oneflow.read, oneflow.write),
    "hf": CheckpointFormat(hugging_face.recognise, hugging_face.read, hugging_face.write),
    "native": CheckpointFormat(Path.is_file, torch_file.read, torch_file.write_native),
    "nvidia": CheckpointFormat(Path.is_file, torch_file.read, torch_file.write_nvidia),
    "2018": CheckpointFormat(Path.is_file, torch_file.read, torch_file.write_2018),
    "pals": CheckpointFormat(Path.is_file, torch_file.read, torch_file.write_pals),
}
HOLD_ADAPTERS = ("native", "pals")
OF_TASKS = ("bert.adapters.", "classifier.0.")


def recognise(path: str | Path) -> str:
    """Return the name of the format that ``path`` is in; raises UsageError if it is in none."""
    for name, found in FORMATS.items():
        if found.recognise(Path(path)):
            return name
    if Path(path).is_dir():
        if several := [prefix.name for prefix in tensorflow.find_prefixes(Path(path))]:
            raise UsageError(
                f"{path}: {len(several)} checkpoints of TensorFlow, expected the path of one: {shorten(several)}"
            )
        raise UsageError(
            f"{path}: a folder without a checkpoint; expected model.safetensors or pytorch_model.bin, *.index, or */out"
        )
    raise UsageError(f"{path}: No such file or directory, nor {path}.index")


def read_checkpoint(path: str | Path, format: str | None = None) -> dict[str, Any]:
    """Read a checkpoint of any format, by default the one that ``path`` is in.

    Returns "model", a state dict in any of the spellings that :func:`bert.checkpoint.load_weights` knows, and, if the
    checkpoint has them, "model_config", "tokenizer" and "skipped", the names of what is not weights; for this suite's
    own checkpoints everything. Raises UsageError that names the file.
    """
    if format is None or not FORMATS[format].recognise(Path(path)):
        found = recognise(path)
        if format is not None:
            raise UsageError(f"{path}: expected a checkpoint in the format {format}, this looks like {found}")
        format = found
    try:
        return FORMATS[format].read(Path(path))
    except OSError as error:
        raise UsageError(f"{error.filename or path}: {error.strerror or error}") from error


def write_checkpoint(path: str | Path, format: str, weights: Weights) -> list[str]:
    """Write ``weights`` whole or not at all; returns the names of tensors that ``format`` cannot hold."""
    if format not in HOLD_ADAPTERS and any(name.startswith(OF_TASKS) for name in weights.tensors):
        raise UsageError(f"--to {format}: cannot hold adapters or several tasks, expected {' or '.join(HOLD_ADAPTERS)}")
    with naming_os_errors(f"--output {path}"):
        return FORMATS[format].write(Path(path), weights)
