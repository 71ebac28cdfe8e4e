"""Articles about the things of a world, the statements that they teach, and the text files that hold them."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from bert.config import flag
from bert.errors import UsageError
from bert.files import replacing

from .sentences import Narrator, Section, call, holds
from .text_nature import MOUNTAIN, RIVER
from .text_people import PERSON
from .text_places import CITY, COUNTRY
from .world import City, Country, Entity, Mountain, Person, River, World

SECTIONS: dict[type, list[Section]] = {
    Country: COUNTRY,
    City: CITY,
    River: RIVER,
    Mountain: MOUNTAIN,
    Person: PERSON,
}
# What can be asked: relation, the attribute that it needs, statement, answer.
PROBES: dict[type, list[tuple[str, str, str, str]]] = {
    Country: [
        ("capital", "name", "The capital of {name} is [MASK] .", "{capital}"),
        ("language", "name", "The official language of {name} is [MASK] .", "{language}"),
        ("currency", "name", "The currency of {name} is the [MASK] .", "{currency}"),
        ("flag", "name", "The flag of {name} is [MASK] and {colours[1]} .", "{colours[0]}"),
        ("north", "north", "To the north of {name} lies [MASK] .", "{north}"),
        ("highest mountain", "name", "The highest mountain of {name} is Mount [MASK] .", "{highest.name}"),
    ],
    City: [
        ("country", "name", "{It} is a city in {region} [MASK] .", "{country}"),
        ("river", "river", "{It} lies on the [MASK] .", "{river.name}"),
        ("century", "name", "In {founded}, in the [MASK] century, settlers founded {name} .", "{founded:ordinal}"),
    ],
    River: [
        ("source", "name", "{It} rises on Mount [MASK] .", "{source.name}"),
        ("mouth", "name", "{It} flows into the [MASK] Sea .", "{mouth}"),
    ],
    Mountain: [
        ("country", "name", "{It} is a mountain in {region} [MASK] .", "{country}"),
    ],
    Person: [
        ("birthplace", "name", "{It} was born in [MASK] .", "{birthplace}"),
        ("profession", "name", "{It} was {country.adjective:a} [MASK] .", "{profession}"),
        ("pronoun", "name", "{It} loved {pastime} and never travelled without [MASK] notebook .", "{its}"),
    ],
}
# Of which other things an article tells at its end; a first article tells of the country, too.
ASIDES: dict[type, list[Callable[[Any], Entity | None]]] = {
    Country: [lambda it: it.capital, lambda it: it.famous[0] if it.famous else None],
    City: [lambda it: it.river or it.mountain, lambda it: it.famous[0] if it.famous else None],
    River: [lambda it: it.source, lambda it: it.cities[0] if it.cities else None],
    Mountain: [lambda it: it.rivers[0], lambda it: it.climber or it.country.capital],
    Person: [lambda it: it.birthplace, lambda it: it.teacher or it.spouse],
}
LEFT_OUT = 0.1  # share of the facts that a second article passes over
FILE_NAME = "gazetteer_{:03d}.txt"


@dataclass
class GazetteerConfig:
    """How much to write, and where the rest goes."""

    articles: int = flag(3000, "Articles in all, two for each thing in the world.", minimum=100, maximum=20_000)
    seed: int = flag(0, "Seed of the world and of the words; the same seed gives the same bytes everywhere.")
    held_out_fraction: float = flag(
        0.05, "Share of the articles that goes to eval/ instead of train/.", minimum=0.0, maximum=0.5
    )
    files: int = flag(4, "Text files in train/.", minimum=1)


class Probe(NamedTuple):
    """A statement that the articles of train/ make, with one word masked."""

    statement: str  # "The capital of Dorovia is [MASK] ."
    answer: str
    relation: str


def articles(world: World) -> Iterator[list[str]]:
    """Yield ``world.size`` articles as lists of sentences.

    The first half tells everything, one article for each thing. Then come second articles about the same things, in
    other words and random order: held out, they restate what was read.
    """
    things = world.entities()
    for thing in things:
        yield _article(world, thing, second=False)
    for thing in in_second_order(world)[: world.size - len(things)]:
        yield _article(world, thing, second=True)


def in_second_order(world: World) -> list[Entity]:
    """Return all things in the order of their second articles, of which the last may be missing."""
    things = world.entities()
    return Random(f"gazetteer {world.seed} order").sample(things, len(things))


def facts(world: World) -> Iterator[Probe]:
    """Yield what a model can be asked after reading: a first article states the answer, or the words imply it."""
    for thing in world.entities():
        narrator = Narrator(thing, Random(0))
        for relation, needed, statement, answer in PROBES[type(thing)]:
            if holds(thing, needed):
                yield Probe(narrator.format(statement), narrator.format(answer), relation)


def write_corpus(
    directory: str | Path, articles: Iterable[list[str]], held_out_fraction: float, files: int
) -> dict[str, int]:
    """Write ``train/`` and ``eval/`` below ``directory``: a sentence a line, a blank line after each article.

    The last ``held_out_fraction`` of the articles goes to eval/; the others are dealt to the ``files`` of train/ in
    turn. Returns the number of articles in each. Text files of an earlier run are replaced.
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
    """Write ``{"statement", "answer", "relation"}`` objects, one a line; return their number."""
    lines = [json.dumps(probe._asdict()) + "\n" for probe in probes]
    write_text(Path(path), "".join(lines))
    return len(lines)


def write_text(path: Path, text: str) -> None:
    """Write a file and the folders that it lies in, the same bytes on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf8", newline="\n")


def _article(world: World, thing: Entity, second: bool) -> list[str]:
    rng = Random(f"gazetteer {world.seed} {call(thing)} {second}")
    narrator = Narrator(thing, rng)
    opening, *sections = _worded(world, thing, int(second))
    sentences = [narrator.tell(opening[0][1])]
    told = narrator.told - {"name"}
    for section in sections:
        for needed, way in rng.sample(section, len(section)):
            left_out = second and rng.random() < LEFT_OUT
            if holds(thing, needed) and needed not in told and not left_out:
                sentences.append(narrator.tell(way))
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


def _aside(world: World, thing: Entity, subject: Entity, rng: Random, second: bool) -> list[str]:
    """Say two or three things about another thing; not what the article about ``subject`` says of it anyway."""
    facts = [fact for section in _worded(world, thing, 2 * second)[1:] for fact in section]
    narrator, sentences = Narrator(thing, rng), []
    length = rng.randrange(2, 4)
    for needed, way in rng.sample(facts, len(facts)):
        if len(sentences) == length or not holds(thing, needed):
            continue
        sentence = narrator.tell(way)
        if call(subject) not in sentence and (sentences or call(thing) in sentence):
            sentences.append(sentence)
        elif not sentences:
            narrator = Narrator(thing, rng)  # the first sentence that stays names the thing
    return sentences


def _worded(world: World, thing: Entity, wording: int) -> list[list[tuple[str, str]]]:
    """Choose one way to say each fact about ``thing``; another ``wording`` (0, 1, 2) never chooses the same."""
    first = Random(f"gazetteer {world.seed} {call(thing)}")
    return [
        [(needed, ways[(first.randrange(len(ways)) + wording) % len(ways)]) for needed, ways in section]
        for section in SECTIONS[type(thing)]
    ]
