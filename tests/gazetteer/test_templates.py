"""The templates of the gazetteer: what the notation means, and that a template it cannot use is refused by name."""

from random import Random

import pytest

from bert.errors import UsageError
from data.gazetteer import build_world
from data.gazetteer.names import read_names
from data.gazetteer.sentences import Narrator, holds
from data.gazetteer.templates import (
    KINDS,
    Fact,
    Sight,
    articles_about,
    declared_type,
    questions_about,
    read_articles,
    read_questions,
    read_remarks,
    visitors_remarks,
)
from data.gazetteer.world import Building, City, Country, Mountain, Person, Work

OPENING = 'opening = ["{It} is {region}.", "b", "c"]\n'
SENTENCES = 'sentences = ["a", "b", "c"]\n'


def test_the_notation_of_articles(tmp_path):
    path = tmp_path / "country.toml"
    path.write_text(f"""{OPENING}
[[state]]
{SENTENCES}
[[state]]
when = "not shores"
{SENTENCES}
[[land]]
for_each.DIRECTION = ["north", "east"]
when = "DIRECTION"
sentences = ["{{DIRECTION}} in the DIRECTION", "{{DIRECTION.capital}}", "c"]
""")
    articles = read_articles(path, Country)
    always, landlocked = Fact("name", ("a", "b", "c")), Fact("not shores", ("a", "b", "c"))
    north = Fact("north", ("{north} in the north", "{north.capital}", "c"))
    east = Fact("east", ("{east} in the east", "{east.capital}", "c"))
    assert articles.opening == Fact("name", ("{It} is {region}.", "b", "c"))
    assert articles.sections == [[always, landlocked], [north, east]]


def test_the_notation_of_questions(tmp_path):
    path = tmp_path / "city.toml"
    path.write_text("""
[[probe]]
when = "river"
relation = "river"
statement = "{It} lies on the [MASK] ."
answer = "{river.name}"

[[question]]
when = "population"
answers = ["{population:n} people", "about {population:n}"]
questions = ["How many people live in {name}?"]
""")
    questions = read_questions(path, City)
    assert questions.probes == [("river", "river", "{It} lies on the [MASK] .", "{river.name}")]
    (question,) = questions.questions
    assert question == (
        "population",
        ("{population:n} people", "about {population:n}"),
        ("How many people live in {name}?",),
    )
    assert question.is_answered_by("{population} live here.")
    assert question.is_answered_by("Some {population:n} live here.")
    assert not question.is_answered_by("{population.name} live here.")


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_templates_of_every_kind_can_be_read(kind):
    assert len(articles_about(kind).sections) == 3
    assert questions_about(kind).probes
    assert questions_about(kind).questions
    assert Sight("shores", "the coast of {name}") in visitors_remarks().sights[Country]


@pytest.mark.parametrize(
    ("kind", "name", "declared"),
    [
        (City, "name", str),
        (City, "founded", int),
        (City, "university", int),  # int | None
        (City, "river.source", Mountain),
        (City, "landmark", Building),
        (City, "students", list[Person]),  # a property
        (City, "students[1].works[0].title", str),
        (Person, "office[1]", int),
        (Person, "works", list[Work]),
        (City, "students.name", None),
        (City, "students[x]", None),
        (City, "name[0]", None),
        (City, "rivr", None),
        (City, "river.rivr", None),
        (City, "", None),
    ],
)
def test_the_type_of_an_attribute(kind, name, declared):
    assert declared_type(kind, name) == declared


BROKEN_ARTICLES = [
    ("", "sentences = []: expected at least one value"),
    ("opening = [1", "not a TOML file"),
    ('opening = ["{rivr}", "b", "c"]', '"{rivr}": {rivr} is not an attribute of a City'),
    ('opening = ["{river", "b", "c"]', "\"{river\": expected '}' before end of string"),
    ('opening = ["{river:x}", "b", "c"]', '"{river:x}": unknown form :x, expected one of a, n, ordinal, '),
    ('opening = ["{trades}", "b", "c"]', '"{trades}": {trades}: trades has no such form'),
    ('opening = ["{name:n}", "b", "c"]', '"{name:n}": {name:n}: name has no such form'),
    ('opening = ["{students:people}", "{trades:people}", "c"]', '"{trades:people}": {trades:people}: trades has no '),
    ('opening = ["a", "b", "b"]', "['a', 'b', 'b']: expected at least 3 different sentences"),
    ('opening = ["a", "b", 3]', "sentences = ['a', 'b', 3]: expected a list of texts"),
    (f"place = 3\n{OPENING}", "3: expected a list of tables, each begun by [[NAME]]"),
    (f'{OPENING}[[place]]\nwhen = "not rivr"\n{SENTENCES}', 'when = "not rivr": not an attribute of a City'),
    (f"{OPENING}[[place]]\nwhen = 3\n{SENTENCES}", "when = 3: expected text"),
    (f'{OPENING}[[place]]\nwehn = "river"\n{SENTENCES}', "expected the keys when, sentences"),
    (f"{OPENING}[[place]]\nsentences = []", "sentences = []: expected at least one value"),
    (f'{OPENING}[[place]]\nsentences = ["a", "b"]', "['a', 'b']: expected at least 3 different sentences"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN_ARTICLES)
def test_articles_that_cannot_be_used_are_refused(tmp_path, content, message):
    refuses(read_articles, tmp_path / "city.toml", content, message, City)


QUESTION = '[[question]]\nanswers = ["{name}"]\nquestions = ["{Its}?"]\n'
PROBE = '[[probe]]\nrelation = "x"\nstatement = "{It}"\nanswer = "{name}"\n'
BROKEN_QUESTIONS = [
    (QUESTION, "expected the keys probe, question"),
    (f"{PROBE}{QUESTION}[[quiz]]", "expected the keys probe, question"),
    (f"{PROBE}{QUESTION}".replace("{Its}", "{height}"), '"{height}?": {height} is not an attribute of a City'),
    (f"{PROBE}{QUESTION}".replace('["{name}"]', '"{name}"'), "answers = '{name}': expected a list of texts"),
    (f"{PROBE}{QUESTION}".replace('["{name}"]', "[]"), "answers = []: expected at least one value"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN_QUESTIONS)
def test_questions_that_cannot_be_used_are_refused(tmp_path, content, message):
    refuses(read_questions, tmp_path / "city.toml", content, message, City)


REMARKS = 'remarks = ["{sight} was {own}."]\nnegative = "dull"\npositive = "lovely"\n'
BROKEN_REMARKS = [
    (REMARKS, "expected the keys remarks, negative, positive, sights"),
    (f"{REMARKS}sights.sea = []", "sights: sea: expected country, city, river, mountain, person"),
    (f'{REMARKS}sights.city = [{{ sight = "{{rivr}}" }}]', "{rivr} is not an attribute of a City"),
    (
        f"{REMARKS}sights.city = []".replace("{own}", "{owned}"),
        "expected no placeholders but {sight}, {own} and {other}",
    ),
    (f"{REMARKS}sights.city = []".replace('"dull"', '""'), "negative = '': expected at least one value"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN_REMARKS)
def test_remarks_that_cannot_be_used_are_refused(tmp_path, content, message):
    refuses(read_remarks, tmp_path / "remarks.toml", content, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('coins = "orin"', "expected the keys coins, culture"),
        ('coins = "orin"\nculture = [{ onsets = "b" }]', "expected the keys onsets, vowels, codas, country, language"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path, content, message):
    refuses(read_names, tmp_path / "names.toml", content, message)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"names.toml: No such file or directory"):
        read_names(tmp_path / "names.toml")


def test_a_value_that_a_thing_lacks_is_refused():
    city = next(city for city in build_world(seed=0, size=100).cities if not holds(city, "river"))
    for template in ("{river}", "{river.name}", "{natives[99].name}"):
        with pytest.raises(UsageError) as error:
            Narrator(city, Random(0)).tell(template)
        assert str(error.value).startswith(f"{template}: {city.name} has no such value")


def refuses(read, path, content, message, *kind):
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        read(path, *kind)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
