"""The tasks of GLUE, its diagnostic set AX, and XNLI, in one table. Add a row to add a task.

Files, columns and the order of labels are those of the published data sets and scripts. ``--task_name custom`` covers
all other data; flags name its files and columns. STS-B is learned and scored on its own scale, 0 to 5::

    task = find_task("STS-B")                                       # also "stsb" and "sts_b"
    examples = read_examples(task, "glue/STS-B", "dev")
    task.metrics(task.predictions(logits), labels)                  # {"pearson": ..., "spearmanr": ..., "corr": ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bert.config import flag
from bert.errors import UsageError
from bert.glue.custom import CUSTOM, CustomConfig, build_custom
from bert.glue.examples import SplitLayout, Task
from bert.glue.metrics import acc, acc_and_f1, check_installed, correlations, mcc


def splits(
    text: tuple[str, ...], label: str, guid: str | None = None, dev: str = "dev", test: str = "test", **labelled: Any
) -> dict[str, SplitLayout]:
    """Return GLUE's usual three .tsv files; ``labelled`` are more fields of the training and dev layouts."""
    train = SplitLayout("train.tsv", "train", text, label, guid, **labelled)
    return {
        "train": train,
        "dev": replace(train, file=f"{dev}.tsv", prefix=dev),
        "test": SplitLayout(f"{test}.tsv", "test", text, guid=guid),
    }


def xnli(language: str) -> Task:
    """XNLI: training pairs machine-translated to one language; dev and test files mix all languages."""
    dev = SplitLayout("xnli.dev.tsv", "dev", SENTENCES, "gold_label", only=("language", language))
    layouts = {
        "train": SplitLayout(f"multinli/multinli.train.{language}.tsv", "train", ("premise", "hypo"), "label"),
        "dev": dev,
        "test": replace(dev, file="xnli.test.tsv", prefix="test", label=None),
    }
    return Task("xnli", None, layouts, acc, NLI, synonyms={"contradictory": "contradiction"})


BINARY = ("0", "1")
# What transformers' models call 0 and 1, after the data sets on the Hugging Face hub.
COLA_NAMES = {"unacceptable": "0", "acceptable": "1"}
SST_NAMES = {"negative": "0", "positive": "1"}
MRPC_NAMES = {"not_equivalent": "0", "equivalent": "1"}
QQP_NAMES = {"not_duplicate": "0", "duplicate": "1"}
WNLI_NAMES = {"not_entailment": "0", "entailment": "1"}
ENTAILMENT = ("entailment", "not_entailment")
NLI = ("contradiction", "entailment", "neutral")
SENTENCE, SENTENCES = ("sentence",), ("sentence1", "sentence2")
COLA_COLUMNS = ("source", "label", "mark", "sentence")
MNLI = splits(SENTENCES, "gold_label", "index", dev="dev_matched", test="test_matched")
MNLI_MM = splits(SENTENCES, "gold_label", "index", dev="dev_mismatched", test="test_mismatched")
AX = SplitLayout("AX.tsv", "test", SENTENCES, guid="index")
# Some questions contain tabs and line breaks.
QUESTIONS = splits(("question1", "question2"), "is_duplicate", "id", skip_broken=True)

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("cola", "CoLA", splits(SENTENCE, "label", names=COLA_COLUMNS), mcc, BINARY, synonyms=COLA_NAMES),
        Task("sst-2", "SST-2", splits(SENTENCE, "label"), acc, BINARY, aliases=("sst",), synonyms=SST_NAMES),
        Task("mrpc", "MRPC", splits(("#1 String", "#2 String"), "Quality"), acc_and_f1, BINARY, synonyms=MRPC_NAMES),
        Task("sts-b", "STS-B", splits(SENTENCES, "score", "index"), correlations, bounds=(0, 5), aliases=("sts",)),
        Task("qqp", "QQP", QUESTIONS, acc_and_f1, BINARY, synonyms=QQP_NAMES),
        Task("mnli", "MNLI-m", MNLI, acc, NLI, aliases=("mnli-m", "mnli-matched")),
        Task("mnli-mm", "MNLI-mm", MNLI_MM, acc, NLI, aliases=("mnli-mismatched",)),
        Task("qnli", "QNLI", splits(("question", "sentence"), "label", "index"), acc, ENTAILMENT),
        Task("rte", "RTE", splits(SENTENCES, "label", "index"), acc, ENTAILMENT),
        Task("wnli", "WNLI", splits(SENTENCES, "label", "index"), acc, BINARY, synonyms=WNLI_NAMES),
        Task("ax", "AX", {"test": AX}, acc, NLI, aliases=("diagnostic",)),
        xnli("zh"),
    )
}


@dataclass
class GlueConfig:
    """The data to fine-tune on."""

    data_dir: str = flag(help="Folder of the task's files as published, such as download/glue/MRPC.")
    task_name: str = flag(help=f"Task: {', '.join(TASKS)}, or custom for your own files (see --text_column).")
    xnli_language: str = flag("zh", "xnli: language of the texts, such as de or zh.")
    custom: CustomConfig = field(default_factory=CustomConfig)


def build_task(config: GlueConfig) -> Task:
    """Return the task of the flags; raises UsageError for a task, a flag or a library that is not available."""
    check_installed()
    if _key(config.task_name) == CUSTOM:
        return build_custom(config.custom, config.data_dir)
    task = find_task(config.task_name)
    refuse_custom_flags(config.custom, f"--task_name is {config.task_name}")
    return xnli(config.xnli_language) if task.name == "xnli" else task


def refuse_custom_flags(config: CustomConfig, why: str) -> None:
    """Raise UsageError if a flag of custom tasks is given."""
    for each in fields(config):
        if getattr(config, each.name) != each.default:
            raise UsageError(f"--{each.name}: {why}, only custom accepts this flag")


def find_task(name: str, flag: str = "--task_name") -> Task:
    """Return a task of the table, ignoring case, hyphens and underscores. Raises UsageError, which names ``flag``."""
    found = [task for task in TASKS.values() if _key(name) in map(_key, (task.name, *task.aliases))]
    if not found:
        raise UsageError(f"{flag} {name}: expected one of {', '.join(TASKS)}, {CUSTOM}")
    return found[0]


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
