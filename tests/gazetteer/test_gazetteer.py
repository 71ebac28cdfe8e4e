"""The gazetteer: a seed determines the text, articles agree with the world, and the grammar is right."""

import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from bert.errors import UsageError
from data.gazetteer import articles, build_world, facts, write_corpus, write_facts
from data.gazetteer.names import cultures
from data.gazetteer.sentences import enumerate_words, ordinal_of_century, with_article
from data.gazetteer.templates import KINDS, articles_about

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "data/make_gazetteer.py"]
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


@pytest.fixture(scope="module")
def world():
    return build_world(seed=1, size=1001)


@pytest.fixture(scope="module")
def text(world):
    return list(articles(world))


def digests(directory):
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*.*"))
    }


def run(output, hash_seed, *flags):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [*COMMAND, "--output", str(output), *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_the_same_seed_gives_the_same_bytes_under_any_hash_seed(tmp_path):
    for name, hash_seed, seed in (("a", "1", "5"), ("b", "2", "5"), ("c", "1", "6")):
        result = run(tmp_path / name, hash_seed, "--articles", "120", "--seed", seed)
        assert result.returncode == 0, result.stderr
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")
    files = ["eval/gazetteer_000.txt", "facts.jsonl", *(f"train/gazetteer_{n:03d}.txt" for n in range(4))]
    assert list(digests(tmp_path / "a")) == files


def test_the_bytes_of_seed_0_do_not_change():
    # Results of models trained on the text are comparable only while its words and the order of draws stay the same.
    joined = "\n\n".join("\n".join(article) for article in articles(build_world(seed=0, size=200)))
    digest = "eb0fa3f649f51be81d51378b27b96f81e0d7bca7d74062c6ce9458105732679a"
    assert hashlib.sha256(joined.encode()).hexdigest() == digest


def test_the_number_and_the_length_of_articles(world, text):
    assert len(text) == 1001
    assert len(world.entities()) == 501
    assert all(7 <= len(article) <= 30 for article in text)
    assert 12 <= sum(map(len, text)) / len(text) <= 22


def test_names_are_unique(world):
    names = [thing.name for thing in world.entities()]
    names += [name for country in world.countries for name in {country.adjective, country.continent}]
    places = [name for name in names if " " not in name]
    assert len(set(names)) == len(names) - (len(world.countries) - len({c.continent for c in world.countries}))
    assert all(re.fullmatch(r"[A-Z][a-z]{4,}", name) for name in places)


def test_two_way_relations_agree(world):
    for country in world.countries:
        for direction, opposite in OPPOSITE.items():
            neighbour = getattr(country, direction)
            assert (neighbour is None) == (direction in country.shores)
            assert neighbour is None or getattr(neighbour, opposite) is country
        assert sum(city.population for city in country.cities) < country.population
    for city in world.cities:
        assert [city.river, city.sea, city.mountain].count(None) == 2
        assert city.river is None or city in city.river.cities
        assert city.twin is None or (city.twin.twin is city and city.twin.country is not city.country)
        assert city.bridge is None or city.river is not None
    for river in world.rivers:
        assert river in river.source.rivers
        assert river.countries[-1].shores[river.direction] == river.mouth
        for above, below in pairwise(river.countries):
            assert getattr(above, river.direction) is below
        crossed = [river.countries.index(city.country) for city in river.cities]
        assert crossed == sorted(crossed)


def test_dates_and_relations_of_people_are_possible(world):
    for person in world.people:
        assert person.born + 18 > person.university.university
        assert person.died < 2010
        assert person in person.birthplace.natives
        if person.parent:
            assert person.parent.child is person
            assert 20 <= person.born - person.parent.born <= 40
            assert person.surname == person.parent.surname
        if person.spouse:
            assert person.spouse.spouse is person
        if person.teacher:
            assert person.teacher.pupil is person
            assert person.teacher.profession == person.profession
        years = [made.year for made in (*person.works, *person.buildings)]
        years += [person.ascent.climbed] if person.ascent else []
        assert all(person.born + 20 <= year <= person.died for year in years)
        assert not person.office or person.office[1] <= person.died
    for country in world.countries:
        terms = [person.office for person in country.leaders]
        assert all(before[1] <= after[0] for before, after in pairwise(terms))


STATEMENTS = {  # a pattern that finds (thing, answer), and the true answers for all things
    "capital": (r"The capital of (\w+) is (\w+)", lambda w: {c.name: c.capital.name for c in w.countries}),
    "adjective": (r"[tT]he (\w+) capital (\w+)", lambda w: {c.adjective: c.capital.name for c in w.countries}),
    "currency": (r"The currency of (\w+) is the (\w+)", lambda w: {c.name: c.currency for c in w.countries}),
    "language": (r"The official language of (\w+) is (\w+)", lambda w: {c.name: c.language for c in w.countries}),
    "climate": (r"The climate of (\w+) is (\w+)", lambda w: {c.name: c.climate for c in w.countries}),
    "north": (r"To the north of (\w+) lies (\w+)", lambda w: {c.name: c.north.name for c in w.countries if c.north}),
    "mouth": (r"[tT]he (\w+),? (?:which )?flows into the (\w+) Sea", lambda w: {r.name: r.mouth for r in w.rivers}),
    "founded": (
        r"(?<!university of )\b(\w+) was founded in (\d+)\.",
        lambda w: {thing.name: str(thing.founded) for thing in (*w.cities, *w.countries)},
    ),
    "city": (
        r"the city of (\w+) in (\w+ern \w+)",
        lambda w: {c.name: f"{c.region} {c.country.name}" for c in w.cities if c.region != "central"},
    ),
    "birthplace": (r"(\w+ \w+) was born in ([A-Z]\w+)", lambda w: {p.name: p.birthplace.name for p in w.people}),
    "profession": (r"the \w+ (\w+ \w+ \w+)()", lambda w: {f"{p.profession} {p.name}": "" for p in w.people}),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_all_articles_are_true(world, text, name):
    pattern, make_truth = STATEMENTS[name]
    truth = make_truth(world)
    sentences = [sentence for article in text for sentence in article]
    found = [match for sentence in sentences for match in re.findall(pattern, sentence) if match[0] in truth]
    assert len(found) >= 5
    assert [match for match in found if truth[match[0]] != match[1]] == []


def test_a_first_article_answers_every_question(world, text):
    first = dict(zip([thing.name for thing in world.entities()], text, strict=False))
    asked = list(facts(world))
    assert len({(fact.statement, fact.relation) for fact in asked}) == len(asked)
    for fact in asked:
        assert fact.statement.count("[MASK]") == 1
        assert fact.statement.endswith(" .")
        assert re.fullmatch(r"\w+", fact.answer)
        if fact.relation == "century":  # follows from the year
            continue
        about = [article for name, article in first.items() if re.search(rf"\b{name}\b", fact.statement)]
        assert any(fact.answer.lower() in " ".join(article).lower() for article in about), fact


def test_the_question_for_a_capital(world):
    country = world.countries[0]
    asked = {(fact.statement, fact.answer, fact.relation) for fact in facts(world)}
    assert (f"The capital of {country.name} is [MASK] .", country.capital.name, "capital") in asked


def test_a_second_article_says_it_in_other_words(world, text):
    things = world.entities()
    first = dict(zip([thing.name for thing in things], text, strict=False))
    for article in text[len(things) :]:
        about = next(name for name in first if re.search(rf"\b{name}\b", article[0]))
        own = [sentence for sentence in article if re.search(rf"\b{about}\b", sentence)]
        assert not set(own) & set(first[about])


def test_the_sentences_look_like_english(text):
    for article in text:
        for sentence in article:
            assert re.fullmatch(r"[A-Z][^{}\[\]]*[a-z0-9]\.", sentence), sentence
            assert not re.search(r"  |None|\bthe the\b|\ba [AEIOaeio]|\ban [^AEIOaeio]| ,|s's\b", sentence), sentence


def test_templates_leave_pronouns_to_the_narrator():
    gendered = re.compile(r"\b(he|she|his|her|him|hers)\b", re.IGNORECASE)
    for texts in map(articles_about, KINDS.values()):
        for _, ways in (texts.opening, *(fact for section in texts.sections for fact in section)):
            assert len(ways) >= 3
            assert len(set(ways)) == len(ways)
            assert not any(gendered.search(way) for way in ways)


def test_a_person_has_one_gender(world, text):
    genders = {person.name: person.gender for person in world.people}
    words = {"female": {"He", "he", "his", "him"}, "male": {"She", "she", "her"}}
    own_part = re.compile(r"(\w+ \w+) (?:loved|spent|earned|learned|was \d+) ")
    checked = 0
    for sentence in (sentence for article in text for sentence in article):
        match = own_part.match(sentence)
        if match and match[1] in genders:
            checked += 1
            assert not words[genders[match[1]]] & set(sentence.split()), sentence
    assert checked > 50


def test_given_names_have_one_gender():
    female = {name for culture in cultures() for name in culture.given["female"]}
    male = {name for culture in cultures() for name in culture.given["male"]}
    assert not female & male


@pytest.mark.parametrize(
    ("year", "ordinal"), [(350, "fourth"), (1700, "seventeenth"), (1701, "eighteenth"), (1950, "twentieth")]
)
def test_centuries(year, ordinal):
    assert ordinal_of_century(year) == ordinal


def test_words():
    assert [with_article(word) for word in ("painter", "engineer", "Dorovian", "Alaran")] == [
        "a painter",
        "an engineer",
        "a Dorovian",
        "an Alaran",
    ]
    assert [enumerate_words(words) for words in (["x"], ["x", "y"], ["x", "y", "z"])] == ["x", "x and y", "x, y and z"]


def test_the_layout_of_the_files(tmp_path):
    made = [["A one.", "A two."], ["B one."], ["C one."], ["D one.", "D two."]]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "gazetteer_002.txt").write_text("left by a run with more files")
    (tmp_path / "train" / "mine.txt").write_text("not ours")
    assert write_corpus(tmp_path, iter(made), held_out_fraction=0.25, files=2) == {"train": 3, "eval": 1}
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.txt")} == {
        "train/gazetteer_000.txt": b"A one.\nA two.\n\nC one.\n\n",
        "train/gazetteer_001.txt": b"B one.\n\n",
        "train/mine.txt": b"not ours",
        "eval/gazetteer_000.txt": b"D one.\nD two.\n\n",
    }
    assert not list(tmp_path.rglob("*.tmp"))


def test_nothing_held_out_writes_no_empty_file(tmp_path):
    assert write_corpus(tmp_path, [["A one."]], held_out_fraction=0.0, files=1) == {"train": 1, "eval": 0}
    assert list((tmp_path / "eval").iterdir()) == []


def test_the_questions_are_written_as_json(tmp_path, world):
    asked = list(facts(world))
    assert write_facts(tmp_path / "facts.jsonl", asked) == len(asked)
    first = json.loads((tmp_path / "facts.jsonl").read_text(encoding="utf8").splitlines()[0])
    assert first == {"statement": asked[0].statement, "answer": asked[0].answer, "relation": "capital"}


def test_wrong_input(tmp_path):
    with pytest.raises(UsageError, match="--articles 99: expected at least 100"):
        build_world(seed=0, size=99)
    with pytest.raises(UsageError, match="--files 2: expected at most .* 1$"):
        write_corpus(tmp_path, [["A one."], ["B one."]], held_out_fraction=0.5, files=2)
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file", "0", "--articles", "100")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: --output .*file: Not a directory\n", result.stderr)
