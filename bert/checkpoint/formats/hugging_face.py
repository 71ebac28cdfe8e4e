"""Hugging Face's folders: ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, and the tokenizer's files.

A folder written here opens with ``AutoModel.from_pretrained`` and ``AutoTokenizer.from_pretrained``. Old
``pytorch_model.bin`` files are read without running code from them. safetensors has no checksums: a wrong header and a
truncated file are detected, a flipped bit in a tensor is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bert.checkpoint import shorten
from bert.checkpoint.formats.torch_file import read as read_torch_file
from bert.checkpoint.formats.weights import Weights, heads_in
from bert.config import load_json
from bert.errors import UsageError, naming_os_errors
from bert.files import new_folder
from bert.model.config import VOCAB_MULTIPLE
from bert.tokenization import write_tokenizer
from bert.tokenization.files import read_files
from bert.tokenization.opening import build_tokenizer

INDEX = ".index.json"  # after the name of a file that is in several shards
WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.safetensors|\.bin)")
CONFIGS = ("config.json", "bert_config.json")
# Names of activations: ours -> theirs, and theirs -> ours, where they differ.
ACTIVATIONS = {"gelu_tanh": "gelu_new"}
READ_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "silu": "swish"}
# Class of transformers -> heads; the first class whose heads the model has is written.
ARCHITECTURES = [
    ("BertForPreTraining", {"cls.predictions", "cls.seq_relationship"}),
    ("BertForMaskedLM", {"cls.predictions"}),
    ("BertForNextSentencePrediction", {"cls.seq_relationship"}),
    ("BertForQuestionAnswering", {"qa_outputs"}),
    ("BertForSequenceClassification", {"classifier"}),
    ("BertModel", set()),
]


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is a folder with weights, a file of safetensors, or an index or a shard of weights."""
    return path.suffix == ".safetensors" or _index_of(path) is not None or _first_file(path, WEIGHTS) is not None


def read(path: Path) -> dict[str, Any]:
    """Read the weights and the files beside them."""
    folder = path if path.is_dir() else path.parent
    file = path if path.is_file() else _first_file(folder, WEIGHTS) or path
    index = _index_of(file)
    return {**read_neighbours(folder), **(_read_shards(index) if index else _read_file(file))}


def write(path: Path, weights: Weights) -> list[str]:
    """Write a folder for transformers."""
    tensors = {name: tensor.contiguous() for name, tensor in weights.unpadded().items()}
    with new_folder(path) as folder:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        _write_json(folder / "config.json", config_for_transformers(weights))
        if weights.tokenizer is not None:
            write_tokenizer(folder, weights.tokenizer, weights.config.max_position_embeddings)
    return []


def read_neighbours(folder: Path) -> dict[str, Any]:
    """Read model configuration and tokenizer from the usual files beside weights, if they exist."""
    found: dict[str, Any] = {}
    config = _first_file(folder, CONFIGS)
    if config is not None:
        found["model_config"] = read_config(config)
    try:
        held = read_files(folder)
        if held is not None:
            names = folder.absolute().parts[-2:]
            tokenizer = build_tokenizer({"source": names[-1], **held}, str(folder), names=names)
            found["tokenizer"] = tokenizer.state_dict()
            if tokenizer.added_tokens is not None:
                _add_unused_ids(found, tokenizer.vocab_size)
    except UsageError as error:
        found["tokenizer_refused"] = str(error)  # the weights may be used with --vocab_file
    return found


def _add_unused_ids(found: dict[str, Any], size: int) -> None:
    """Give the vocabulary the ids that only the embedding table of transformers has, where it has more than padding."""
    rows = found.get("model_config", {}).get("vocab_size")
    if isinstance(rows, int) and rows - size >= VOCAB_MULTIPLE:
        pieces = found["tokenizer"]["vocab"]
        pieces += [None] * (rows - len(pieces))


def read_config(path: Path) -> dict[str, Any]:
    """Read a model configuration; raises UsageError if the model is not a BERT."""
    values = load_json(path, "the model's configuration")
    expected = {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False}
    for key, value in expected.items():
        if values.get(key, value) != value:
            raise UsageError(f"{path}: {key} {values[key]}; expected {value}")
    act = values.get("hidden_act")
    return {**values, "hidden_act": READ_ACTIVATIONS.get(act, act)} if isinstance(act, str) else values


def config_for_transformers(weights: Weights) -> dict[str, Any]:
    """Return the ``config.json`` with which transformers builds the same model."""
    config, heads = weights.config, set(heads_in(weights.tensors))
    values = config.to_dict()
    values["hidden_act"] = ACTIVATIONS.get(config.hidden_act, config.hidden_act)
    values["model_type"] = "bert"
    values["architectures"] = [next(name for name, needed in ARCHITECTURES if needed <= heads)]
    if weights.tokenizer is not None:
        values["pad_token_id"] = weights.tokenizer.pad_id
    if "classifier" in heads:
        count = len(weights.tensors["classifier.weight"])
        labels = weights.facts.get("labels") or []
        names = labels if len(labels) == count else [f"LABEL_{i}" for i in range(count)]
        values["id2label"] = {str(i): name for i, name in enumerate(names)}
        values["label2id"] = {name: i for i, name in enumerate(names)}
    return values


def _index_of(path: Path) -> Path | None:
    """Return the index if ``path`` is one, or is a shard that has one."""
    shard = SHARD.fullmatch(path.name)
    index = path.with_name(f"{shard[1]}{shard[2]}{INDEX}") if shard else path
    return index if index.name.endswith(INDEX) and index.is_file() else None


def _read_shards(index: Path) -> dict[str, Any]:
    """Read all the weights that an index names.

    Raises UsageError where it is damaged or leads out of its folder, and where a shard or a tensor is missing.
    """
    places = load_json(index, "the index of the weights").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UsageError(f"{index}: expected a weight_map from the names of tensors to files")
    model: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise UsageError(f"{index}: names the file {name!r}, expected one such as model-00001-of-00002.safetensors")
        if not index.with_name(name).is_file():
            raise UsageError(f"{index}: {name} is missing")
        tensors = _read_file(index.with_name(name))["model"]
        expected = [tensor for tensor, file in places.items() if file == name]
        if missing := [tensor for tensor in expected if tensor not in tensors]:
            raise UsageError(f"{index.with_name(name)}: {shorten(missing)}: missing, {index.name} says it is there")
        model |= {tensor: tensors[tensor] for tensor in expected}
    return {"model": model}


def _read_file(path: Path) -> dict[str, Any]:
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    with naming_os_errors(str(path)):
        try:
            return {"model": load_file(path)}
        except (SafetensorError, ValueError, KeyError) as error:
            raise UsageError(f"{path}: damaged, or not a file of safetensors ({error})") from error


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf8")
