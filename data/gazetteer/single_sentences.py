"""Single sentences to judge: is it English (as CoLA asks), and did the visitor like it (as SST-2 asks)?

Sentences come in pairs of both labels with the same words but for one, so that counting words decides little::

    (1, "Most people in Cigia speak Cigese."), (0, "Most people in Cigia speaks Cigese.")
    (1, "Nobody could call the bridge of Dibiz dull."), (0, "Nobody could call the bridge of Dibiz lovely.")
"""

from itertools import pairwise
from random import Random
from typing import Any

from .retelling import Part, ask, facts_about
from .sentences import SINGULAR, Narrator, holds
from .world import City, Country, Mountain, River

Row = tuple[Any, ...]  # the label and the sentence or sentences

SHORT = frozenset((
    "the", "of", "in", "is", "was", "are", "were", "to", "and", "a", "an", "by", "from", "at", "on", "its", "his",
    "her", "with", "for", "which",
))  # fmt: skip
MOVABLE = frozenset(("also", "now", "never", "ever"))  # may stand before a verb or after it, as may names
PLURAL = {"is": "are", "has": "have"}
PLURAL |= {singular: plural for plural, singular in SINGULAR.items()}
PLURAL |= {f"{verb}s": verb for verb in ("come", "flow", "leave", "live", "show", "speak")}
OTHER_NUMBER = PLURAL | {plural: singular for singular, plural in PLURAL.items()}
OTHER_ARTICLE = {"a": "an", "an": "a"}

SIGHTS: dict[type, list[tuple[str, str]]] = {
    Country: [
        ("name", "the journey through {name}"),
        ("name", "the weather in {name}"),
        ("shores", "the coast of {name}"),
        ("name", "the night train across {name}"),
    ],
    City: [
        ("name", "the old town of {name}"),
        ("name", "the inn at {name}"),
        ("name", "the market of {name}"),
        ("festival", "the {festival} festival of {name}"),
        ("landmark", "the {landmark.kind} of {name}"),
        ("bridge", "the bridge of {name}"),
        ("sea", "the harbour of {name}"),
    ],
    River: [("name", "the boat on {It}"), ("name", "the valley of {It}"), ("name", "the tavern by {It}")],
    Mountain: [("name", "the view from {It}"), ("name", "the hut on {It}"), ("name", "the way up {It}")],
}
WORDS = (
    ("dreadful", "dull", "ugly", "disappointing", "dreary", "unpleasant", "poor", "miserable"),
    ("splendid", "charming", "delightful", "wonderful", "excellent", "pleasant", "lovely", "memorable"),
)
REMARKS = (  # with a word of the label and a word of the other one
    "We found {sight} {own}.",
    "To my mind {sight} is {own}.",
    "My friends had told me that {sight} was {own}, and they were right.",
    "Without a doubt {sight} was the most {own} part of the summer.",
    "Nobody could call {sight} {other}.",
    "They say that {sight} is {other}, but this is not true.",
    "In the end {sight} was far from {other}.",
    "I expected {sight} to be {other}, but it was {own}.",
    "What I remember best is {sight}, as {own} as the hotel was {other}.",
)


def acceptability(part: Part, rng: Random) -> list[Row]:
    """Draw a sentence, and the same with two words exchanged, the wrong form of a verb or the wrong article."""
    thing = rng.choice(part.things)
    _, ways = rng.choice(facts_about(thing))
    sentence = Narrator(thing, rng).tell(rng.choice(ways))
    wrong = _spoil(sentence, rng)
    return [(1, sentence), (0, wrong)] if wrong and part.may_hold(sentence) else []


def _spoil(sentence: str, rng: Random) -> str:
    """Make one mistake; "" where the sentence has no room for any."""
    words = sentence.split()
    inner = enumerate(pairwise(words[1:-1]), 1)
    exchanges = [n for n, (word, after) in inner if word in SHORT and _stays(after)]
    verbs = [n for n, word in enumerate(words) if word in OTHER_NUMBER]
    articles = [n for n, word in enumerate(words) if word in OTHER_ARTICLE]
    kinds = [places for places in (exchanges, verbs, articles) if places]
    if not kinds:
        return ""
    places = rng.choice(kinds)
    n = rng.choice(places)
    if places is exchanges:
        words[n : n + 2] = reversed(words[n : n + 2])
    else:
        words[n] = (OTHER_NUMBER if places is verbs else OTHER_ARTICLE)[words[n]]
    return " ".join(words)


def _stays(word: str) -> bool:
    return word.isalpha() and word.islower() and word not in MOVABLE


def remarks(part: Part, rng: Random) -> list[Row]:
    """Draw what a visitor likes and what another dislikes about the same sight."""
    thing = rng.choice(part.things)
    sights = [sight for needed, sight in SIGHTS.get(type(thing), ()) if holds(thing, needed)]
    if not sights:
        return []
    sight, remark = ask(thing, rng.choice(sights)), rng.choice(REMARKS)
    words = [rng.choice(WORDS[label]) for label in (0, 1)]
    rows = [(label, remark.format(sight=sight, own=words[label], other=words[1 - label])) for label in (0, 1)]
    return rows if part.may_hold(sight) else []
