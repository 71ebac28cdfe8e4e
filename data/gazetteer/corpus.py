"""Articles about the things of a world, probes for what they teach, and the files of both."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from bert.config import flag
from bert.errors import UsageError
from bert.files import replacing

from .sentences import Narrator, call, holds
from .templates import articles_about, questions_about
from .world import City, Country, Entity, InventedWorld, Mountain, Person, River

# Things that an article mentions at its end; a first article also mentions the country.
ASIDES: dict[type, list[Callable[[Any], Entity | None]]] = {
    Country: [lambda it: it.capital, lambda it: it.famous[0] if it.famous else None],
    City: [lambda it: it.river or it.mountain, lambda it: it.famous[0] if it.famous else None],
    River: [lambda it: it.source, lambda it: it.cities[0] if it.cities else None],
    Mountain: [lambda it: it.rivers[0], lambda it: it.climber or it.country.capital],
    Person: [lambda it: it.birthplace, lambda it: it.teacher or it.spouse],
}
LEFT_OUT = 0.1  # share of the facts that a second article omits
FILE_NAME = "gazetteer_{:03d}.txt"


@dataclass
class GazetteerConfig:
    """How much to write, and how to divide it."""

    articles: int = flag(3000, "Number of articles, two about each thing in the world.", minimum=100, maximum=20_000)
    seed: int = flag(0, "Seed of the world and the wording; the same seed gives the same bytes everywhere.")
    held_out_fraction: float = flag(
        0.05, "Share of the articles written to eval/ instead of train/.", minimum=0.0, maximum=0.5
    )
    files: int = flag(4, "Number of text files in train/.", minimum=1)


class Probe(NamedTuple):
    """A statement from the articles of train/, with one word masked."""

    statement: str  # "The capital of Dorovia is [MASK] ."
    answer: str
    relation: str


def articles(world: InventedWorld) -> Iterator[list[str]]:
    """Yield ``world.size`` articles as lists of sentences.

    The first half has one article about each thing, with all facts. The second half has second articles about the same
    things, in other words and random order, so that held-out ones restate what training has seen.
    """
    things = world.entities()
    for thing in things:
        yield _article(world, thing, second=False)
    for thing in in_second_order(world)[: world.size - len(things)]:
        yield _article(world, thing, second=True)


def in_second_order(world: InventedWorld) -> list[Entity]:
    """Return all things in the order of their second articles; the last thing may have none."""
    things = world.entities()
    return Random(f"gazetteer {world.seed} order").sample(things, len(things))


def facts(world: InventedWorld) -> Iterator[Probe]:
    """Yield probes for a trained model; a first article states or implies each answer."""
    for thing in world.entities():
        narrator = Narrator(thing, Random(0))
        for when, relation, statement, answer in questions_about(type(thing)).probes:
            if holds(thing, when):
                yield Probe(narrator.format(statement), narrator.format(answer), relation)


def write_corpus(
    directory: str | Path, articles: Iterable[list[str]], held_out_fraction: float, files: int
) -> dict[str, int]:
    """Write ``train/`` and ``eval/`` below ``directory``: one sentence a line, a blank line after each article.

    The last ``held_out_fraction`` of the articles goes to eval/; the others go to the ``files`` of train/ in turn.
    Returns the number of articles in each. Text files of an earlier run are replaced.
    """
    documents = ["".join(f"{sentence}\n" for sentence in article) + "\n" for article in articles]
    held_out = round(len(documents) * held_out_fraction)
    split = len(documents) - held_out
    if split < files:
        raise UsageError(f"--files {files}: expected at most the number of training articles, {split}")
    train = [documents[start:split:files] for start in range(files)]
    for name, parts in (("train", train), ("eval", [documents[split:]] if held_out else [])):
        folder = Path(directory) / name
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / FILE_NAME.format(index) for index in range(len(parts))]
        for path, part in zip(paths, parts, strict=True):
            write_text(path, "".join(part))
        for path in set(folder.glob(FILE_NAME.replace("{:03d}", "*"))) - set(paths):
            path.unlink()
    return {"train": split, "eval": held_out}


def write_facts(path: str | Path, probes: Iterable[Probe]) -> int:
    """Write ``{"statement", "answer", "relation"}`` objects, one per line; return their number."""
    lines = [json.dumps(probe._asdict()) + "\n" for probe in probes]
    write_text(Path(path), "".join(lines))
    return len(lines)


def write_text(path: Path, text: str) -> None:
    """Write a file, making its folders; the bytes are the same on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf8", newline="\n")


def _article(world: InventedWorld, thing: Entity, second: bool) -> list[str]:
    rng = Random(f"gazetteer {world.seed} {call(thing)} {second}")
    narrator = Narrator(thing, rng)
    opening, *sections = _worded(world, thing, int(second))
    sentences = [narrator.tell(opening[0][1])]
    told = narrator.told - {"name"}
    for section in sections:
        for when, template in rng.sample(section, len(section)):
            left_out = second and rng.random() < LEFT_OUT
            if holds(thing, when) and when not in told and not left_out:
                sentences.append(narrator.tell(template))
    others = [find(thing) for find in ASIDES[type(thing)]]
    if not second:
        others.append(_country(thing))
    for other in others:
        if other is not None and other is not thing:
            sentences += _aside(world, other, thing, rng, second)
    return sentences


def _country(thing: Entity) -> Country:
    if isinstance(thing, Country):
        return thing
    return thing.countries[-1] if isinstance(thing, River) else thing.country


def _aside(world: InventedWorld, thing: Entity, subject: Entity, rng: Random, second: bool) -> list[str]:
    """Return two or three sentences about another thing that do not name ``subject``."""
    facts = [fact for section in _worded(world, thing, 2 * second)[1:] for fact in section]
    narrator, sentences = Narrator(thing, rng), []
    length = rng.randrange(2, 4)
    for when, template in rng.sample(facts, len(facts)):
        if len(sentences) == length or not holds(thing, when):
            continue
        sentence = narrator.tell(template)
        if call(subject) not in sentence and (sentences or call(thing) in sentence):
            sentences.append(sentence)
        elif not sentences:
            narrator = Narrator(thing, rng)  # the first sentence kept names the thing
    return sentences


def _worded(world: InventedWorld, thing: Entity, wording: int) -> list[list[tuple[str, str]]]:
    """Choose a sentence for each fact about ``thing``, opening first; each ``wording`` (0, 1, 2) chooses another."""
    first, texts = Random(f"gazetteer {world.seed} {call(thing)}"), articles_about(type(thing))
    return [
        [(when, ways[(first.randrange(len(ways)) + wording) % len(ways)]) for when, ways in section]
        for section in ([texts.opening], *texts.sections)
    ]
