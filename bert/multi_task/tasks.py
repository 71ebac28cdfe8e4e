"""Which tasks a run learns: names, folders, and the number of each in the model.

The published list ``all`` is in the order of its code, which is the order of the heads::

    find_tasks(MultiTaskConfig("glue", tasks="cola,rte,custom:reviews"))[2].folder          # glue/reviews
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from bert.config import flag
from bert.errors import UsageError
from bert.glue.custom import CUSTOM, CustomConfig, build_custom
from bert.glue.examples import Task
from bert.glue.metrics import check_installed
from bert.glue.tasks import TASKS, find_task, refuse_custom_flags, xnli

LISTS = {
    "all": ("cola", "mrpc", "mnli", "rte", "sts-b", "sst-2", "qqp", "qnli"),
    "inf": ("qnli", "mnli", "rte"),
}


@dataclass
class MultiTaskConfig:
    """The tasks and their data."""

    data_dir: str = flag(
        help="Folder that holds a folder for each task (CoLA, MRPC, MNLI, ...), such as download/glue."
    )
    tasks: str = flag(
        "all",
        f"Tasks to learn, separated by commas: {', '.join(TASKS)}, or custom:FOLDER for your own files (see "
        f"--text_column). all = {', '.join(LISTS['all'])}; inf = {', '.join(LISTS['inf'])}; single = see --task_id.",
    )
    task_id: int = flag(1, "--tasks single: place of the task in the list all, from 0.", minimum=0, maximum=7)
    xnli_language: str = flag("zh", "xnli: language of the texts, such as de or zh.")
    custom: CustomConfig = field(default_factory=CustomConfig)


class TaskPlace(NamedTuple):
    """A task, its number in the model, the folder of its files, and the name of its results."""

    task: Task
    head: int
    folder: Path
    name: str


def find_tasks(config: MultiTaskConfig) -> list[TaskPlace]:
    """Return the tasks of the flags; raises UsageError for one that is unknown, repeated or without a folder."""
    check_installed()
    names = _names(config)
    if not any(name.startswith(f"{CUSTOM}:") for name in names):
        refuse_custom_flags(config.custom, f"--tasks is {config.tasks}")
    places = [_find(config, name, head) for head, name in enumerate(names)]
    folders = [place.folder for place in places]
    for name, folder in zip(names, folders, strict=True):
        if folders.count(folder) > 1:
            raise UsageError(f"--tasks {config.tasks}: {name} stands for data that is listed twice, {folder}")
    return places


def mismatched(places: Sequence[TaskPlace]) -> list[TaskPlace]:
    """Return MNLI's second dev and test set, which its head predicts too, where the files are there."""
    task = TASKS["mnli-mm"]
    task = replace(task, layouts={name: task.layouts[name] for name in ("dev", "test")})
    mnli = [place for place in places if place.task.name == "mnli"]
    found = [place for place in mnli if (place.folder / task.layouts["dev"].file).is_file()]
    return [place._replace(task=task, name="MNLI-mm") for place in found]


def describe(places: Sequence[TaskPlace]) -> list[dict[str, Any]]:
    """Return what a checkpoint keeps of the tasks, in the order of the heads."""
    return [{"name": place.name, "labels": list(place.task.labels)} for place in places]


def check_tasks(places: Sequence[TaskPlace], state: dict[str, Any] | None, what: str, multi: bool) -> None:
    """Raise UsageError where a checkpoint of several tasks has others, another order of them or other labels.

    Without --multi it must have some.
    """
    names = [str(name) for name in (state or {}).get("model", state or {})]
    if names and not multi and not any(name.endswith("classifier.0.weight") for name in names):
        raise UsageError(f"{what}: has no heads of several tasks, expected --multi, to start from a plain BERT")
    held = (state or {}).get("tasks")
    if held is not None and held != describe(places):
        names = ", ".join(each["name"] for each in held)
        raise UsageError(f"--tasks: {what} has learned {names} in this order; expected the same tasks and labels")


def _names(config: MultiTaskConfig) -> list[str]:
    if config.tasks == "single":
        return [LISTS["all"][config.task_id]]
    return list(LISTS.get(config.tasks) or [name.strip() for name in config.tasks.split(",")])


def _find(config: MultiTaskConfig, name: str, head: int) -> TaskPlace:
    kind, _, own = name.partition(":")
    if kind == CUSTOM:
        if not own or Path(own).name != own or own.startswith("."):
            raise UsageError(f"--tasks {name}: expected {CUSTOM}:FOLDER, where FOLDER is in --data_dir")
        folder = _existing(config, own, name)
        return TaskPlace(replace(build_custom(config.custom, folder), name=own), head, folder, own)
    task = find_task(name, "--tasks")
    if "train" not in task.layouts:
        raise UsageError(f"--tasks {name}: has no training examples")
    if task.name == "xnli":
        task = xnli(config.xnli_language)
    title = "MNLI" if task.name == "mnli" else task.submission or task.name.upper()
    return TaskPlace(task, head, _existing(config, title.removesuffix("-mm"), name), title)


def _existing(config: MultiTaskConfig, folder: str, name: str) -> Path:
    path = Path(config.data_dir) / folder
    if not path.is_dir():
        raise UsageError(f"--data_dir {config.data_dir}: no folder {folder}, expected one for the task {name}")
    return path
