"""Reads the templates of the encyclopedia's sentences and questions from ``text/``, and checks them.

``text/articles/KIND.toml`` has the sentences about a kind of thing. ``opening`` begins an article; any other key is a
section, a list of facts that an article tells in random order::

    [[geography]]
    when = "river"     # told of things that have a river; "not river": of those that have none; left out: of all
    sentences = ["{It} lies on {river}.", "..."]     # ways to say the fact, at least three

``text/questions/KIND.toml`` has the questions. A ``[[probe]]`` is a statement with a masked word. A ``[[question]]``
asks for a fact with the same ``when`` and is answered by sentences with the placeholder of its first answer; its other
answers are accepted too. ``for_each.WORD = ["x", "y"]`` repeats an entry with x and then y in place of WORD.
``text/remarks.toml`` has what visitors say. ``sentences`` explains the placeholders.
"""

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from .sentences import FORMS, SUBJECT_WORDS
from .toml_files import TEXT, check_keys, errors_name, read_toml
from .world import Entity

ALWAYS = "name"  # the condition of an entry without `when`: everything has a name
WORDINGS = 3  # of a fact, at least: an article, a second article and a mention elsewhere each use another one
KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in get_args(Entity)}


class Fact(NamedTuple):
    """Sentences that say the same about a thing."""

    when: str
    sentences: tuple[str, ...]


class Question(NamedTuple):
    when: str
    answers: tuple[str, ...]
    questions: tuple[str, ...]

    def is_answered_by(self, sentence: str) -> bool:
        """Return whether a template has the placeholder of the first answer, in any form."""
        placeholder = self.answers[0].partition("}")[0].partition(":")[0]  # "{height" of "{height:n} metres"
        return f"{placeholder}}}" in sentence or f"{placeholder}:" in sentence


class ProbeTemplate(NamedTuple):
    when: str
    relation: str
    statement: str
    answer: str


class Sight(NamedTuple):
    when: str
    sight: str


Entry = TypeVar("Entry", Fact, Question, ProbeTemplate, Sight)


@dataclass(frozen=True)
class ArticleTemplates:
    opening: Fact
    sections: list[list[Fact]]


@dataclass(frozen=True)
class QuestionTemplates:
    probes: list[ProbeTemplate]
    questions: list[Question]


@dataclass(frozen=True)
class RemarkTemplates:
    remarks: list[str]
    words: tuple[list[str], list[str]]  # negative and positive
    sights: dict[type, list[Sight]]


@cache
def articles_about(kind: type) -> ArticleTemplates:
    return read_articles(TEXT / "articles" / f"{kind.__name__.lower()}.toml", kind)


@cache
def questions_about(kind: type) -> QuestionTemplates:
    return read_questions(TEXT / "questions" / f"{kind.__name__.lower()}.toml", kind)


@cache
def visitors_remarks() -> RemarkTemplates:
    return read_remarks(TEXT / "remarks.toml")


def load_templates() -> None:
    """Read all templates, so that a faulty one is reported before anything is written."""
    for kind in KINDS.values():
        articles_about(kind)
        questions_about(kind)
    visitors_remarks()


def read_articles(path: Path, kind: type) -> ArticleTemplates:
    """Read the sentences about a kind of thing. Raises UsageError naming the file and the faulty entry."""
    content = read_toml(path)
    with errors_name(path):
        (opening,) = _entries(Fact, [{"sentences": content.pop("opening", [])}], kind)
        sections = [list(_entries(Fact, tables, kind)) for tables in content.values()]
        for fact in (opening, *(fact for section in sections for fact in section)):
            if len(set(fact.sentences)) < WORDINGS:
                raise ValueError(f"{list(fact.sentences)}: expected at least {WORDINGS} different sentences")
    return ArticleTemplates(opening, sections)


def read_questions(path: Path, kind: type) -> QuestionTemplates:
    """Read the questions about a kind of thing. Raises UsageError naming the file and the faulty entry."""
    content = read_toml(path)
    with errors_name(path):
        check_keys(content, ("probe", "question"))
        probes = list(_entries(ProbeTemplate, content["probe"], kind))
        return QuestionTemplates(probes, list(_entries(Question, content["question"], kind)))


def read_remarks(path: Path) -> RemarkTemplates:
    """Read the remarks of visitors. Raises UsageError naming the file and the faulty entry."""
    content = read_toml(path)
    with errors_name(path):
        check_keys(content, ("remarks", "negative", "positive", "sights"))
        for remark in content["remarks"]:
            if not {name for name, _ in _placeholders(remark)} <= {"sight", "own", "other"}:
                raise ValueError(f'"{remark}": expected no placeholders but {{sight}}, {{own}} and {{other}}')
        unknown = content["sights"].keys() - KINDS
        if unknown:
            raise ValueError(f"sights: {', '.join(sorted(unknown))}: expected {', '.join(KINDS)}")
        sights = {KINDS[name]: list(_entries(Sight, tables, KINDS[name])) for name, tables in content["sights"].items()}
        return RemarkTemplates(content["remarks"], (content["negative"].split(), content["positive"].split()), sights)


def _entries(entry: type[Entry], tables: Any, kind: type) -> Iterator[Entry]:
    """Make the entries of a list of tables."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{tables!r}: expected a list of tables, each begun by [[NAME]]")
    for each in (each for table in tables for each in _repeated(table)):
        fields: dict[str, Any] = {"when": ALWAYS, **each}
        check_keys(fields, entry._fields)
        for key, value in fields.items():
            many = entry.__annotations__[key] is not str
            if not isinstance(value, list if many else str) or not all(isinstance(text, str) for text in value):
                raise ValueError(f"{key} = {value!r}: expected {'a list of texts' if many else 'text'}")
            templates = tuple(str(text) for text in (value if many else [value]))
            for template in templates:
                check_template(template, kind)
            fields[key] = templates if many else value
        if declared_type(kind, fields["when"].removeprefix("not ")) is None:
            raise ValueError(f'when = "{fields["when"]}": not an attribute of a {kind.__name__}')
        yield entry(**fields)


def _repeated(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables that ``for_each`` makes of one."""
    if "for_each" not in table:
        return [table]
    ((word, others),) = table["for_each"].items()
    text = json.dumps({key: value for key, value in table.items() if key != "for_each"})
    return [json.loads(text.replace(word, other)) for other in others]


def check_template(template: str, kind: type) -> None:
    """Raise ValueError if a template has a placeholder that cannot be filled in for things of this kind."""
    for name, form in _placeholders(template):
        declared = str if name in SUBJECT_WORDS else declared_type(kind, name)
        if declared is None:
            raise ValueError(f'"{template}": {{{name}}} is not an attribute of a {kind.__name__}')
        if form not in FORMS:
            raise ValueError(f'"{template}": unknown form :{form}, expected one of {", ".join(filter(None, FORMS))}')
        if not {declared, get_origin(declared)} & {*FORMS[form].accepts}:
            raise ValueError(f'"{template}": {{{name}{form and f":{form}"}}}: {name} has no such form')


def _placeholders(template: str) -> list[tuple[str, str]]:
    """Return (name, form) of each placeholder."""
    try:
        return [(name, form or "") for _, name, form, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:  # a single brace
        raise ValueError(f'"{template}": {error}') from error


def declared_type(kind: type, name: str) -> Any:
    """Return the type of an attribute such as "works[0].title", without ``| None``; None for an unknown attribute."""
    declared: Any = kind
    for part in name.replace("[", ".[").split("."):
        if part.startswith("["):
            items = get_args(declared) if get_origin(declared) in (list, tuple) else ()
            declared = items[0] if items and part[1:-1].isdigit() else None
        else:
            declared = _attribute_types(declared).get(part) if isinstance(declared, type) else None
        if isinstance(declared, UnionType):
            (declared,) = {*get_args(declared)} - {type(None)}
    return declared


@cache
def _attribute_types(kind: type) -> dict[str, Any]:
    properties = {name: value.fget for name, value in vars(kind).items() if isinstance(value, property)}
    return get_type_hints(kind) | {name: get_type_hints(getter)["return"] for name, getter in properties.items()}
