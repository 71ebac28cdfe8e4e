"""Tiny checkpoints of every task, opened for serving, and streams of random tokens."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert.model.bert import BertForQuestionAnswering, BertForSequenceClassification, BertModel
from bert.model.config import BertConfig
from bert.ragged import offsets_of
from bert.serve.tasks import Served, ServedConfig, open_checkpoint
from bert.tokenization import BertTokenizer

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.1,  # as trained; serving must not drop anything
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 64,
}
LENGTHS = [[17], [9, 9, 9, 9], [3, 64], [5, 31, 2, 64, 8, 1, 12], [1], [1, 1, 1, 1]]
MODELS = {"qa": BertForQuestionAnswering, "classify": BertForSequenceClassification, "embed": BertModel}


def save_model(
    path: Path, vocab_file: Path, task: str, labels: int = 3, state: dict[str, Any] | None = None, **shape: Any
) -> Path:
    """Write a checkpoint with large random weights and biases; ``state`` is added to it."""
    tokenizer = BertTokenizer(vocab_file)
    config = BertConfig(vocab_size=tokenizer.vocab_size, **{**SHAPE, **shape})
    torch.manual_seed(0)
    model = MODELS[task](config, labels) if task == "classify" else MODELS[task](config)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2)
    kept = {"model_config": config.to_dict(), "tokenizer": tokenizer.state_dict()}
    torch.save({"model": model.state_dict(), **kept, **(state or {})}, path)
    return path


def open_saved(path: Path, task: str, pooling: str = "mean") -> Served:
    return open_checkpoint(ServedConfig(str(path), task, pooling=pooling, max_seq_length=64, max_query_length=16))


@pytest.fixture
def write_model(tmp_path: Path, vocab_file: Path):
    """Return a function (task, labels, state, **shape) -> path of a checkpoint."""
    return lambda task, **changes: save_model(tmp_path / f"{task}.bin", vocab_file, task, **changes)


@pytest.fixture
def open_model(write_model):
    """Return a function (task, pooling, **shape) -> a tiny model, opened for serving."""
    return lambda task, pooling="mean", **changes: open_saved(write_model(task, **changes), task, pooling)


def stream_of(lengths: list[int], pieces: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random ids [T] and types [T], and the offsets [S + 1]."""
    draw, offsets = np.random.default_rng(seed), offsets_of(lengths)
    ids = draw.integers(0, pieces, offsets[-1]).astype(np.int32)
    return ids, draw.integers(0, 2, offsets[-1]).astype(np.int32), offsets


def eager(served: Served, ids: np.ndarray, types: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Call the model as it was trained, on padded tables with a mask: its outputs end to end.

    Nothing of ``bert.serve`` but the weights: the check is of the stream against the padded call.
    """
    model, rows = served.model, []
    for begin, end in pairwise(offsets.tolist()):
        table = np.zeros((3, 1, end - begin + 3), np.int64)  # three columns of padding
        table[:, 0, : end - begin] = ids[begin:end], types[begin:end], np.ones(end - begin)
        with torch.inference_mode():
            layers, pooled = model.bert(*map(torch.from_numpy, table))
            hidden = layers[-1][0, : end - begin]
            if served.task == "qa":
                outputs = [model.qa_outputs(hidden)[:, 0], model.qa_outputs(hidden)[:, 1]]
            elif served.task == "classify":
                outputs = [model.classifier(pooled)]
            else:
                vector = hidden.mean(0) if model.pooling == "mean" else hidden[0]
                outputs = [(vector / vector.norm())[None]]
        rows.append([output.numpy() for output in outputs])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
