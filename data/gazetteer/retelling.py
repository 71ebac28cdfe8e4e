"""Facts told again for the fine-tuning data, by the generators of the articles, in other words and order.

The things are parted: of one in ten neither the name nor the adjective occurs in training. They are the last tenth in
the order of the second articles, so that with the default flags their second articles, and no others, are in eval/;
their first articles, which tell everything, are in train/. A pre-trained model has met these things, then, but
fine-tuning shows it none of them::

    train, held_out = split_things(world)
    [told.sentence for told in describe(train, train.things[0], Random(0), words=40)]
"""

import re
from collections.abc import Container, Iterable
from itertools import pairwise
from random import Random
from typing import NamedTuple

from .corpus import SECTIONS, in_second_order
from .sentences import Fact, Narrator, holds
from .text_questions import Question
from .world import Country, Entity, World

HELD_OUT = 0.1  # share of the things


class Part(NamedTuple):
    """Things to tell of, and the names that may not occur when one does."""

    things: list[Entity]
    hidden: frozenset[str] = frozenset()

    def may_hold(self, text: str) -> bool:
        words = re.findall(r"\w+", text)
        return self.hidden.isdisjoint(words) and self.hidden.isdisjoint(map(" ".join, pairwise(words)))

    def like(self, thing: Entity) -> list[Entity]:
        """Return the other things of the same kind."""
        return [other for other in self.things if type(other) is type(thing) and other is not thing]


class Told(NamedTuple):
    """A sentence, and what it was made from."""

    thing: Entity
    needed: str  # "" for the first sentence about a thing, which may answer any question
    way: str
    sentence: str


def split_things(world: World) -> tuple[Part, Part]:
    """Return the things for training and the held-out ones.

    A thing that the first sentence about it ties to a held-out one, as a city to its country, is in neither.
    """
    things = in_second_order(world)
    split = len(things) - max(1, round(len(things) * HELD_OUT))
    held_out = things[split:]
    names = {thing.name for thing in held_out} | {thing.adjective for thing in held_out if isinstance(thing, Country)}
    train = Part(things[:split], frozenset(names))
    return train._replace(things=[thing for thing in train.things if train.may_hold(_openings(thing))]), Part(held_out)


def describe(part: Part, thing: Entity, rng: Random, words: int, first: Container[str] = ()) -> list[Told]:
    """Tell as many facts about a thing, drawn at random but some of them ``first``, as fit into ``words`` words."""
    narrator = Narrator(thing, rng)
    way = rng.choice(SECTIONS[type(thing)][0][0][1])
    told = [Told(thing, "", way, narrator.tell(way))]
    known = narrator.told - {"name"}
    room = words - _length(told[0].sentence)
    facts = facts_about(thing)
    for needed, ways in sorted(rng.sample(facts, len(facts)), key=lambda fact: fact[0] not in first):
        way = rng.choice(ways)
        sentence = narrator.tell(way)
        if needed not in known and _length(sentence) <= room and part.may_hold(sentence):
            told.append(Told(thing, needed, way, sentence))
            room -= _length(sentence)
    return told


def facts_about(thing: Entity) -> list[Fact]:
    """Return what can be told of a thing after the first sentence."""
    return [fact for section in SECTIONS[type(thing)][1:] for fact in section if holds(thing, fact[0])]


def ask(thing: Entity, pattern: str) -> str:
    """Fill a question or an answer in, with the thing's name for {It}."""
    return Narrator(thing, Random(0)).format(pattern)


def answers_in(told: Told, question: Question) -> dict[str, re.Match[str]]:
    """Return where a sentence answers a question about its thing, by pattern; the first is what was asked for."""
    if told.needed not in ("", question.needed) or not question.is_answered_by(told.way):
        return {}
    found = {answer: occurrences(ask(told.thing, answer), told.sentence) for answer in question.answers}
    return {answer: matches[0] for answer, matches in found.items() if len(matches) == 1}


def occurrences(words: str, text: str) -> list[re.Match[str]]:
    """Return where ``words`` stand as whole words in a text; a sentence may begin with them."""
    return list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE))


def join(sentences: Iterable[Told]) -> str:
    return " ".join(told.sentence for told in sentences)


def _openings(thing: Entity) -> str:
    return " ".join(ask(thing, way) for way in SECTIONS[type(thing)][0][0][1])


def _length(sentence: str) -> int:
    return len(sentence.split())
