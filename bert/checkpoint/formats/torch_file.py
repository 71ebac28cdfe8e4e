"""Files of ``torch.save``: this suite's, NVIDIA's, those of the 2018 ports and of PALs. One reader, four writers.

Reading runs no code from the file and verifies its checksums.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert.checkpoint import find_damage, load
from bert.checkpoint.formats.weights import WORDS, Weights, heads_in
from bert.errors import UsageError
from bert.files import replacing
from bert.model.adapters.names import published_of
from bert.model.names import DECODER, NVIDIA, PORTS_2018, older_name


def read(path: Path) -> dict[str, Any]:
    """Read ``{"model": state dict, ...}``, or a bare state dict as its "model"."""
    state = load(path)
    damage = find_damage(path) if zipfile.is_zipfile(path) else None
    if damage:
        raise UsageError(f"{path} {damage}")
    if not isinstance(state.get("model"), dict):
        return {"model": state}
    slots = (state.get("optimizer") or {}).get("state") or {}
    return {**state, "skipped": [f"optimizer.{index}.{name}" for index, slot in slots.items() for name in slot]}


def write_native(path: Path, weights: Weights) -> list[str]:
    """Write a file that every command here takes as --init_checkpoint, without further files."""
    _save(path, {"model": _tied(weights), **_constants(weights)})
    return []


def write_nvidia(path: Path, weights: Weights) -> list[str]:
    """Write NVIDIA's ``{"model": state dict}``; its scripts ignore the other entries."""
    model = {older_name(name, NVIDIA): tensor for name, tensor in _tied(weights).items()}
    _save(path, {"model": model, **_constants(weights)})
    return []


def write_2018(path: Path, weights: Weights) -> list[str]:
    """Write only the encoder's state dict, without prefix; returns the names of the other tensors."""
    encoder = {name: tensor for name, tensor in weights.unpadded().items() if name.startswith("bert.")}
    _save(path, {older_name(name.removeprefix("bert."), PORTS_2018): tensor for name, tensor in encoder.items()})
    return [name for name in weights.tensors if name not in encoder]


def write_pals(path: Path, weights: Weights) -> list[str]:
    """Write the state dict of a model of many tasks, as the code of BERT and PALs saves it."""
    adapter = weights.config.adapter
    single = re.compile(r"^classifier\.(?=[a-z])")
    tensors = {single.sub("classifier.0.", name): tensor for name, tensor in weights.unpadded().items()}
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(("bert.", "classifier."))}
    named = published_of(kept, adapter.kind if adapter else "none", weights.config.num_hidden_layers)
    _save(path, {older_name(name, PORTS_2018): tensor for name, tensor in named.items()})
    return [name for name in tensors if name not in kept]


def _tied(weights: Weights) -> dict[str, Tensor]:
    """Return the tensors with the tied decoder, as the model's state dict has them."""
    decoder = {DECODER: weights.tensors[WORDS]} if "cls.predictions" in heads_in(weights.tensors) else {}
    return {**weights.tensors, **decoder}


def _constants(weights: Weights) -> dict[str, Any]:
    tokenizer = {} if weights.tokenizer is None else {"tokenizer": weights.tokenizer.state_dict()}
    return {"model_config": weights.config.to_dict(), **tokenizer, **weights.facts}


def _save(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)  # not to a path: its name would be among the bytes
