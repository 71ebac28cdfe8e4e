"""Turns a thing of the world and a template into an English sentence.

``{It}`` and ``{Its}`` become the thing's name, a noun or a pronoun; ``{it}``, ``{its}`` and ``{them}`` always become a
pronoun. Any other placeholder names an attribute of the thing, and a word after its colon is one of FORMS::

    "{Its} capital is {capital}."            Dorovia's capital is Rosgrad.  |  Its capital is Rosgrad.
    "{It} was {country.adjective:a} poet."   Vesna Barenko was a Dorovian poet.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from bert.errors import UsageError

from .world import City, Country, Entity, Mountain, Person, River

SUBJECT_WORDS = ("It", "Its", "it", "its", "them")
PRONOUNS = {"female": ("she", "her", "her"), "male": ("he", "his", "him"), "": ("it", "its", "it")}
RELATIVES = {
    "parent": {"female": "mother", "male": "father"},
    "child": {"female": "daughter", "male": "son"},
    "spouse": {"female": "wife", "male": "husband"},
}
ORDINALS = (
    "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth",
    "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth",
)  # fmt: skip
SINGULAR = {"were": "was", "lie": "lies", "stand": "stands", "rise": "rises"}


def call(thing: Any) -> str:
    """Return what a thing is called in the middle of a sentence: "the Lonava", "Mount Dorfell", "Rosgrad"."""
    if isinstance(thing, River):
        return f"the {thing.name}"
    if isinstance(thing, Mountain):
        return f"Mount {thing.name}"
    return thing.name if isinstance(thing, Country | City | Person) else str(thing)


def introduce(thing: City | Person) -> str:
    """Return a name with what a reader who has not met it needs: "the Dorovian poet Vesna Barenko"."""
    if isinstance(thing, Person):
        return f"the {thing.country.adjective} {thing.profession} {thing.name}"
    if thing is thing.country.capital:
        return f"the {thing.country.adjective} capital {thing.name}"
    return f"the city of {thing.name} in {thing.region} {thing.country.name}"


def with_article(word: str) -> str:
    """Put "a" or "an" before a word; no word of the gazetteer begins with a silent h or with "eu"."""
    return f"{'an' if word[0] in 'aeioAEIO' else 'a'} {word}"


def ordinal_of_century(year: int) -> str:
    """Count the century of a year from 301 to 2000: 1801 to 1900 is the nineteenth."""
    return ORDINALS[(year - 1) // 100 - 3]


def enumerate_words(words: Sequence[str]) -> str:
    """Join words as a sentence does: "x, y and z"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


class Form(NamedTuple):
    """A way to write a value."""

    write: Callable[[Any], str]
    accepts: tuple[Any, ...]  # types of the values


NAMED = (Country, City, River, Mountain, Person, str, int)
FORMS: Mapping[str, Form] = {
    "": Form(call, NAMED),
    "a": Form(lambda value: with_article(call(value)), NAMED),
    "n": Form(lambda value: f"{value:,}", (int,)),
    "ordinal": Form(ordinal_of_century, (int,)),
    "century": Form(lambda year: f"{ordinal_of_century(year)} century", (int,)),
    "full": Form(introduce, (City, Person)),
    "list": Form(lambda values: enumerate_words([call(value) for value in values]), (list,)),
    "people": Form(
        lambda people: enumerate_words([f"the {person.profession} {person.name}" for person in people]),
        (list[Person],),
    ),
    **{name: Form(words.__getitem__, (str,)) for name, words in RELATIVES.items()},
    **{verb: Form(lambda things, verb=verb: verb if len(things) > 1 else SINGULAR[verb], (list,)) for verb in SINGULAR},
}


def holds(thing: Entity, when: str) -> bool:
    """Return whether a thing has the attribute ``when``, or after "not " whether it lacks the attribute."""
    name = when.removeprefix("not ")
    return bool(getattr(thing, name)) == (name == when)


class Narrator(string.Formatter):
    """Writes sentences about one thing; what it has written decides between a name and a pronoun."""

    def __init__(self, thing: Entity, rng: Random):
        self._thing, self._rng = thing, rng
        self._subject = call(thing)
        self._started = False
        self._rivals = False  # whether a pronoun or surname could mean a person whom the last sentence named
        self.told: set[str] = set()  # placeholders used so far: {capital}, not {capital.name}, tells the capital

    def tell(self, template: str) -> str:
        """Return the next sentence."""
        self._subject = self._choose_subject()
        self._started, self._rivals = True, False
        text = self.format(template)
        return text[0].upper() + text[1:]

    def _choose_subject(self) -> str:
        thing, draw = self._thing, self._rng.random()
        if not self._started or self._rivals or draw < 0.25:
            return call(thing)
        if draw < 0.7:
            return PRONOUNS[_gender(thing)][0]
        return thing.surname if isinstance(thing, Person) else f"the {_noun(thing)}"

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.told.add(field_name)
        try:
            field = super().get_field(field_name, args, kwargs)
        except (AttributeError, IndexError):
            field = None, ""
        if field[0] is None:
            raise UsageError(f"{{{field_name}}}: {call(self._thing)} has no such value; add `when` to the template")
        return field

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        it, its, them = PRONOUNS[_gender(self._thing)]
        its_own = its if self._subject == it else _possessive(self._subject)
        words = {"It": self._subject, "Its": its_own, "it": it, "its": its, "them": them}
        return words[str(key)] if key in words else getattr(self._thing, str(key))

    def format_field(self, value: Any, format_spec: str) -> str:
        for other in value if isinstance(value, list) else [value]:
            if isinstance(other, Person) and isinstance(self._thing, Person):
                self._rivals |= other.gender == self._thing.gender or other.surname == self._thing.surname
        return FORMS[format_spec].write(value)


def _gender(thing: Any) -> str:
    return thing.gender if isinstance(thing, Person) else ""


def _noun(thing: Entity) -> str:
    return thing.government if isinstance(thing, Country) else type(thing).__name__.lower()


def _possessive(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"
