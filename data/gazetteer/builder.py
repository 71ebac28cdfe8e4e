"""Makes the world from a seed: countries and what lies in them here, people in ``people``.

Each continent is a grid of countries, three wide, so that "north of" and "flows south to the sea" are always right. All
draws come from one ``random.Random`` and nothing iterates over a set, so a seed determines the world::

    world = build_world(seed=0, size=3000)           # for 3000 articles
    len(world.countries), len(world.people)          # (50, 749)
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from bert.errors import UsageError

from .names import Culture, Names, cultures
from .people import make_people
from .world import City, Country, InventedWorld, Mountain, River

SMALLEST = 100  # articles: two countries with everything in them
ENTITIES_PER_COUNTRY = 30
CITIES, RIVERS, MOUNTAINS = 9, 3, 2  # per country; the country and 15 people complete ENTITIES_PER_COUNTRY
COLUMNS, ROWS = 3, 4  # countries of a continent
STEPS = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}

CLIMATES = ("cold", "cool", "warm", "hot")  # by row, from north to south
GOODS = {
    "cold": ("timber", "furs", "iron ore", "dried fish", "paper", "whale oil"),
    "cool": ("wool", "coal", "butter", "machinery", "glass", "wheat"),
    "warm": ("wine", "olive oil", "silk", "marble", "almonds", "pottery"),
    "hot": ("cotton", "coffee", "sugar", "spices", "dates", "copper"),
}
COLOURS = ("red", "white", "blue", "green", "yellow", "black", "orange", "purple")
EMBLEMS = ("lion", "eagle", "bear", "stag", "horse", "falcon", "wolf", "swan", "oak tree", "rose", "star", "ship")
FISH = ("salmon", "trout", "pike", "carp", "eels")
ROCKS = ("granite", "limestone", "basalt", "slate", "sandstone")
REGIONS = ("northern", "southern", "eastern", "western", "central")
TRADES = ("shipbuilding", "weaving", "brewing", "printing", "banking", "glass-making", "watchmaking", "tanning")
FESTIVALS = ("lantern", "harvest", "flower", "book", "music", "kite", "cheese", "puppet")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")


def build_world(seed: int, size: int) -> InventedWorld:
    """Make a world for ``size`` articles, two about each thing in it. Raises UsageError below 100 articles."""
    if size < SMALLEST:
        raise UsageError(f"--articles {size}: expected at least {SMALLEST}")
    rng = Random(f"gazetteer {seed}")
    names, world = Names(rng), InventedWorld(seed, size)
    things = (size + 1) // 2
    world.countries = _make_countries(rng, names, max(2, things // ENTITIES_PER_COUNTRY))
    for country in world.countries:
        world.mountains += _make_mountains(rng, names, country)
        world.cities += _make_cities(rng, names, country)
    for mountain in world.mountains:
        world.rivers += _make_rivers(rng, names, mountain)
    for river in world.rivers:
        _settle_banks(rng, river)
    for city in world.cities:
        if city.river is None:
            _settle_elsewhere(rng, city)
    _pair_twins(rng, world.cities)
    make_people(rng, names, world, things - len(world.entities()))
    return world


def _make_countries(rng: Random, names: Names, count: int) -> list[Country]:
    grid: dict[tuple[int, int, int], Country] = {}
    size = COLUMNS * ROWS
    continents = [names.make(_culture(n), "continent") for n in range(-(-count // size))]
    for index in range(count):
        continent, row, column = index // size, index % size // COLUMNS, index % COLUMNS
        culture = _culture(2 * continent + column)
        country = _make_country(rng, names, continents[continent], culture, row, column)
        grid[continent, row, column] = country
        if row and rng.random() < 0.4:  # neighbouring countries often share a language
            country.language = grid[continent, row - 1, column].language
        if column and rng.random() < 0.25:
            country.currency = grid[continent, row, column - 1].currency
    seas: dict[tuple[int, str], str] = {}
    for (continent, row, column), country in grid.items():
        for direction, (down, right) in STEPS.items():
            neighbour = grid.get((continent, row + down, column + right))
            if neighbour is not None:
                setattr(country, direction, neighbour)
                continue
            if (continent, direction) not in seas:
                seas[continent, direction] = names.make(country.culture, "sea")
            country.shores[direction] = seas[continent, direction]
    return list(grid.values())


def _culture(index: int) -> Culture:
    return cultures()[index % len(cultures())]


def _make_country(rng: Random, names: Names, continent: str, culture: Culture, row: int, column: int) -> Country:
    name, adjective, language = names.country(culture)
    edges = {0: "northern", ROWS - 1: "southern"}
    return Country(
        name=name,
        adjective=adjective,
        culture=culture,
        continent=continent,
        region=edges.get(row, ("western", "central", "eastern")[column]),
        climate=CLIMATES[row],
        government=rng.choice(("kingdom", "republic")),
        founded=rng.randrange(850, 1690),
        population=rng.randrange(2, 80) * 1_000_000,
        colours=rng.sample(COLOURS, 2),
        emblem=rng.choice(EMBLEMS),
        exports=rng.sample(GOODS[CLIMATES[row]], 2),
        language=language,
        currency=names.coin(culture),
    )


def _make_mountains(rng: Random, names: Names, country: Country) -> list[Mountain]:
    regions = rng.sample(REGIONS, MOUNTAINS)
    country.mountains = [
        Mountain(names.make(country.culture, "mountain"), country, rng.randrange(1200, 6800), rng.choice(ROCKS), region)
        for region in regions
    ]
    return country.mountains


def _make_cities(rng: Random, names: Names, country: Country) -> list[City]:
    for index in range(CITIES):
        capital = index == 0
        founded = rng.randrange(350, country.founded if capital else 1650)
        thousandths = rng.randrange(20, 80) if capital else rng.randrange(5, 50)
        studied = capital or rng.random() < 0.4
        country.cities.append(
            City(
                name=names.make(country.culture, "city"),
                country=country,
                region=rng.choice(REGIONS),
                population=country.population * thousandths // 1_000_000 * 1000,
                founded=founded,
                university=rng.randrange(max(founded + 50, 1100), 1750) if studied else None,
                trades=rng.sample(TRADES, 2),
                railway=rng.randrange(1835, 1905),
                arms=rng.choice(EMBLEMS),
                festival=rng.choice(FESTIVALS),
                month=rng.choice(MONTHS),
            )
        )
    return country.cities


def _make_rivers(rng: Random, names: Names, source: Mountain) -> list[River]:
    """Make one or two rivers that flow from a mountain straight to a sea."""
    for _ in range(rng.randrange(1, RIVERS)):
        direction, country, path = rng.choice(list(STEPS)), source.country, [source.country]
        while direction not in country.shores:
            country = getattr(country, direction)
            path.append(country)
        length = sum(rng.randrange(12, 45) * 10 for _ in path)
        name = names.make(source.country.culture, "river")
        source.rivers.append(River(name, source, direction, path, country.shores[direction], length, rng.choice(FISH)))
        for crossed in path:
            crossed.rivers.append(source.rivers[-1])
    return source.rivers


def _settle_banks(rng: Random, river: River) -> None:
    """Place a city of each country that the river crosses on its banks, if one has no river yet."""
    for country in river.countries:
        free = [city for city in country.cities if city.river is None]
        if free:
            city = rng.choice(free)
            city.river = river
            river.cities.append(city)


def _settle_elsewhere(rng: Random, city: City) -> None:
    """Place a city on a coast or at the foot of a mountain, which determines its region."""
    country = city.country
    if country.shores and rng.random() < 0.6:
        direction = rng.choice(list(country.shores))
        city.sea, city.region = country.shores[direction], f"{direction}ern"
    else:
        city.mountain = rng.choice(country.mountains)
        city.mountain.cities.append(city)
        city.region = city.mountain.region


def _pair_twins(rng: Random, cities: Sequence[City]) -> None:
    for one, other in pairwise(rng.sample(cities, len(cities))):
        if one.country is not other.country and one.twin is None and other.twin is None:
            one.twin, other.twin = other, one
