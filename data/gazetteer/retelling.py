"""Facts for the fine-tuning data, told in other words and another order than in the articles.

One thing in ten is held out: its name and adjective do not occur in the training data of a task. These are the last
tenth in the order of the second articles, so that with the default flags exactly their second articles are in eval/,
while their first articles, which tell everything, are in train/. Pre-training has therefore seen these things, and
fine-tuning has not::

    train, held_out = split_things(world)
    [told.sentence for told in describe(train, train.things[0], Random(0), words=40)]
"""

import re
from collections.abc import Container, Iterable
from itertools import pairwise
from random import Random
from typing import NamedTuple

from .corpus import in_second_order
from .sentences import Narrator, holds
from .templates import Fact, Question, articles_about
from .world import Country, Entity, InventedWorld

HELD_OUT = 0.1  # share of the things


class EntitySplit(NamedTuple):
    """The things of training, dev or test, and the names that must not occur in texts about them."""

    things: list[Entity]
    hidden: frozenset[str] = frozenset()

    def allows(self, text: str) -> bool:
        words = re.findall(r"\w+", text)
        return self.hidden.isdisjoint(words) and self.hidden.isdisjoint(map(" ".join, pairwise(words)))

    def like(self, thing: Entity) -> list[Entity]:
        """Return the other things of the same kind."""
        return [other for other in self.things if type(other) is type(thing) and other is not thing]


class Told(NamedTuple):
    """A sentence, and what it was made from."""

    thing: Entity
    when: str  # of the fact; "" for the opening, which may answer any question
    template: str
    sentence: str


def split_things(world: InventedWorld) -> tuple[EntitySplit, EntitySplit]:
    """Return the things for training and the held-out ones.

    A thing whose opening may name a held-out one, as a city's names its country, is in neither.
    """
    things = in_second_order(world)
    split = len(things) - max(1, round(len(things) * HELD_OUT))
    held_out = things[split:]
    names = {thing.name for thing in held_out} | {thing.adjective for thing in held_out if isinstance(thing, Country)}
    train = EntitySplit(things[:split], frozenset(names))
    usable = [thing for thing in train.things if train.allows(_openings(thing))]
    return train._replace(things=usable), EntitySplit(held_out)


def describe(split: EntitySplit, thing: Entity, rng: Random, words: int, first: Container[str] = ()) -> list[Told]:
    """Tell as many facts about a thing as fit into ``words`` words, at random, but those in ``first`` before others."""
    narrator = Narrator(thing, rng)
    template = rng.choice(articles_about(type(thing)).opening.sentences)
    told = [Told(thing, "", template, narrator.tell(template))]
    known = narrator.told - {"name"}
    room = words - _length(told[0].sentence)
    facts = facts_about(thing)
    for fact in sorted(rng.sample(facts, len(facts)), key=lambda fact: fact.when not in first):
        template = rng.choice(fact.sentences)
        sentence = narrator.tell(template)
        if fact.when not in known and _length(sentence) <= room and split.allows(sentence):
            told.append(Told(thing, fact.when, template, sentence))
            room -= _length(sentence)
    return told


def facts_about(thing: Entity) -> list[Fact]:
    """Return the facts that can be told of a thing after the opening."""
    sections = articles_about(type(thing)).sections
    return [fact for section in sections for fact in section if holds(thing, fact.when)]


def ask(thing: Entity, template: str) -> str:
    """Fill in a question or an answer, with the thing's name for {It}."""
    return Narrator(thing, Random(0)).format(template)


def answers_in(told: Told, question: Question) -> dict[str, re.Match[str]]:
    """Return where a sentence has the answers to a question about its thing, by template; the first is the best one."""
    if told.when not in ("", question.when) or not question.is_answered_by(told.template):
        return {}
    found = {answer: occurrences(ask(told.thing, answer), told.sentence) for answer in question.answers}
    return {answer: matches[0] for answer, matches in found.items() if len(matches) == 1}


def occurrences(words: str, text: str) -> list[re.Match[str]]:
    """Return where ``words`` occur as whole words in a text, in any case."""
    return list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE))


def join(sentences: Iterable[Told]) -> str:
    return " ".join(told.sentence for told in sentences)


def _openings(thing: Entity) -> str:
    return " ".join(ask(thing, way) for way in articles_about(type(thing)).opening.sentences)


def _length(sentence: str) -> int:
    return len(sentence.split())
