"""Adapter checkpoints: what ``--freeze`` trains, without the base it was trained on; a few MB instead of the model.

A file of safetensors (adapters, heads, LayerNorms, under the model's names) whose metadata holds one JSON object: the
base and the sha256 of its encoder, the adapter's configuration, the tasks. One goes with its base into any command;
many go on one base as a model of many tasks::

    file = read_adapter("results/MRPC/adapter.safetensors")
    state = file.applied_to(read_checkpoint("bert.pt"), config, "--init_checkpoint bert.pt")   # a complete checkpoint
    model = assemble(encoder, config, [*rte.tasks(config), *mrpc.tasks(config)])               # BertForMultiTask
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.model.adapters.config import SWITCHES, AdapterConfig
from bert.model.bert import BertForMultiTask
from bert.model.config import BertConfig
from bert.model.names import VOCABULARY_ROWS, canonical_names
from bert.model.skeleton import skeleton
from bert.tokenization import BertTokenizer, expect_same

ADAPTER_FILE = "adapter.safetensors"
METADATA = "bert_adapter"
FORMAT_VERSION = 1
BASE = ("bert.embeddings.", "bert.encoder.", "bert.pooler.")
ADAPTER_KEYS = (*sorted(SWITCHES), "hidden_size_aug", "extra_dim", "num_adapter_heads")
CLASSIFIER = re.compile(r"classifier\.((?P<task>\d+)\.)?(?P<part>weight|bias)")


class Base(NamedTuple):
    """The model that adapters were trained on."""

    name: str  # as the user called it
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]})"


def identify(state_dict: dict[str, Any], config: BertConfig, name: str) -> Base:
    """Return the identity of an encoder, which is the same in every format; heads do not count."""
    tensors = canonical_names(state_dict, bare=False, what=name)
    digest = hashlib.sha256()
    for key in sorted(key for key in tensors if key.startswith(BASE)):
        rows = config.vocab_size if key.endswith(VOCABULARY_ROWS) else None
        digest.update(key.encode())
        digest.update(tensors[key][:rows].contiguous().float().numpy().tobytes())
    return Base(name, digest.hexdigest())


class TaskWeights(NamedTuple):
    """The part of a task: its adapter, LayerNorms and head."""

    name: str
    labels: list[str]  # none for a regression
    adapter: AdapterConfig
    tensors: dict[str, Tensor]  # names without the task's number: adapter.*, norms.weight, classifier.bias
    facts: dict[str, Any]

    @property
    def num_labels(self) -> int:
        return len(self.tensors["classifier.bias"])


@dataclass(frozen=True)
class AdapterFile:
    """An adapter checkpoint in memory."""

    what: str  # flag and file, for messages
    tensors: dict[str, Tensor]
    base: Base
    adapter: dict[str, Any]  # keys of a model configuration
    tokenizer: dict[str, Any]
    facts: dict[str, Any]  # "task" and "labels" of a single task, or "tasks"

    def check_base(self, state_dict: dict[str, Any], config: BertConfig, what: str) -> None:
        """Raise UsageError unless ``state_dict`` is the base that the adapters were trained on."""
        found = identify(state_dict, config, what)
        if found.sha256 != self.base.sha256:
            raise UsageError(f"{self.what}: made for {self.base}, but {found} is another base")

    def configure(self, config: BertConfig) -> None:
        """Make ``config`` ask for the adapters."""
        for key in ADAPTER_KEYS:
            vars(config).pop(key, None)
        vars(config).update(self.adapter)

    def applied_to(self, state: dict[str, Any], config: BertConfig, what: str) -> dict[str, Any]:
        """Return the checkpoint ``state`` of the base with the adapters in it, and make ``config`` ask for them."""
        model = state.get("model", state)
        self.check_base(model, config, what)
        if "tokenizer" in state:
            ours, theirs = map(BertTokenizer.from_state_dict, (self.tokenizer, state["tokenizer"]))
            expect_same(ours, self.what, theirs.identity, what)
        self.configure(config)
        merged = {**canonical_names(model, bare=False, what=what), **self.tensors}
        values = {"model": merged, "model_config": config.to_dict(), "base": self.base._asdict()}
        return {**state, **self.facts, **values}

    def tasks(self, config: BertConfig) -> list[TaskWeights]:
        """Return the tasks, which have LayerNorms of their own; ``config`` is the base's."""
        config = dataclasses.replace(config)
        self.configure(config)
        kind = config.adapter or AdapterConfig("none")
        adapter = dataclasses.replace(kind, own_norms=True)
        shared = {"norms.weight": self._norms(config, "weight"), "norms.bias": self._norms(config, "bias")}
        return tasks_of(self.what, self.tensors, self.facts, adapter, shared)

    def _norms(self, config: BertConfig, part: str) -> Tensor:
        halves = ("attention.output", "output")
        layers = range(config.num_hidden_layers)
        names = ["bert.embeddings", *(f"bert.encoder.layer.{layer}.{half}" for layer in layers for half in halves)]
        return torch.stack([self.tensors[f"{name}.LayerNorm.{part}"] for name in names])


def tasks_of(
    what: str,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
    adapter: AdapterConfig,
    shared: dict[str, Tensor] | None = None,
) -> list[TaskWeights]:
    """Return the tasks among ``tensors`` (names of the model); ``shared`` is added to each.

    ``facts`` has "task" and "labels", or "tasks", a list of {"name", "labels"}. Raises UsageError, which begins with
    ``what``, where a task has no classifier.
    """
    single = {"name": facts.get("task", ""), "labels": facts.get("labels", [])}
    heads = [(match, name) for name in tensors if (match := CLASSIFIER.fullmatch(name))]
    found = []
    for number, each in enumerate(facts.get("tasks", [single])):
        prefix = f"bert.adapters.{number}."
        own = {f"adapter.{n.removeprefix(prefix)}": tensor for n, tensor in tensors.items() if n.startswith(prefix)}
        head = {f"classifier.{m['part']}": tensors[name] for m, name in heads if int(m["task"] or 0) == number}
        if not head:
            raise UsageError(f"{what}: has no classifier for the task {each['name']!r}")
        found.append(TaskWeights(each["name"], each["labels"], adapter, {**own, **(shared or {}), **head}, facts))
    return found


def save_adapter(
    path: Path, tensors: Mapping[str, Tensor], base: Base, config: BertConfig, facts: dict[str, Any]
) -> None:
    """Write ``tensors``, those that were trained; ``facts`` are plain values, the tokenizer among them."""
    values = {
        "format_version": FORMAT_VERSION,
        "base": base._asdict(),
        "adapter": {key: value for key, value in config.to_dict().items() if key in ADAPTER_KEYS},
        **facts,
    }
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(held, metadata={METADATA: json.dumps(values)}))


def read_adapter(path: str | Path, flag: str = "--adapter_checkpoint") -> AdapterFile:
    """Read an adapter checkpoint. Raises UsageError for a file that is missing, damaged or something else."""
    what = f"{flag} {path}"
    with naming_os_errors(what):
        held = Path(path).read_bytes()  # not mapped: if the file were cut off, a server that has it would end
    try:
        tensors = load(held)
        header = json.loads(held[8 : 8 + int.from_bytes(held[:8], "little")])
        values = json.loads(header.get("__metadata__", {}).get(METADATA, "null"))
    except (SafetensorError, ValueError) as error:
        raise UsageError(f"{what}: damaged, or not a file of safetensors ({error})") from error
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{what}: expected an adapter checkpoint, such as --freeze writes to {ADAPTER_FILE}")
    fields = {name: values.pop(name) for name in ("format_version", "base", "adapter", "tokenizer")}
    return AdapterFile(what, tensors, Base(**fields["base"]), fields["adapter"], fields["tokenizer"], values)


def assemble(
    encoder: dict[str, Tensor], config: BertConfig, tasks: Sequence[TaskWeights], attention: str = "auto"
) -> BertForMultiTask:
    """Return a model of ``tasks`` on one ``encoder`` (names of the model, ``bert.*``), whose tensors it shares."""
    with skeleton():
        model = BertForMultiTask(
            config, [task.num_labels for task in tasks], attention, [task.adapter for task in tasks]
        )
    tensors = dict(encoder)
    for number, task in enumerate(tasks):
        tensors |= dict(_numbered(task, number))
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


def _numbered(task: TaskWeights, number: int) -> Iterable[tuple[str, Tensor]]:
    for name, tensor in task.tensors.items():
        module, rest = name.split(".", 1)
        if module == "classifier":
            yield f"classifier.{number}.{rest}", tensor
        else:
            yield f"bert.adapters.{number}.{'norms.' if module == 'norms' else ''}{rest}", tensor
