"""Questions on paragraphs of the invented encyclopedia, in the files of SQuAD 1.1 and 2.0.

A context describes two things of a kind, so that several years, rivers or cities in it could be the answer; only the
wording of the question and the right half of the context tell which. An impossible question of 2.0 asks about one of
the two, or about a third thing, what the context tells only about another. No held-out thing is named in training
(``retelling`` explains what pre-training has read about it)::

    write_squad("data/encyclopedia/squad", world, questions=3)     # {"train": 3763, "dev": 450}
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from .corpus import write_text
from .retelling import EntitySplit, Told, answers_in, ask, describe, join, occurrences, split_things
from .sentences import holds
from .templates import Question, questions_about
from .world import Entity, InventedWorld

WORDS = (32, 50)  # about each of the two things of a context
RIVALRY = 0.6  # share of the facts about the first thing that are also told of the second, if they apply
Asked = tuple[Entity, Question]


def write_squad(directory: str | Path, world: InventedWorld, questions: int) -> dict[str, int]:
    """Write ``v1.1/`` and ``v2.0/`` below ``directory``: a context about each thing, ``questions`` on each context.

    v2.0 adds half as many impossible ones. Dev accepts up to three answers. Returns the number of questions in v1.1 of
    train and of dev.
    """
    counts = {}
    for name, split in zip(("train", "dev"), split_things(world), strict=True):
        rng = Random(f"gazetteer {world.seed} squad {name}")
        articles = [_article(split, thing, rng, questions, 3 if name == "dev" else 1) for thing in split.things]
        answerable = [_without_impossible(article) for article in articles]
        for version, folder, data in (("1.1", "v1.1", answerable), ("v2.0", "v2.0", articles)):
            path = Path(directory) / folder / f"{name}-{folder}.json"
            write_text(path, json.dumps({"version": version, "data": data}) + "\n")
        counts[name] = sum(len(article["paragraphs"][0]["qas"]) for article in answerable)
    return counts


def _article(split: EntitySplit, thing: Entity, rng: Random, questions: int, variants: int) -> dict[str, Any]:
    others = split.like(thing)
    things = [thing, *rng.sample(others, min(2, len(others)))]  # the third appears only in questions
    blocks = [describe(split, thing, rng, rng.randint(*WORDS) * (1 if others else 2))]
    for rival in things[1:2]:
        same = [told.when for told in blocks[0] if rng.random() < RIVALRY]
        blocks.append(describe(split, rival, rng, rng.randint(*WORDS), first=same))
    rng.shuffle(blocks)
    told = [told for block in blocks for told in block]
    answers = {asked: found for asked, found in _answers(told).items() if _may_ask(split, *asked)}
    chosen = rng.sample(list(answers), min(questions, len(answers)))
    impossible = [asked for asked in _unanswered(list(answers), things, join(told)) if _may_ask(split, *asked)]
    chosen += rng.sample(impossible, min((len(chosen) + rng.randrange(2)) // 2, len(impossible)))
    qas = [
        {
            "id": f"{rng.getrandbits(96):024x}",
            "question": ask(it, rng.choice(question.questions)),
            "answers": answers.get((it, question), [])[:variants],
            "is_impossible": (it, question) not in answers,
        }
        for it, question in rng.sample(chosen, len(chosen))
    ]
    return {"title": thing.name, "paragraphs": [{"context": join(told), "qas": qas}]}


def _answers(told: list[Told]) -> dict[Asked, list[dict[str, Any]]]:
    """Return the questions that the sentences answer, with the answers in SQuAD's format."""
    answers, start = {}, 0
    for one in told:
        for question in questions_about(type(one.thing)).questions:
            matches = answers_in(one, question).values()
            found = [{"text": match[0], "answer_start": start + match.start()} for match in matches]
            if found:
                answers.setdefault((one.thing, question), found)
        start += len(one.sentence) + 1  # a space
    return answers


def _unanswered(asked: list[Asked], things: list[Entity], context: str) -> list[Asked]:
    """Return the same questions about those ``things`` for which the context has no answer."""
    return [
        (thing, question)
        for question in dict.fromkeys(question for _, question in asked)
        for thing in things
        if holds(thing, question.when)
        and not any(occurrences(ask(thing, answer), context) for answer in question.answers)
    ]


def _may_ask(split: EntitySplit, thing: Entity, question: Question) -> bool:
    return split.allows(" ".join(ask(thing, way) for way in question.questions))


def _without_impossible(article: dict[str, Any]) -> dict[str, Any]:
    """Convert an article of 2.0 to 1.1."""
    (paragraph,) = article["paragraphs"]
    qas = [
        {key: value for key, value in qa.items() if key != "is_impossible"}
        for qa in paragraph["qas"]
        if not qa["is_impossible"]
    ]
    return {"title": article["title"], "paragraphs": [{"context": paragraph["context"], "qas": qas}]}
