"""Open a base, its tasks and adapter files to be served together, and write them for :mod:`bert.serve.multitask`.

The reference of the parity gate is each task as it was trained: the checkpoint's in the checkpoint's model, those of an
adapter file in a model of their own, in which the file's LayerNorms take the places of the base's.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bert.batch import TaskGroup, TokenStream
from bert.checkpoint import match_weights
from bert.checkpoint.adapter_files import identify, read_adapter
from bert.checkpoint.open_model import StartingPoint, load_start
from bert.errors import UsageError, naming_os_errors
from bert.model.bert import BertForMultiTask, BertForSequenceClassification
from bert.model.names import canonical_names
from bert.model.objective import encode
from bert.model.skeleton import skeleton
from bert.serve.adapter_folder import SUFFIX
from bert.serve.engine import SETTINGS
from bert.serve.multitask import ADAPTERS, OF_TASKS, TORCH, label_names
from bert.serve.tasks import Served, ServedConfig, ServedModel

FILE = "model.safetensors"


class Trained(NamedTuple):
    """A task in the model that it was trained in."""

    model: BertForMultiTask | BertForSequenceClassification
    head: nn.Linear
    number: int


class MultiTask(ServedModel):
    """The models of all tasks, which share the tensors that they have in common."""

    outputs, per_token = 1, False
    tasks: dict[str, Trained]

    def __init__(self, base: BertForMultiTask, described: list[dict[str, Any]], files: list[Path]) -> None:
        super().__init__()
        self.base, self.bert, self.described, self.files = base, base.bert, described, files
        heads: Any = base.classifier
        self.tasks = {each["name"]: Trained(base, heads[number], number) for number, each in enumerate(described)}

    def predict(self, batch: TokenStream, task: str = "") -> tuple[Tensor, ...]:
        """Logits [S, most labels of a task] of a stream that is all of one task; those beyond its own are 0."""
        model, head, number = self.tasks[task]
        model.bert.attention = self.bert.attention
        group = TaskGroup(number, (0, batch.num_sequences), (0, batch.num_tokens))
        logits = head(encode(model.bert, replace(batch, groups=(group,)))[1]).float()
        width = max(each.head.out_features for each in self.tasks.values())
        return (F.pad(logits, (0, width - logits.shape[1])),)


def open_multitask(config: ServedConfig) -> Served:
    """Read --checkpoint and --adapters; raises UsageError for an adapter file that does not fit, too."""
    start = load_start(config.files, config.checkpoint, config.max_seq_length)
    state, what = start.state or {}, f"--checkpoint {config.checkpoint}"
    tensors = canonical_names(state.get("model", state), bare=False, what=what)
    described = describe_tasks(state, tensors, what)
    if not described:  # the head of another task stays behind, but an adapter would have to go along
        if any(name.startswith(OF_TASKS[0]) for name in tensors):
            raise UsageError(f"{what}: has the adapter of one task; expected its base, and the adapter in --adapters")
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(OF_TASKS)}
    with skeleton():
        base = BertForMultiTask(start.model_config, [_rows(tensors, number) for number in range(len(described))])
    model = MultiTask(fill(base, tensors, what), described, adapter_files(config.adapters))
    for path in model.files:
        for name, task in open_adapter(path, start, base).items():
            if name in model.tasks:
                raise UsageError(f"--adapters {path}: there is a task {name} already")
            model.tasks[name] = task
    return Served(config.task, model, start, {"task": config.task, "max_seq_length": config.max_seq_length})


def describe_tasks(state: dict[str, Any], tensors: Mapping[str, Tensor], what: str) -> list[dict[str, Any]]:
    """Return the name and labels of each task that a checkpoint was trained on; none of a base."""
    count = sum(name.startswith("classifier.") and name.endswith(".weight") for name in tensors)
    if "classifier.weight" in tensors or not count:
        return []
    held = state.get("tasks") or [{"name": f"task_{number}", "labels": []} for number in range(count)]
    if len(held) != count:
        raise UsageError(f"{what}: {len(held)} tasks, but classifiers of {count}")
    rows = [_rows(tensors, number) for number in range(count)]
    return [
        {"name": each["name"], "labels": label_names(each["labels"], n)} for each, n in zip(held, rows, strict=True)
    ]


def _rows(tensors: Mapping[str, Tensor], number: int) -> int:
    return len(tensors[f"classifier.{number}.weight"])


def fill(model: Any, tensors: dict[str, Tensor], what: str) -> Any:
    """Put tensors into ``model`` as they are, so that models share them. Raises UsageError where one is missing."""
    fitted, _ = match_weights(model, tensors, what)
    model.load_state_dict({name: tensor.float() for name, tensor in fitted.items()}, assign=True)
    return model.eval().requires_grad_(False)


def adapter_files(folder: str | None) -> list[Path]:
    """Return the files of --adapters by name."""
    if folder is None:
        return []
    with naming_os_errors(f"--adapters {folder}"):
        files = sorted(path for path in Path(folder).iterdir() if path.suffix == SUFFIX)
    if not files:
        raise UsageError(f"--adapters {folder}: holds no file *{SUFFIX}")
    return files


def open_adapter(path: Path, start: StartingPoint, base: BertForMultiTask) -> dict[str, Trained]:
    """Return the tasks of an adapter file in a model of their own, which has the base's other tensors."""
    file = read_adapter(path, "--adapters")
    config, shared = copy.deepcopy(start.model_config), _shared(base)
    held = {"model": shared, "tokenizer": start.tokenizer.state_dict()}
    tensors = file.applied_to(held, config, start.what)["model"]
    if "tasks" not in file.facts:
        with skeleton():
            model = BertForSequenceClassification(config, len(tensors["classifier.bias"]))
        fill(model, tensors, file.what)
        return {path.stem: Trained(model, model.classifier, 0)}
    names = [each["name"] for each in file.facts["tasks"]]
    with skeleton():
        several = BertForMultiTask(config, [_rows(tensors, number) for number in range(len(names))])
    heads: Any = fill(several, tensors, file.what).classifier
    return {name: Trained(several, heads[number], number) for number, name in enumerate(names)}


def _shared(base: BertForMultiTask) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in base.state_dict().items() if not name.startswith(OF_TASKS)}


def write_multitask(served: Served, precision: str, folder: Path, batch_tokens: int) -> None:
    """Write the model and its settings into ``folder``, and the adapter files beside it."""
    model: Any = served.model
    config, tokenizer = served.start.model_config, served.start.tokenizer
    tensors = {name: tensor.clone() for name, tensor in model.base.state_dict().items()}
    save_file(tensors, folder / FILE)
    settings = {
        "format": TORCH,
        "precision": precision,
        "file": FILE,
        "task": served.task,
        "per_token": model.per_token,
        "outputs": model.outputs,
        "vocab_size": config.vocab_size,
        "type_vocab_size": config.type_vocab_size,
        "max_positions": config.max_position_embeddings,
        "batch_tokens": batch_tokens,
        "model_config": config.to_dict(),
        "base": identify(_shared(model.base), config, served.start.what)._asdict(),
        "tokenizer": tokenizer.identity,
        "tasks": model.described,
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf8")
    (folder.parent / ADAPTERS).mkdir(exist_ok=True)
    for path in model.files:
        shutil.copyfile(path, folder.parent / ADAPTERS / path.name)
