"""Pairs of short texts about things of the invented world, and the files of all sentence tasks in GLUE's formats.

Two texts with different words and order agree in all facts or differ in one (MRPC), or share some facts (STS-B); or a
sentence answers a question or does not (QNLI)::

    (1, "Sulpol was founded in 424. Its coat of arms shows a horse.",
        "The seal of the city bears a horse. In 424, in the fifth century, settlers founded Sulpol.")

Half of the held-out things are in dev, the others in test; as in GLUE, test has no labels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from .corpus import write_text
from .retelling import EntitySplit, Told, answers_in, ask, facts_about, join, occurrences, split_things
from .sentences import Narrator, holds
from .single_sentences import Row, acceptability, remarks
from .templates import Question, questions_about
from .world import Entity, InventedWorld

TRIES = 5  # draws per row; a small world may give fewer rows


def paraphrases(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw two texts with the same two facts, and the same pair with one fact replaced by another thing's."""
    thing = rng.choice(split.things)
    facts = _recognisable(thing)
    if len(facts) < 2:
        return []
    chosen = rng.sample(facts, 2)
    ways = [rng.sample(ways, 2) for _, ways in chosen]
    first = _tell(thing, rng, [(question.when, way) for (question, _), (way, _) in zip(chosen, ways, strict=True)])
    order = rng.sample((0, 1), 2)
    second = _tell(thing, rng, [(chosen[n][0].when, ways[n][1]) for n in order])
    at = rng.randrange(2)
    question, known = chosen[order[at]][0], first[order[at]]
    false = _changed(split, second[at], question, rng) if answers_in(known, question) else ""
    changed = [false if n == at else told.sentence for n, told in enumerate(second)]
    texts = join(first), join(second), " ".join(changed)
    return [(1, *texts[:2]), (0, texts[0], texts[2])] if false and split.allows(" ".join(texts)) else []


def similarities(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw two texts of two or three facts; their similarity is five times the Dice coefficient of their facts."""
    thing = rng.choice(split.things)
    sizes = rng.randint(2, 3), rng.randint(2, 3)
    shared = rng.randint(0, min(sizes))
    chosen = rng.sample(facts_about(thing), sum(sizes) - shared)
    ways = [rng.sample(ways, 2) for _, ways in chosen]
    facts_of = list(range(sizes[0])), [*range(shared), *range(sizes[0], len(chosen))]
    texts = [
        join(_tell(thing, rng, [(chosen[n][0], ways[n][side]) for n in rng.sample(numbers, len(numbers))]))
        for side, numbers in enumerate(facts_of)
    ]
    score = 5 * 2 * shared / sum(map(len, facts_of))
    return [(f"{score:.3f}", *texts)] if split.allows(" ".join(texts)) else []


def inferences(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw a question with a sentence that answers it, and with one about another fact or another thing.

    Each sentence names its subject, so that the question and the sentence are enough to decide.
    """
    thing = rng.choice(split.things)
    facts = _recognisable(thing)
    if len(facts) < 2:
        return []
    (question, ways), (_, others) = rng.sample(facts, 2)
    asked, right = ask(thing, rng.choice(question.questions)), Narrator(thing, rng).tell(rng.choice(ways))
    rivals = [other for other in split.like(thing) if holds(other, question.when)]
    if rivals and rng.random() < 0.5:
        told, telling = rng.choice(rivals), [thing.name]
        wrong = Narrator(told, rng).tell(rng.choice(ways))
    else:
        told, telling = thing, [ask(thing, answer) for answer in question.answers]
        wrong = Narrator(thing, rng).tell(rng.choice(others))
    named = occurrences(thing.name, right) and occurrences(told.name, wrong)
    if not named or any(occurrences(words, wrong) for words in telling) or not split.allows(f"{asked} {right} {wrong}"):
        return []
    return [("entailment", asked, right), ("not_entailment", asked, wrong)]


def _recognisable(thing: Entity) -> list[tuple[Question, list[str]]]:
    """Return questions with the templates that answer them, if there are several, which are interchangeable."""
    found = []
    for when, ways in facts_about(thing):
        for question in questions_about(type(thing)).questions:
            alike = [way for way in ways if question.when == when and question.is_answered_by(way)]
            if len(alike) > 1:
                found.append((question, alike))
                break
    return found


def _tell(thing: Entity, rng: Random, facts: Sequence[tuple[str, str]]) -> list[Told]:
    narrator = Narrator(thing, rng)
    return [Told(thing, when, way, narrator.tell(way)) for when, way in facts]


def _changed(split: EntitySplit, told: Told, question: Question, rng: Random) -> str:
    """Replace the answer in a sentence by another thing's; "" if there is no other answer."""
    found = answers_in(told, question)
    donors = [other for other in split.like(told.thing) if holds(other, question.when)]
    if not found or not donors:
        return ""
    template, match = max(found.items(), key=lambda item: len(item[1][0]))  # the longest includes the article
    text = ask(rng.choice(donors), template)
    if sorted(text.lower().split()) == sorted(match[0].lower().split()):  # "red and blue" means "blue and red"
        return ""
    before, after = told.sentence[: match.start()], told.sentence[match.end() :]
    return f"{before}{text if before else text[0].upper() + text[1:]}{after}"


class SentenceTask(NamedTuple):
    """How to draw rows ``(label, text ...)``, and how to write the n-th of them as a line of the file."""

    draw: Callable[[EntitySplit, Random], list[Row]]
    header: str
    line: Callable[..., tuple]
    test_header: str
    test_line: Callable[..., tuple]


_NUMBERED = ("index\tsentence", lambda n, text: (n, text))
_STSB = "index genre filename year old_index source1 source2 sentence1 sentence2".replace(" ", "\t")
_MRPC = "#1 ID\t#2 ID\t#1 String\t#2 String"
TASKS = {
    "MRPC": SentenceTask(
        paraphrases,
        f"Quality\t{_MRPC}",
        lambda n, label, one, two: (label, 2 * n, 2 * n + 1, one, two),
        f"index\t{_MRPC}",
        lambda n, one, two: (n, 2 * n, 2 * n + 1, one, two),
    ),
    "SST-2": SentenceTask(remarks, "sentence\tlabel", lambda n, label, text: (text, label), *_NUMBERED),
    "CoLA": SentenceTask(
        acceptability, "", lambda n, label, text: ("gazetteer", label, "" if label else "*", text), *_NUMBERED
    ),
    "STS-B": SentenceTask(
        similarities,
        f"{_STSB}\tscore",
        lambda n, label, *texts: (n, "gazetteer", "facts", "none", n, "none", "none", *texts, label),
        _STSB,
        lambda n, *texts: (n, "gazetteer", "facts", "none", n, "none", "none", *texts),
    ),
    "QNLI": SentenceTask(
        inferences,
        "index\tquestion\tsentence\tlabel",
        lambda n, label, *texts: (n, *texts, label),
        "index\tquestion\tsentence",
        lambda n, *texts: (n, *texts),
    ),
}


def write_glue(directory: str | Path, world: InventedWorld, train: int, held_out: int) -> dict[str, int]:
    """Write ``train``, ``dev`` and ``test`` of each task below ``directory``; return the number of rows of train.

    Train has at most ``train`` rows, dev and test at most ``held_out`` each. Two labels are equally frequent.
    """
    training, others = split_things(world)
    splits = {"train": training, "dev": EntitySplit(others.things[::2]), "test": EntitySplit(others.things[1::2])}
    counts = {}
    for name, task in TASKS.items():
        for split, things in splits.items():
            rng = Random(f"gazetteer {world.seed} {name} {split}")
            rows = _draw(task, things, rng, train if split == "train" else held_out)
            if split == "test":
                header, lines = task.test_header, [task.test_line(n, *row[1:]) for n, row in enumerate(rows)]
            else:
                header, lines = task.header, [task.line(n, *row) for n, row in enumerate(rows)]
            text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
            write_text(Path(directory) / name / f"{split}.tsv", (f"{header}\n" if header else "") + text)
            counts.setdefault(name, len(rows))
    return counts


def _draw(task: SentenceTask, split: EntitySplit, rng: Random, count: int) -> list[Row]:
    """Return up to ``count`` different rows in random order."""
    rows: dict[Row, None] = {}
    for _ in range(TRIES * count):
        if len(rows) == count:
            break
        drawn = task.draw(split, rng) if split.things else []
        if len(rows) + len(drawn) <= count and rows.keys().isdisjoint(drawn):
            rows.update(dict.fromkeys(drawn))
    return rng.sample(list(rows), len(rows))
