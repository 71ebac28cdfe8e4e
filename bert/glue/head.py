"""A classifier's outputs in the order of a task, by the names of the labels.

A head that another system or another task trained may list the same labels in another order::

    fit_head(start, task, run, found)       # the rows of the head in start.state are now in the task's order
"""

from __future__ import annotations

from collections.abc import Sequence

from bert.checkpoint import Found
from bert.checkpoint.formats import label_names
from bert.checkpoint.open_model import StartingPoint
from bert.errors import UsageError
from bert.finetune.training import TaskRun
from bert.glue.examples import Task, shorten_labels
from bert.model.names import canonical_names

HEAD = ("classifier.weight", "classifier.bias")


def fit_head(start: StartingPoint, task: Task, run: TaskRun, found: Found) -> None:
    """Put the head that ``start`` holds in the order of ``task``; a notice says so.

    A head without names is taken to have the task's order. One for other labels is left out where training starts,
    which makes it fresh. Raises UsageError for such a head where it would be scored, and where a run continues from
    ``found``.
    """
    held, resumes = start.state or {}, found.state is not None
    what = f"--resume_from_checkpoint {found.path}" if resumes else start.what
    tensors = canonical_names(held.get("model", held), bare=False, what=what)
    count = len(tensors.get(HEAD[0], ()))
    names, labels, same = label_names(held, start.model_config, count), list(task.labels), list(range(count))
    for key in ("id2label", "label2id"):  # of another head than the one that this run saves
        vars(start.model_config).pop(key, None)
    if not count:
        return
    order = match_labels(names, task) if names and labels else same
    if order is None or count != task.num_labels or (resumes and order != same):
        trained = f"its classifier has {_describe(names, count)}; expected {_describe(labels, task.num_labels)}"
        if resumes or not run.settings.run.do_train:
            raise UsageError(f"{what}: {trained}{', in this order' if resumes else ''}, for --task_name {task.name}")
        run.notice(f"{what}: {trained}, so that the classifier is fresh")
        tensors = {name: tensor for name, tensor in tensors.items() if name not in HEAD}
    elif order != same:
        run.notice(f"{what}: its classifier has {', '.join(names)}; reordered to {', '.join(labels)}")
        tensors |= {name: tensors[name][order] for name in HEAD}
    elif count > 1 and not names:
        run.notice(f"{what}: its classifier does not name its labels; the order {', '.join(labels)} is assumed")
    elif held.get("task", task.name) != task.name:
        run.notice(f"{what}: its classifier was trained on {held['task']}, not {task.name}")
    start.state = {**held, "model": tensors}


def match_labels(names: Sequence[str], task: Task) -> list[int] | None:
    """Return the place of each of the task's labels among ``names``, None unless these are the same labels.

    Other case and a blank, hyphen or underscore for one another make no difference unless the task's labels differ in
    just that; the task's synonyms are known.
    """
    meant = {fold(name): fold(label) for name, label in task.synonyms.items()}
    folded = [meant.get(fold(name), fold(name)) for name in names]
    for found, wanted in ((list(names), list(task.labels)), (folded, list(map(fold, task.labels)))):
        if sorted(found) == sorted(set(wanted)):
            return [found.index(label) for label in wanted]
    return None


def fold(name: str) -> str:
    """Return what counts in a label's name: ``NOT_ENTAILMENT`` and ``not-entailment`` are equal, 1 and -1 are not."""
    return name.casefold().replace("-", "_").replace(" ", "_")


def _describe(names: Sequence[str], count: int) -> str:
    if count == 1:
        return "one output, of a regression"
    return f"the labels {shorten_labels(names)}" if names else f"{count} labels without names"
