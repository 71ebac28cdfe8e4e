"""The files of all sentence tasks in GLUE's formats.

Half of the held-out things are in dev, the others in test; as in GLUE, test has no labels. The texts of MNLI's
mismatched files are longer than those that training has.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

from .corpus import write_text
from .retelling import EntitySplit, split_things
from .sentence_pairs import duplicates, entailments, inferences, paraphrases, similarities, statements
from .single_sentences import Row, acceptability, remarks
from .world import InventedWorld

TRIES = 5  # draws per row; a small world may give fewer rows


Draw = Callable[[EntitySplit, Random], list[Row]]


class SentenceTask(NamedTuple):
    """How to draw rows ``(label, text ...)``, and how to write the n-th of them as a line of the file."""

    draw: Draw
    header: str
    line: Callable[..., tuple]
    test_header: str
    test_line: Callable[..., tuple]
    held_out: Mapping[str, Draw] = {}  # ending of dev's and test's names -> how to draw them; by default like train

    def files(self, split: str) -> Mapping[str, Draw]:
        """Return how to draw each file of a split, by its name without the suffix."""
        endings = self.held_out if split != "train" and self.held_out else {"": self.draw}
        return {f"{split}{ending}": draw for ending, draw in endings.items()}


def _columns(names: str) -> str:
    return names.replace(" ", "\t")


def _numbered(n: int, *texts: str) -> tuple:
    return n, *texts


def _labelled(n: int, label: object, *texts: str) -> tuple:
    return n, *texts, label


_STSB = _columns("index genre filename year old_index source1 source2 sentence1 sentence2")
_MRPC = "#1 ID\t#2 ID\t#1 String\t#2 String"
_MNLI = _columns(
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2"
)
TASKS = {
    "MRPC": SentenceTask(
        paraphrases,
        f"Quality\t{_MRPC}",
        lambda n, label, one, two: (label, 2 * n, 2 * n + 1, one, two),
        f"index\t{_MRPC}",
        lambda n, one, two: (n, 2 * n, 2 * n + 1, one, two),
    ),
    "SST-2": SentenceTask(
        remarks, _columns("sentence label"), lambda n, label, text: (text, label), _columns("index sentence"), _numbered
    ),
    "CoLA": SentenceTask(
        acceptability,
        "",
        lambda n, label, text: ("gazetteer", label, "" if label else "*", text),
        _columns("index sentence"),
        _numbered,
    ),
    "STS-B": SentenceTask(
        similarities,
        f"{_STSB}\tscore",
        lambda n, label, *texts: (n, "gazetteer", "facts", "none", n, "none", "none", *texts, label),
        _STSB,
        lambda n, *texts: (n, "gazetteer", "facts", "none", n, "none", "none", *texts),
    ),
    "QNLI": SentenceTask(
        inferences, _columns("index question sentence label"), _labelled, _columns("index question sentence"), _numbered
    ),
    "QQP": SentenceTask(
        duplicates,
        _columns("id qid1 qid2 question1 question2 is_duplicate"),
        lambda n, label, *texts: (n, 2 * n, 2 * n + 1, *texts, label),
        _columns("id question1 question2"),
        _numbered,
    ),
    "RTE": SentenceTask(
        entailments,
        _columns("index sentence1 sentence2 label"),
        _labelled,
        _columns("index sentence1 sentence2"),
        _numbered,
    ),
    "MNLI": SentenceTask(
        statements,
        _columns(f"{_MNLI} label1 gold_label"),
        lambda n, label, *texts: (n, n, n, "gazetteer", *["none"] * 4, *texts, label, label),
        _MNLI,
        lambda n, *texts: (n, n, n, "gazetteer", *["none"] * 4, *texts),
        {"_matched": statements, "_mismatched": partial(statements, facts=2)},
    ),
}


def write_glue(directory: str | Path, world: InventedWorld, train: int, held_out: int) -> dict[str, int]:
    """Write the files of each task below ``directory``; return the number of rows of each train.

    Train has at most ``train`` rows, dev and test at most ``held_out`` each. The labels are equally frequent.
    """
    training, others = split_things(world)
    splits = {"train": training, "dev": EntitySplit(others.things[::2]), "test": EntitySplit(others.things[1::2])}
    counts = {}
    for name, task in TASKS.items():
        for split, things in splits.items():
            for file, draw in task.files(split).items():
                rng = Random(f"gazetteer {world.seed} {name} {file}")
                rows = _draw(draw, things, rng, train if split == "train" else held_out)
                counts.setdefault(name, len(rows))
                if split == "test":
                    header, lines = task.test_header, [task.test_line(n, *row[1:]) for n, row in enumerate(rows)]
                else:
                    header, lines = task.header, [task.line(n, *row) for n, row in enumerate(rows)]
                text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
                write_text(Path(directory) / name / f"{file}.tsv", (f"{header}\n" if header else "") + text)
    return counts


def _draw(draw: Draw, split: EntitySplit, rng: Random, count: int) -> list[Row]:
    """Return up to ``count`` different rows in random order."""
    rows: dict[Row, None] = {}
    for _ in range(TRIES * count):
        if len(rows) == count:
            break
        drawn = draw(split, rng) if split.things else []
        if len(rows) + len(drawn) <= count and rows.keys().isdisjoint(drawn):
            rows.update(dict.fromkeys(drawn))
    return rng.sample(list(rows), len(rows))
