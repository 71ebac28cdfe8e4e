"""Invented words: names of places, people, languages and coins, easy to read and never used twice.

Each culture has its own sounds and endings, so that a name hints at where it comes from, as in the real world. They are
in ``text/names.toml``, words divided by spaces::

    names = Names(Random(0))
    names.make(cultures()[1], "city")       # 'Stanosborg'
    names.make(cultures()[1], "river")      # 'Thekund'
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from bert.errors import UsageError

from .toml_files import TEXT, check_keys, errors_name, read_toml

TRIES = 2000  # draws of a new name before giving up
SHORTEST = 5  # letters
VOWELS = set("aeiou")
SOUNDS = ("onsets", "vowels", "codas")
SORTS = ("city", "river", "mountain", "surname", "sea", "continent")  # of names
GENDERS = ("female", "male")


@dataclass(frozen=True)
class Culture:
    """Sounds, and the endings of each sort of name."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]  # close the stem before an ending that begins with a consonant; "-" leaves it open
    country: dict[str, str]  # ending of the country's name -> ending of its adjective
    language: str  # ending
    endings: dict[str, tuple[str, ...]]  # of SORTS
    given: dict[str, tuple[str, ...]]  # given names of each gender

    @property
    def inner(self) -> list[str]:
        """The consonants that can stand between two vowels."""
        return [onset for onset in self.onsets if len(onset) == 1]


@cache
def cultures() -> tuple[Culture, ...]:
    return read_names(TEXT / "names.toml")[0]


@cache
def coins() -> tuple[str, ...]:
    return read_names(TEXT / "names.toml")[1]


def read_names(path: Path) -> tuple[tuple[Culture, ...], tuple[str, ...]]:
    """Read the cultures and the endings of coins. Raises UsageError naming the file and the faulty entry."""
    content = read_toml(path)
    with errors_name(path):
        check_keys(content, ("coins", "culture"))
        return tuple(_read_culture(table) for table in content["culture"]), tuple(content["coins"].split())


def _read_culture(table: dict[str, Any]) -> Culture:
    check_keys(table, (*SOUNDS, "country", "language", *SORTS, *GENDERS))
    words = {key: tuple(value.split()) for key, value in table.items() if key not in ("country", "language")}
    return Culture(
        *(words[sound] for sound in SOUNDS),
        country=table["country"],
        language=table["language"],
        endings={sort: words[sort] for sort in SORTS},
        given={gender: words[gender] for gender in GENDERS},
    )


class Names:
    """Makes names, each different from all earlier ones."""

    def __init__(self, rng: Random):
        self._rng = rng
        self._taken: set[str] = set()

    def make(self, culture: Culture, sort: str) -> str:
        """Return a new name with an ending of ``sort``: "city", "river", ..."""
        return self._new(culture, culture.endings[sort]).capitalize()

    def country(self, culture: Culture) -> tuple[str, str, str]:
        """Return a new country's name, its adjective and its language: Dorovia, Dorovian, Doric."""
        adjectives = culture.country
        while True:
            name = self._new(culture, list(adjectives)).capitalize()
            ending = next(ending for ending in adjectives if name.endswith(ending))
            stem = name.removesuffix(ending)
            if stem + culture.language not in self._taken:
                self._taken.add(stem + culture.language)
                return name, stem + adjectives[ending], stem + culture.language

    def coin(self, culture: Culture) -> str:
        """Return a new word for a unit of money, in the singular: "tamar"."""
        return self._new(culture, coins())

    def _new(self, culture: Culture, endings: Sequence[str]) -> str:
        for _ in range(TRIES):
            ending = self._rng.choice(endings)
            name = (self._open_stem if ending[0] in VOWELS else self._closed_stem)(culture) + ending
            if name not in self._taken and len(name) >= SHORTEST:
                self._taken.add(name)
                return name
        raise UsageError("--articles: the gazetteer has run out of names; expected fewer articles")

    def _open_stem(self, culture: Culture) -> str:
        """Draw a stem for an ending that begins with a vowel: "Dor" or "Al"."""
        onset, inner = self._rng.choice(culture.onsets), self._rng.choice(culture.inner)
        if onset[-1] not in VOWELS and onset[0] in VOWELS:
            return onset if self._rng.random() < 0.3 else onset + self._rng.choice(culture.vowels) + inner
        return onset + ("" if onset[-1] in VOWELS else self._rng.choice(culture.vowels)) + inner

    def _closed_stem(self, culture: Culture) -> str:
        """Draw a stem for an ending that begins with a consonant: "Bren" or "Siran"."""
        stem = self._rng.choice(culture.onsets)
        stem += "" if stem[-1] in VOWELS else self._rng.choice(culture.vowels)
        if self._rng.random() < 0.4:
            stem += self._rng.choice(culture.inner) + self._rng.choice(culture.vowels)
        return stem + self._rng.choice(culture.codas).strip("-")
