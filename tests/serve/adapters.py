"""A tiny base, a checkpoint of several tasks and adapter files of every kind, with random weights.

base = save_base(folder / "base.bin", vocab_file)
trained = save_adapter_file(folder / "rte.safetensors", base, "pals", ["yes", "no"])
logits_of(trained, ids, types)                      # [1, 2]
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from serve.conftest import SHAPE  # pyright: ignore[reportMissingImports]

from bert.checkpoint.adapter_files import identify, save_adapter
from bert.finetune.adapters import is_trained
from bert.model.adapters.config import build_adapter_config
from bert.model.bert import BertForMultiTask, BertForSequenceClassification, BertModel
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer


def draw(model: Any, seed: int, chosen=lambda name: True) -> None:
    """Give the chosen parameters large random values."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if chosen(name):
                parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2)


def config_of(kind: str, vocab_file: Path, **shape: Any) -> BertConfig:
    config = BertConfig(vocab_size=BertTokenizer(vocab_file).vocab_size, **{**SHAPE, **shape})
    keys = build_adapter_config(kind, config.hidden_size, size=12, heads=4).keys()
    vars(config).update(keys)
    return config


def save_base(path: Path, vocab_file: Path, seed: int = 0, **shape: Any) -> dict[str, Any]:
    """Write a plain BERT and return its checkpoint."""
    config = config_of("none", vocab_file, **shape)
    model = BertModel(config)
    draw(model, seed)
    tensors = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    tokenizer = BertTokenizer(vocab_file).state_dict()
    state = {"model": tensors, "model_config": config.to_dict(), "tokenizer": tokenizer}
    torch.save(state, path)
    return {**state, "vocab_file": vocab_file, "shape": shape}


def save_adapter_file(path: Path, base: dict[str, Any], kind: str, labels: list[str], seed: int = 1) -> Any:
    """Write the adapter of one task, as ``--freeze`` leaves it, and return the model that it was trained in."""
    config = config_of(kind, base["vocab_file"], **base["shape"])
    model = BertForSequenceClassification(config, max(len(labels), 1))
    model.load_state_dict(base["model"], strict=False)
    draw(model, seed, is_trained)
    trained = {name: tensor for name, tensor in model.named_parameters() if is_trained(name)}
    identity = identify(base["model"], BertConfig.from_dict(base["model_config"]), "base.bin")
    save_adapter(path, trained, identity, config, {"tokenizer": base["tokenizer"], "labels": labels})
    return model.eval()


TASKS = [("CoLA", ["bad", "good"]), ("MNLI", ["a", "b", "c"]), ("STS-B", [])]


def save_multitask(path: Path, vocab_file: Path, kind: str = "pals", named: bool = True) -> BertForMultiTask:
    """Write a checkpoint of three tasks, as run_multi_task.py leaves it, and return its model."""
    config = config_of(kind, vocab_file)
    model = BertForMultiTask(config, [max(len(labels), 1) for _, labels in TASKS])
    draw(model, 2)
    state = {
        "model": model.state_dict(),
        "model_config": config.to_dict(),
        "tokenizer": BertTokenizer(vocab_file).state_dict(),
        "tasks": [{"name": name, "labels": labels} for name, labels in TASKS],
    }
    if not named:
        del state["tasks"]
    torch.save(state, path)
    return model.eval()


def logits_of(model: Any, ids: np.ndarray, types: np.ndarray, *task: int) -> np.ndarray:
    """Call a trained model on one padded sequence."""
    table = np.zeros((3, 1, len(ids) + 3), np.int64)
    table[:, 0, : len(ids)] = ids, types, np.ones(len(ids))
    with torch.inference_mode():
        return model(*map(torch.from_numpy, table), *task).numpy()[0]
