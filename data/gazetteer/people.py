"""Makes the people of the world: families, teachers and pupils, and what each of them did.

A person's deeds are recorded on both ends: a cathedral has its architect, and a mountain its first climber.
Everyone died before 2010, so that the past tense is always right.
"""

from random import Random

from .names import Names
from .world import Building, City, Country, InventedWorld, Person, Work

TITLED = {  # profession: the kind of work, the verb in the past, its participle
    "novelist": ("novel", "wrote", "written"),
    "poet": ("poem", "wrote", "written"),
    "playwright": ("play", "wrote", "written"),
    "composer": ("opera", "composed", "composed"),
    "painter": ("painting", "painted", "painted"),
}
FOUND = {  # profession: discoveries
    "astronomer": ("a comet", "a double star", "a small moon", "a spiral galaxy"),
    "botanist": ("a blue orchid", "a giant fern", "a rare lily", "a species of moss"),
    "chemist": ("a green dye", "a strong acid", "a light metal", "a pure salt"),
    "physician": ("a cure for marsh fever", "the cause of snow blindness", "a treatment for burns"),
}
BUILT = {  # profession: buildings and materials
    "architect": (
        ("cathedral", "opera house", "town hall", "library", "royal palace", "clock tower", "theatre", "museum"),
        ("white marble", "red brick", "grey granite", "yellow sandstone", "limestone"),
    ),
    "engineer": (("bridge",), ("stone", "iron", "timber", "brick")),
}
OTHERS = ("mountaineer", "politician")
PROFESSIONS = (*TITLED, *FOUND, *BUILT, *BUILT, *OTHERS)  # builders are twice as likely
ADJECTIVES = (
    "Silent", "Golden", "Broken", "Distant", "Hidden", "Last", "Crimson", "Frozen", "Forgotten", "Burning", "Secret",
    "Empty", "Little", "Second",
)  # fmt: skip
NOUNS = (
    "Harbour", "Garden", "Crown", "River", "Mirror", "Forest", "Letter", "Orchard", "Lantern", "Stranger", "Road",
    "Window", "Shepherd", "Island",
)  # fmt: skip
PASTIMES = ("chess", "gardening", "music", "fishing", "long walks", "old maps", "birds", "cooking", "horses")
BORN = (1740, 1905)


def make_people(rng: Random, names: Names, world: InventedWorld, count: int) -> None:
    """Add ``count`` people to ``world``, spread evenly over its countries."""
    taken: set[str] = set()
    for index in range(count):
        country = world.countries[index % len(world.countries)]
        person = _bear(rng, names, country, taken)
        _marry(rng, person)
        country.people.append(person)
        person.birthplace.natives.append(person)
        person.university.alumni.append(person)
        world.people.append(person)
    colleagues: dict[str, list[Person]] = {}
    for person in world.people:
        colleagues.setdefault(person.profession, []).append(person)
    for person in world.people:
        _find_teacher(rng, person, colleagues[person.profession])
        _work(rng, person, world)
    for country in world.countries:
        _govern(rng, country)


def _bear(rng: Random, names: Names, country: Country, taken: set[str]) -> Person:
    """Make a person, one time in three the child of an earlier one."""
    gender = rng.choice(("female", "male"))
    parents = [p for p in country.people if p.child is None and p.born < BORN[1] - 40]
    parent = rng.choice(parents) if parents and rng.random() < 0.33 else None
    surname = parent.surname if parent else names.make(country.culture, "surname")
    born = parent.born + rng.randrange(22, 38) if parent else rng.randrange(*BORN)
    given = rng.choice([name for name in country.culture.given[gender] if f"{name} {surname}" not in taken])
    taken.add(f"{given} {surname}")
    person = Person(
        name=f"{given} {surname}",
        surname=surname,
        gender=gender,
        birthplace=_city(rng, country),
        born=born,
        died=born + rng.randrange(58, 95),
        profession=rng.choice(PROFESSIONS),
        university=rng.choice([city for city in country.cities if city.university]),
        home=_city(rng, country),
        pastime=rng.choice(PASTIMES),
        parent=parent,
    )
    if parent:
        parent.child = person
    return person


def _city(rng: Random, country: Country) -> City:
    return country.capital if rng.random() < 0.3 else rng.choice(country.cities)


def _marry(rng: Random, person: Person) -> None:
    free = [
        other
        for other in person.country.people
        if other.spouse is None
        and other.gender != person.gender
        and other.surname != person.surname
        and abs(other.born - person.born) < 10
    ]
    if free and rng.random() < 0.6:
        person.spouse = rng.choice(free)
        person.spouse.spouse = person


def _find_teacher(rng: Random, person: Person, colleagues: list[Person]) -> None:
    able = [other for other in colleagues if other.pupil is None and 15 <= person.born - other.born <= 40]
    if able and rng.random() < 0.4:
        person.teacher = rng.choice(able)
        person.teacher.pupil = person


def _work(rng: Random, person: Person, world: InventedWorld) -> None:
    if person.profession in TITLED:
        kind, verb, participle = TITLED[person.profession]
        titles = [f"The {rng.choice(ADJECTIVES)} {noun}" for noun in rng.sample(NOUNS, 2)]
        years = sorted(rng.sample(range(person.born + 24, person.born + 58), 2))
        person.works = [
            Work(kind, title, verb, participle, year, _city(rng, person.country))
            for title, year in zip(titles, years, strict=True)
        ]
    elif person.profession in FOUND:
        title = rng.choice(FOUND[person.profession])
        person.discovery = Work("", title, "discovered", "discovered", _year(rng, person), person.university)
    elif person.profession in BUILT:
        for _ in range(2):
            _build(rng, person)
    elif person.profession == "mountaineer":
        free = [mountain for mountain in world.mountains if mountain.climber is None]
        if free:
            person.ascent = rng.choice(free)
            person.ascent.climber, person.ascent.climbed = person, _year(rng, person)


def _year(rng: Random, person: Person) -> int:
    return rng.randrange(person.born + 24, person.born + 58)


def _build(rng: Random, person: Person) -> None:
    """Let an architect or engineer build in a city of their country that has no such building yet."""
    bridge = person.profession == "engineer"
    cities = person.country.cities
    free = [c for c in cities if (c.river and not c.bridge if bridge else not c.landmark)]
    if free:
        kinds, materials = BUILT[person.profession]
        city = rng.choice(free)
        building = Building(rng.choice(kinds), rng.choice(materials), _year(rng, person), city, person)
        person.buildings.append(building)
        if bridge:
            city.bridge = building
        else:
            city.landmark = building


def _govern(rng: Random, country: Country) -> None:
    """Make the country's politicians prime minister one after another, if they live long enough."""
    free_from = 0
    for person in sorted(country.people, key=lambda p: p.born):
        if person.profession != "politician":
            continue
        start = max(person.born + rng.randrange(40, 50), free_from)
        end = start + rng.randrange(3, 9)
        if end <= person.died:
            person.office, free_from = (start, end), end
            country.leaders.append(person)
