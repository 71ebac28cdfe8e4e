"""Questions for the comparison in ``squad`` where no file is given: an encyclopedia of invented countries.

::

    file = write_questions(folder, articles=3000)           # in SQuAD's format, contexts as long as SQuAD's
    train_words(folder, file, str(folder / "vocab.txt"))
"""

from __future__ import annotations

import contextlib
import io
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary
from bert.squad.examples import load_dataset, paragraphs
from data.gazetteer import build_world
from data.gazetteer.questions import write_squad

VOCABULARY = 30522  # rows of the embedding table, even if the text needs fewer
JOINED = (1, 2, 2, 3)  # contexts of the encyclopedia, of about 75 words each, per context of the benchmark
QUESTIONS = 2  # per context of the encyclopedia


def write_questions(folder: Path, articles: int) -> str:
    """Write questions about an encyclopedia in SQuAD's format, on contexts as long as SQuAD's; return the file."""
    write_squad(folder, build_world(seed=0, size=articles), QUESTIONS)
    written = json.loads((folder / "v1.1" / "train-v1.1.json").read_text(encoding="utf8"))["data"]
    joined = join_contexts([each["paragraphs"][0] for each in written], random.Random(0))
    file = folder / "train.json"
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": joined}]}), encoding="utf8")
    return str(file)


def join_contexts(single: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Join every few successive paragraphs into one, moving the positions of the answers."""
    made, rest = [], iter(single)
    while group := list(islice(rest, rng.choice(JOINED))):
        context, questions = "", []
        for each in group:
            context += " " * bool(context)
            for question in each["qas"]:
                moved = [{**a, "answer_start": a["answer_start"] + len(context)} for a in question["answers"]]
                questions.append({**question, "answers": moved})
            context += each["context"]
        made.append({"context": context, "qas": questions})
    return made


def train_words(folder: Path, file: str, output: str) -> None:
    """Train a vocabulary on the text of the questions."""
    parts = list(paragraphs(load_dataset(file), file))
    lines = [line for part in parts for line in (part.context, *(each["question"] for _, each in part.questions))]
    (folder / "text.txt").write_text("\n".join(line.replace("\n", " ") for line in lines) + "\n", encoding="utf8")
    with contextlib.redirect_stdout(io.StringIO()):  # what it says about --vocab_size concerns no flag of this command
        train_vocabulary(VocabularyConfig([str(folder / "text.txt")], output, VOCABULARY, disable_progress_bar=True))
