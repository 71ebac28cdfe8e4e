"""Run many tasks on one base: their sequences share the encoder, and each has its own adapter and classifier.

    engine = MultiTaskEngine.load(version)                      # the folder of one version
    (logits,) = engine(ids, types, offsets, ["rte", "cola"])    # [T], [T], [S + 1], a name a sequence -> [S, width]
    engine.look()                                               # takes up new adapter files, drops removed ones

The tasks are those that the checkpoint was trained on, and those of the adapter files in ``adapters`` beside the
versions. A file that is broken or of another base is refused by a line, and the others stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from bert.batch import TokenStream
from bert.checkpoint.adapter_files import Base, TaskWeights, assemble, read_adapter, tasks_of
from bert.errors import UsageError, naming_os_errors
from bert.model.adapters.config import AdapterConfig
from bert.model.config import BertConfig
from bert.model.objective import MultiTaskObjective
from bert.sequences import groups_of
from bert.serve.adapter_folder import AdapterFolder
from bert.serve.engine import SETTINGS, Engine
from bert.serve.requests import UNKNOWN_TASK
from bert.tokenization import BertTokenizer

ADAPTERS = "adapters"  # folder of the adapter files, beside the versions
TORCH = "torch"  # the format: tensors and plain values, and this package to run them
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ATTENTION = {"cpu": "reference", "cuda": "auto"}  # on a CPU one sequence after the other is fastest: no padding
OF_TASKS = ("bert.adapters.", "classifier.")  # parameters that tasks do not share
Notice = Callable[[str], object]


@dataclass(frozen=True)
class Encoder:
    """The base that all tasks share, and the tasks that it was trained on."""

    settings: dict[str, Any]
    config: BertConfig
    tensors: dict[str, Tensor]  # bert.*
    tasks: list[TaskWeights]
    device: str

    @classmethod
    def read(cls, version: Path, device: str) -> Encoder:
        """Read the model of a version folder; raises UsageError where a file is missing."""
        with naming_os_errors(str(version / SETTINGS)):
            settings = json.loads((version / SETTINGS).read_text(encoding="utf8"))
        with naming_os_errors(str(version / settings["file"])):
            state = _cast(load_file(version / settings["file"], device), settings, device)
        config = BertConfig.from_dict(settings["model_config"])
        tasks = tasks_of(str(version), state, {"tasks": settings["tasks"]}, config.adapter or AdapterConfig("none"))
        shared = {name: tensor for name, tensor in state.items() if not name.startswith(OF_TASKS)}
        return cls(settings, config, shared, tasks, device)

    def read_adapters(self, path: Path) -> list[TaskWeights]:
        """Return the tasks of an adapter file. Raises UsageError if it is broken, of another base or does not fit."""
        file = read_adapter(path, "adapter file")
        base = Base(**self.settings["base"])
        if file.base.sha256 != base.sha256:
            raise UsageError(f"made for {file.base}, but the served base is {base}")
        tokenizer = BertTokenizer.from_state_dict(file.tokenizer)
        if tokenizer.difference(self.settings["tokenizer"]):
            raise UsageError("made with another vocabulary or casing than that of the served base")
        tasks = file.tasks(self.config)
        if len(tasks) == 1:  # its file's name, which whoever puts it there chooses
            tasks = [tasks[0]._replace(name=path.stem)]
        if not all(isinstance(task.name, str) and task.name for task in tasks):
            raise UsageError("has a task without a name")
        try:
            assemble(self.tensors, self.config, tasks)
        except RuntimeError as error:  # of several lines; the last names a parameter
            raise UsageError(f"does not fit the base: {str(error).splitlines()[-1].strip()}") from error
        return [
            task._replace(
                labels=label_names(task.labels, task.num_labels),
                tensors=_cast(task.tensors, self.settings, self.device),
            )
            for task in tasks
        ]

    def runner(self, tasks: Sequence[TaskWeights]) -> Callable[..., list[NDArray]]:
        """Return the function of ids [T], types [T], cu [S + 1], the longest length and task numbers [S], sorted."""
        objective = MultiTaskObjective(assemble(self.tensors, self.config, tasks, ATTENTION[self.device]))

        def run(ids: NDArray, types: NDArray, cu: NDArray, longest: int, numbers: NDArray) -> list[NDArray]:
            tensors = [torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for array in (ids, types, cu)]
            groups = groups_of(numbers, cu.astype(np.int64))
            stream = TokenStream(tensors[0].long(), tensors[1].long(), tensors[2], longest, groups=groups)
            with torch.inference_mode():
                return [objective.predict(stream).float().cpu().numpy()]

        return run


def label_names(labels: Sequence[str], count: int) -> list[str]:
    """Return the names of ``count`` classes; none for a regression. Raises UsageError for another number of them."""
    if count > 1 and labels and len(labels) != count:
        raise UsageError(f"{len(labels)} labels, expected {count}, one for each class")
    return [] if count == 1 else list(map(str, labels)) or [f"label_{number}" for number in range(count)]


def _cast(tensors: dict[str, Tensor], settings: dict[str, Any], device: str) -> dict[str, Tensor]:
    return {name: tensor.to(device, DTYPES[settings["precision"]]) for name, tensor in tensors.items()}


class MultiTaskEngine:
    """The model of all tasks of the moment."""

    def __init__(self, encoder: Encoder, folder: AdapterFolder[list[TaskWeights]], notice: Notice) -> None:
        self.encoder, self.folder, self.notice = encoder, folder, notice
        self.settings = encoder.settings
        self.tasks: dict[str, int] = {}  # names and numbers
        self._refused: list[str] = []
        folder.look()
        self._build()

    @classmethod
    def load(cls, version: Path, threads: int = 1, device: str = "cpu", notice: Notice = print) -> MultiTaskEngine:
        """Load the model of a version folder and the adapters beside it; raises UsageError where a file is missing."""
        torch.set_num_threads(threads)
        encoder = Encoder.read(version, device)
        return cls(encoder, AdapterFolder(version.parent / ADAPTERS, encoder.read_adapters), notice)

    def look(self, at_once: bool = False) -> None:
        """Take up what has changed in the folder of adapter files."""
        if self.folder.look(at_once):
            self._build()

    def check(self, name: str) -> None:
        """Raise UsageError for a task that there is not."""
        if name not in self.tasks:
            known = f"expected one of {', '.join(sorted(self.tasks))}" if self.tasks else "there is no task yet"
            raise UsageError(f"{UNKNOWN_TASK}{name[:40]!r}: {known}")

    def width(self, name: str) -> int:
        """Return the number of logits of a task, 1 for a regression."""
        return self._members[self.tasks[name]].num_labels if name else 1

    def facts(self, name: str) -> str:
        """Return a task's labels as JSON; for "" all tasks, and the files that are refused."""
        return self._facts[name]

    def __call__(
        self, ids: NDArray, types: NDArray, offsets: NDArray, names: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """[T], [T], [S + 1], S names -> [the logits [S, width]]; those beyond a task's own are 0.

        Sequences without a task, "", run as those of the first do, so that a probe is like any other request.
        """
        numbers = np.array([self.tasks[name] if name else 0 for name in names])
        if not self.tasks:
            return [np.zeros((len(names), 1), np.float32)]
        return Engine(self._run, self.settings)(ids, types, offsets, numbers)

    def _build(self) -> None:
        """Make the model of the tasks that there are. Those with equal adapters are neighbours, to share products."""
        members, refused = {task.name: task for task in self.encoder.tasks}, dict(self.folder.refused)
        for file, tasks in sorted(self.folder.held.items()):
            again = [task.name for task in tasks if task.name in members]
            if again:
                refused.setdefault(file, f"there is a task {again[0]} already")
            else:
                members |= {task.name: task for task in tasks}
        self._members = sorted(members.values(), key=lambda task: (str(task.adapter), task.name))
        self.tasks = {task.name: number for number, task in enumerate(self._members)}
        self._facts = {name: json.dumps({"labels": task.labels}) for name, task in members.items()}
        listed = [{"name": name, "labels": members[name].labels} for name in sorted(members)]
        lines = [f"{file}: {line}" for file, line in sorted(refused.items())]
        self._facts[""] = json.dumps({"tasks": listed, "refused": lines})
        for line in lines:
            if line not in self._refused:
                self.notice(f"{self.folder.path}/{line}")
        self._refused = lines
        if self._members:
            self._run = self.encoder.runner(self._members)
