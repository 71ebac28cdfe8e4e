"""Single sentences to judge: is it grammatical (CoLA), and did the visitor like it (SST-2)?

Sentences come in pairs that have opposite labels and differ in one mistake or one word, so that counting words helps
little::

    (1, "Most people in Cigia speak Cigese."), (0, "Most people in Cigia speaks Cigese.")
    (1, "Nobody could call the bridge of Dibiz dull."), (0, "Nobody could call the bridge of Dibiz lovely.")
"""

from itertools import pairwise
from random import Random
from typing import Any

from .retelling import EntitySplit, ask, facts_about
from .sentences import SINGULAR, Narrator, holds
from .templates import visitors_remarks

Row = tuple[Any, ...]  # the label and the sentence or sentences

SHORT = frozenset((
    "the", "of", "in", "is", "was", "are", "were", "to", "and", "a", "an", "by", "from", "at", "on", "its", "his",
    "her", "with", "for", "which",
))  # fmt: skip
MOVABLE = frozenset(("also", "now", "never", "ever"))  # can stand before or after a verb, as names can
PLURAL = {"is": "are", "has": "have"}
PLURAL |= {singular: plural for plural, singular in SINGULAR.items()}
PLURAL |= {f"{verb}s": verb for verb in ("come", "flow", "leave", "live", "show", "speak")}
OTHER_NUMBER = PLURAL | {plural: singular for singular, plural in PLURAL.items()}
OTHER_ARTICLE = {"a": "an", "an": "a"}


def acceptability(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw a sentence, and the same with two words swapped, a wrong verb form or a wrong article."""
    thing = rng.choice(split.things)
    _, ways = rng.choice(facts_about(thing))
    sentence = Narrator(thing, rng).tell(rng.choice(ways))
    wrong = _spoil(sentence, rng)
    return [(1, sentence), (0, wrong)] if wrong and split.allows(sentence) else []


def _spoil(sentence: str, rng: Random) -> str:
    """Make one mistake; return "" if none is possible in this sentence."""
    words = sentence.split()
    inner = enumerate(pairwise(words[1:-1]), 1)
    swaps = [n for n, (word, after) in inner if word in SHORT and _stays(after)]
    verbs = [n for n, word in enumerate(words) if word in OTHER_NUMBER]
    articles = [n for n, word in enumerate(words) if word in OTHER_ARTICLE]
    kinds = [places for places in (swaps, verbs, articles) if places]
    if not kinds:
        return ""
    places = rng.choice(kinds)
    n = rng.choice(places)
    if places is swaps:
        words[n : n + 2] = reversed(words[n : n + 2])
    else:
        words[n] = (OTHER_NUMBER if places is verbs else OTHER_ARTICLE)[words[n]]
    return " ".join(words)


def _stays(word: str) -> bool:
    return word.isalpha() and word.islower() and word not in MOVABLE


def remarks(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw a positive and a negative remark about the same sight."""
    thing = rng.choice(split.things)
    texts = visitors_remarks()
    sights = [sight for when, sight in texts.sights.get(type(thing), ()) if holds(thing, when)]
    if not sights:
        return []
    sight, remark = ask(thing, rng.choice(sights)), rng.choice(texts.remarks)
    words = [rng.choice(texts.words[label]) for label in (0, 1)]
    rows = [(label, remark.format(sight=sight, own=words[label], other=words[1 - label])) for label in (0, 1)]
    return rows if split.allows(sight) else []
