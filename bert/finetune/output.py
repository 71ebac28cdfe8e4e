"""The files of a fine-tuning run: results, and the model as ``pytorch_model.bin``, ``config.json`` and a tokenizer.

``pytorch_model.bin`` is ``{"model": state dict, ...}`` as NVIDIA's scripts write it, with configuration and tokenizer
beside the weights, so that --init_checkpoint needs no other file. Each file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bert.checkpoint import copy_state
from bert.checkpoint.adapter_files import ADAPTER_FILE, save_adapter
from bert.checkpoint.open_model import StartingPoint
from bert.errors import naming_os_errors
from bert.files import replacing
from bert.log.logger import plain
from bert.tokenization import write_tokenizer


def save_model(output_dir: str | Path, model: nn.Module, start: StartingPoint, **more: Any) -> Path:
    """Write the three files and return the model's; ``more`` are plain values to keep with it.

    If the base was frozen, what was trained is written alone, too, to ``adapter.safetensors``.
    """
    folder = Path(output_dir)
    trained = {name: tensor for name, tensor in model.state_dict().items() if name not in start.random}
    state = copy_state({"model": trained, **start.constants(), **more})
    config = json.dumps(start.model_config.to_dict(), indent=2, sort_keys=True)
    with naming_os_errors(f"--output_dir {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "pytorch_model.bin") as temporary, temporary.open("wb") as file:
            torch.save(state, file)  # not to a path, whose name would be among the bytes
        if start.base is not None:
            changed = {name: each for name, each in model.named_parameters() if each.requires_grad}
            facts = {"tokenizer": start.tokenizer.state_dict(), **more}
            save_adapter(folder / ADAPTER_FILE, changed, start.base, start.model_config, facts)
        write_tokenizer(folder, start.tokenizer, start.model_config.max_position_embeddings)
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(f"{config}\n", encoding="utf8")
    return folder / "pytorch_model.bin"


def write_eval_results(folder: str | Path, results: Mapping[str, Any]) -> None:
    """Write eval_results.txt: ``key = value`` lines, sorted by key."""
    write_lines(folder, "eval_results.txt", [f"{key} = {plain(results[key])}" for key in sorted(results)])


def write_lines(folder: str | Path, name: str, lines: Iterable[str]) -> None:
    """Write a text file in UTF-8, its folder too if needed; raises UsageError, naming the file, where that fails."""
    path = Path(folder) / name
    with naming_os_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", encoding="utf8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
