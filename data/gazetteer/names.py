"""Invented words: names of places, people, languages and coins, each read easily and used once.

A culture has its own sounds and endings, so that a name hints at where it comes from, as in the real world::

    names = Names(Random(0))
    names.make(CULTURES[1], "city")       # 'Brenholm'
    names.make(CULTURES[1], "river")      # 'Sorelv'
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from bert.errors import UsageError

TRIES = 2000  # draws of one new name before the sounds are taken to be used up
SHORTEST = 5  # letters


@dataclass(frozen=True)
class Culture:
    """Sounds, and the endings of each sort of name; a country's ending comes with that of its adjective."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]  # close the stem before an ending that begins with a consonant; "-" leaves it open
    country: tuple[tuple[str, str], ...]
    language: str
    endings: dict[str, tuple[str, ...]]
    given: dict[str, tuple[str, ...]]  # "female" and "male"

    @property
    def inner(self) -> list[str]:
        """The consonants that can stand between two vowels."""
        return [onset for onset in self.onsets if len(onset) == 1]


def _culture(sounds: str, country: str, language: str, female: str, male: str, **endings: str) -> Culture:
    onsets, vowels, codas = (tuple(part.split()) for part in sounds.split("|"))
    pairs = tuple((ending, adjective) for ending, adjective in (word.split("/") for word in country.split()))
    given = {"female": tuple(female.split()), "male": tuple(male.split())}
    return Culture(
        onsets, vowels, codas, pairs, language, {sort: tuple(text.split()) for sort, text in endings.items()}, given
    )


CULTURES = (
    _culture(
        "b c d f g l m n p r s t v al or|a e i o|l n r s",
        country="ia/ian ara/aran",
        language="ese",
        female="Alda Bianora Celia Delara Elina Fiora Giada Ilaria Liana Marela Noemia Orsola Renata Teresa Viola",
        male="Aldo Bruno Carlo Dario Emilo Fabio Gino Lauro Marco Nestor Orlo Paolo Renzo Silvo Tullio Vito",
        city="ona enza era ino osta ella",
        river="aro ino essa",
        mountain="orno uvio asso",
        surname="elli ardo esi ani otto ucci",
        sea="ene",
        continent="essia",
    ),
    _culture(
        "b br d f g h k l m n r s sk st t th v as ei|a e i o|l n r s ld",
        country="mark/markish heim/heimish",
        language="ish",
        female="Agnet Birgit Dagny Elsa Frida Greta Helga Ingrid Karin Liv Marit Ragna Sigrid Solveig Thora Ylva",
        male="Anders Bjorn Dag Einar Folke Gustav Hakon Ivar Knut Lars Magnus Olaf Rolf Sven Torsten Ulrik",
        city="holm vik stad borg sund",
        river="elv und",
        mountain="horn fell tind",
        surname="sen berg dal quist strom",
        sea="ger",
        continent="garia",
    ),
    _culture(
        "b ch d dr g k l m n p r s st t tr v z sv yar|a e o u i|l n r s v",
        country="ovia/ovian ania/anian",
        language="ic",
        female="Alena Darina Emilka Irena Jasna Katya Lenka Milena Nadia Olga Petra Radka Svetla Tamara Vesna Zora",
        male="Anton Bogdan Dragan Emil Goran Igor Jaromir Kamil Lubos Milan Nikolai Pavel Radek Stanko Tomas Zoran",
        city="grad ovo itsa ensk pol",
        river="ava ina ova",
        mountain="ovrh gora",
        surname="ek ovic enko inski ak",
        sea="ov",
        continent="oria",
    ),
    _culture(
        "b d f gh h j kh m n q r s sh t z al esh|a i u e|l m n r z sh",
        country="istan/istani amir/amiri",
        language="ari",
        female="Amina Basira Dalia Farida Golnar Hania Jamila Laleh Mina Nasrin Parisa Roya Samira Shirin Yasmin Zahra",
        male="Arash Bahram Darius Farid Hamid Iskander Jamal Karim Malik Navid Omid Rashid Salim Tariq Yusuf Zaman",
        city="abad iz eran ukh",
        river="ab orud",
        mountain="akuh dagh",
        surname="ani zada avi pur",
        sea="am",
        continent="alia",
    ),
    _culture(
        "h k m n r s t w y ch ts an iki|a i o u e|n - -",
        country="ua/uan ira/iran",
        language="ano",
        female="Aiko Chiyo Emiko Fumi Hanako Kaori Keiko Mariko Michiko Naomi Rei Sachiko Tomoko Umeko Yoko Yumi",
        male="Akito Daichi Goro Hiroto Ichiro Jiro Kaito Kenji Makoto Naoto Osamu Renji Satoru Takeshi Yoshio Yuto",
        city="hama moto tai nami zaki",
        river="gawa vai",
        mountain="yama take",
        surname="mura naka shita bara",
        sea="no",
        continent="una",
    ),
    _culture(
        "b br c cl d f g gl h l m p r t tr w el ar|a e i o|l n r s rn",
        country="land/landic wen/wenish",
        language="eth",
        female="Aerona Briony Carys Delyth Eira Fenella Gwenda Isla Kerra Lowen Moira Nesta Oonagh Rhona Senara Tamsin",
        male="Alun Bran Cadell Davin Ewan Fergal Gethin Hamish Idris Kerrin Lorcan Merryn Niall Owain Rhodri Torquil",
        city="mouth ford ton bury combe",
        river="avon wey",
        mountain="den tor",
        surname="wick more by worth ley",
        sea="lin",
        continent="thia",
    ),
)
VOWELS = set("aeiou")
COINS = ("orin", "amar", "etto", "enda")


class Names:
    """Makes names that differ from all that it made before."""

    def __init__(self, rng: Random):
        self._rng = rng
        self._taken: set[str] = set()

    def make(self, culture: Culture, sort: str) -> str:
        """Return a new name with an ending of ``sort``: "city", "river", ..."""
        return self._new(culture, culture.endings[sort]).capitalize()

    def country(self, culture: Culture) -> tuple[str, str, str]:
        """Return a new country's name, its adjective and its language: Dorovia, Dorovian, Doric."""
        adjectives = dict(culture.country)
        while True:
            name = self._new(culture, list(adjectives)).capitalize()
            ending = next(ending for ending in adjectives if name.endswith(ending))
            stem = name.removesuffix(ending)
            if stem + culture.language not in self._taken:
                self._taken.add(stem + culture.language)
                return name, stem + adjectives[ending], stem + culture.language

    def coin(self, culture: Culture) -> str:
        """Return a new word for a unit of money, in the singular: "tamar"."""
        return self._new(culture, COINS)

    def _new(self, culture: Culture, endings: Sequence[str]) -> str:
        for _ in range(TRIES):
            ending = self._rng.choice(endings)
            name = (self._open_stem if ending[0] in VOWELS else self._closed_stem)(culture) + ending
            if name not in self._taken and len(name) >= SHORTEST:
                self._taken.add(name)
                return name
        raise UsageError("--articles: the gazetteer has run out of names; expected fewer")

    def _open_stem(self, culture: Culture) -> str:
        """Draw what stands before a vowel: "Dor" or "Al"."""
        onset, inner = self._rng.choice(culture.onsets), self._rng.choice(culture.inner)
        if onset[-1] not in VOWELS and onset[0] in VOWELS:
            return onset if self._rng.random() < 0.3 else onset + self._rng.choice(culture.vowels) + inner
        return onset + ("" if onset[-1] in VOWELS else self._rng.choice(culture.vowels)) + inner

    def _closed_stem(self, culture: Culture) -> str:
        """Draw what stands before a consonant: "Bren" or "Siran"."""
        stem = self._rng.choice(culture.onsets)
        stem += "" if stem[-1] in VOWELS else self._rng.choice(culture.vowels)
        if self._rng.random() < 0.4:
            stem += self._rng.choice(culture.inner) + self._rng.choice(culture.vowels)
        return stem + self._rng.choice(culture.codas).strip("-")
