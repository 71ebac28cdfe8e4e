"""The things of the invented world and their attributes, which the templates of ``text/`` name.

Relations are stored on both ends: a river has its cities and a city its river. Years are of the common era, heights in
metres, lengths in kilometres::

    country.capital.river.mouth                      # the sea that the capital's river reaches
    person.teacher.pupil is person                   # if the person has a teacher
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .names import Culture


@dataclass(eq=False, repr=False)
class Country:
    name: str
    adjective: str
    culture: Culture
    continent: str
    region: str  # of the continent: "northern"
    climate: str
    government: str
    founded: int
    population: int
    colours: list[str]  # of the flag
    emblem: str
    exports: list[str]
    language: str
    currency: str
    north: Country | None = None  # neighbours
    east: Country | None = None
    south: Country | None = None
    west: Country | None = None
    shores: dict[str, str] = field(default_factory=dict)  # direction -> sea
    cities: list[City] = field(default_factory=list)  # the capital first
    rivers: list[River] = field(default_factory=list)  # all that cross it
    mountains: list[Mountain] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    leaders: list[Person] = field(default_factory=list)

    @property
    def capital(self) -> City:
        return self.cities[0]

    @property
    def neighbours(self) -> list[Country]:
        return [other for other in (self.north, self.east, self.south, self.west) if other is not None]

    @property
    def flag(self) -> str:
        return " and ".join(self.colours)

    @property
    def coasts(self) -> list[str]:
        return [f"the {sea} Sea in the {direction}" for direction, sea in self.shores.items()]

    @property
    def longest(self) -> River | None:
        return max(self.rivers, key=lambda river: river.length, default=None)

    @property
    def highest(self) -> Mountain:
        return max(self.mountains, key=lambda mountain: mountain.height)

    @property
    def second(self) -> City:
        return max(self.cities[1:], key=lambda city: city.population)

    @property
    def cousin(self) -> Country | None:
        return next((other for other in self.neighbours if other.language == self.language), None)

    @property
    def larger(self) -> Country | None:
        return next((other for other in self.neighbours if other.population > self.population), None)

    @property
    def leader(self) -> Person | None:
        return self.leaders[0] if self.leaders else None

    @property
    def famous(self) -> list[Person]:
        return [person for person in self.people if person.profession != "politician"][:2]


@dataclass(eq=False, repr=False)
class City:
    name: str
    country: Country
    region: str
    population: int
    founded: int
    university: int | None  # year of its foundation
    trades: list[str]
    railway: int  # year of the first train
    arms: str
    festival: str
    month: str
    river: River | None = None  # a city lies on a river, on a sea or at the foot of a mountain: one of the three is set
    sea: str | None = None
    mountain: Mountain | None = None
    twin: City | None = None
    landmark: Building | None = None
    bridge: Building | None = None
    natives: list[Person] = field(default_factory=list)
    alumni: list[Person] = field(default_factory=list)

    @property
    def is_capital(self) -> bool:
        return self is self.country.capital

    @property
    def capital(self) -> City | None:
        return None if self.is_capital else self.country.capital

    @property
    def downstream(self) -> City | None:
        below = self.river.cities[self.river.cities.index(self) + 1 :] if self.river else []
        return below[0] if below else None

    @property
    def famous(self) -> list[Person]:
        return self.natives[:2]

    @property
    def students(self) -> list[Person]:
        return self.alumni[:2]


@dataclass(eq=False, repr=False)
class River:
    name: str
    source: Mountain
    direction: str
    countries: list[Country]  # from the source to the sea
    mouth: str
    length: int
    fish: str
    cities: list[City] = field(default_factory=list)  # in the order of the countries

    @property
    def continent(self) -> str:
        return self.source.country.continent

    @property
    def crossed(self) -> list[Country]:
        return self.countries[1:]

    @property
    def sole(self) -> Country | None:
        return self.countries[0] if len(self.countries) == 1 else None

    @property
    def outlet(self) -> Country | None:
        return self.countries[-1] if len(self.countries) > 1 else None

    @property
    def capital(self) -> City | None:
        return next((city for city in self.cities if city.is_capital), None)

    @property
    def bridge(self) -> Building | None:
        return next((city.bridge for city in self.cities if city.bridge), None)

    @property
    def sister(self) -> River | None:
        return next((river for river in self.source.rivers if river is not self), None)

    @property
    def frozen(self) -> bool:
        return self.source.country.climate in ("cold", "cool")


@dataclass(eq=False, repr=False)
class Mountain:
    name: str
    country: Country
    height: int
    rock: str
    region: str
    rivers: list[River] = field(default_factory=list)
    cities: list[City] = field(default_factory=list)
    climber: Person | None = None
    climbed: int | None = None

    @property
    def is_highest(self) -> bool:
        return self is self.country.highest

    @property
    def higher(self) -> Mountain | None:
        return None if self.is_highest else self.country.highest

    @property
    def snow(self) -> bool:
        return self.height > (2500 if self.country.climate in ("cold", "cool") else 4000)


@dataclass(eq=False, repr=False)
class Person:
    name: str
    surname: str
    gender: str  # "female" or "male"
    birthplace: City
    born: int
    died: int
    profession: str
    university: City
    home: City
    pastime: str
    parent: Person | None = None
    child: Person | None = None
    spouse: Person | None = None
    teacher: Person | None = None
    pupil: Person | None = None
    works: list[Work] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    discovery: Work | None = None
    ascent: Mountain | None = None
    office: tuple[int, int] | None = None  # first and last year as prime minister

    @property
    def country(self) -> Country:
        return self.birthplace.country

    @property
    def age(self) -> int:
        return self.died - self.born

    @property
    def entered(self) -> int:
        """Year of entering the university."""
        return self.born + 18

    @property
    def honoured(self) -> int:
        """Year of a medal or a title."""
        return self.born + 53

    @property
    def prime(self) -> int:
        """Year in the middle of the working life."""
        return self.born + 40

    @property
    def building(self) -> Building | None:
        return self.buildings[0] if self.buildings else None

    @property
    def later_building(self) -> Building | None:
        return self.buildings[1] if len(self.buildings) > 1 else None


@dataclass(eq=False, repr=False)
class Work:
    """Something written, composed, painted or discovered."""

    kind: str
    title: str
    verb: str  # in the past: "wrote"
    participle: str  # "written"
    year: int
    city: City


@dataclass(eq=False, repr=False)
class Building:
    kind: str
    material: str
    year: int
    city: City
    maker: Person


Entity = Country | City | River | Mountain | Person


@dataclass(eq=False, repr=False)
class InventedWorld:
    seed: int
    size: int  # articles
    countries: list[Country] = field(default_factory=list)
    cities: list[City] = field(default_factory=list)
    rivers: list[River] = field(default_factory=list)
    mountains: list[Mountain] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)

    def entities(self) -> list[Entity]:
        return [*self.countries, *self.cities, *self.rivers, *self.mountains, *self.people]
