"""Tiny GLUE tasks in the published files, and a tiny model with and without adapters."""

import json
import random
from pathlib import Path

import pytest
import torch

from bert.glue.tasks import TASKS
from bert.model.bert import BertModel
from bert.model.config import BertConfig

FOLDERS = {
    "cola": "CoLA",
    "mrpc": "MRPC",
    "mnli": "MNLI",
    "rte": "RTE",
    "sts-b": "STS-B",
    "sst-2": "SST-2",
    "qqp": "QQP",
    "qnli": "QNLI",
}
CONFIG = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # answers that differ from the first step on
}
PALS = {"mult": True, "pals": True, "hidden_size_aug": 12}
COUNTS = {"train": 20, "dev": 9, "test": 5}
NOUNS = ["river", "stone", "song", "table"]


def write_split(folder: Path, layout, task, count: int, rng: random.Random) -> None:
    columns = list(layout.names) or [*layout.text, *filter(None, (layout.label, layout.guid))]
    rows = [] if layout.names else [columns]
    for index in range(count):
        row = {name: f"the {rng.choice(NOUNS)} " + "and " * rng.randint(0, 9) for name in columns}
        label = rng.choice(task.labels) if task.labels else f"{rng.uniform(0, 5):.1f}"
        row |= {layout.label: label, layout.guid: str(index)}
        rows.append([row[name] for name in columns])
    (folder / layout.file).write_text("".join("\t".join(map(str.strip, row)) + "\n" for row in rows))


@pytest.fixture(scope="session")
def shared_glue(tmp_path_factory) -> Path:
    """A folder with the eight tasks and one of somebody's own, reviews."""
    root, rng = tmp_path_factory.mktemp("glue"), random.Random(0)
    for name, folder in FOLDERS.items():
        (root / folder).mkdir()
        for split, layout in TASKS[name].layouts.items():
            write_split(root / folder, layout, TASKS[name], COUNTS[split] + len(name), rng)
    for split, layout in TASKS["mnli-mm"].layouts.items():
        if split != "train":
            write_split(root / "MNLI", layout, TASKS["mnli"], COUNTS[split], rng)
    (root / "reviews").mkdir()
    for split in ("train", "dev"):
        rows = "".join(f"the {rng.choice(NOUNS)}\t{index % 5}\n" for index in range(COUNTS[split]))
        (root / "reviews" / f"{split}.tsv").write_text(f"text\tlabel\n{rows}")
    return root


@pytest.fixture
def files(tmp_path, vocab_file, shared_glue) -> Path:
    """A folder with the vocabulary, configurations with PALs and without, and the weights of a plain BERT."""
    pieces = len(vocab_file.read_text().splitlines())
    for name, more in (("bert", {}), ("pals", PALS)):
        (tmp_path / f"{name}_config.json").write_text(json.dumps({**CONFIG, **more, "vocab_size": pieces}))
    torch.manual_seed(0)
    plain = BertModel(BertConfig.from_json_file(tmp_path / "bert_config.json"))
    torch.save({f"bert.{name}": value for name, value in plain.state_dict().items()}, tmp_path / "bert.bin")
    (tmp_path / "glue").symlink_to(shared_glue)
    return tmp_path
