"""Pairs of short texts about things of the invented world.

Two texts with different words and order agree in all facts or differ in one (MRPC), or share some facts (STS-B); a
sentence answers a question or does not (QNLI); two questions ask the same or not (QQP); a text implies a statement or
does not (RTE), or contradicts it (MNLI)::

    (1, "Sulpol was founded in 424. Its coat of arms shows a horse.",
        "The seal of the city bears a horse. In 424, in the fifth century, settlers founded Sulpol.")
    (1, "When was Sulpol founded?", "In which year did settlers found Sulpol?")
    ("contradiction", "In 621, in the seventh century, settlers founded Sulpol.", "Sulpol was founded in 424.")
"""

from collections.abc import Sequence
from functools import cache
from random import Random

from .retelling import EntitySplit, Told, answers_in, ask, facts_about, join, occurrences
from .sentences import SUBJECT_WORDS, Narrator, holds
from .single_sentences import Row
from .templates import Question, questions_about
from .world import Entity

OTHER_THING = 0.5  # share of the different questions that ask the same about another thing
CONTRADICTED = 0.25  # share of contradictions among the statements that are not implied
RELATIONS = ("entailment", "contradiction", "neutral")


def paraphrases(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw two texts with the same two facts, and the same pair with one fact replaced by another thing's."""
    thing = rng.choice(split.things)
    facts = _recognisable(thing)
    if len(facts) < 2:
        return []
    chosen = rng.sample(facts, 2)
    ways = [rng.sample(ways, 2) for _, ways in chosen]
    first = _tell(thing, rng, [(question.when, way) for (question, _), (way, _) in zip(chosen, ways, strict=True)])
    order = rng.sample((0, 1), 2)
    second = _tell(thing, rng, [(chosen[n][0].when, ways[n][1]) for n in order])
    at = rng.randrange(2)
    question, known = chosen[order[at]][0], first[order[at]]
    false = _changed(split, second[at], question, rng) if answers_in(known, question) else ""
    changed = [false if n == at else told.sentence for n, told in enumerate(second)]
    texts = join(first), join(second), " ".join(changed)
    return [(1, *texts[:2]), (0, texts[0], texts[2])] if false and split.allows(" ".join(texts)) else []


def similarities(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw two texts of two or three facts; their similarity is five times the Dice coefficient of their facts."""
    thing = rng.choice(split.things)
    sizes = rng.randint(2, 3), rng.randint(2, 3)
    shared = rng.randint(0, min(sizes))
    chosen = rng.sample(facts_about(thing), sum(sizes) - shared)
    ways = [rng.sample(ways, 2) for _, ways in chosen]
    facts_of = list(range(sizes[0])), [*range(shared), *range(sizes[0], len(chosen))]
    texts = [
        join(_tell(thing, rng, [(chosen[n][0], ways[n][side]) for n in rng.sample(numbers, len(numbers))]))
        for side, numbers in enumerate(facts_of)
    ]
    score = 5 * 2 * shared / sum(map(len, facts_of))
    return [(f"{score:.3f}", *texts)] if split.allows(" ".join(texts)) else []


def inferences(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw a question with a sentence that answers it, and with one about another fact or another thing.

    Each sentence names its subject, so that the question and the sentence are enough to decide.
    """
    thing = rng.choice(split.things)
    facts = _recognisable(thing)
    if len(facts) < 2:
        return []
    (question, ways), (_, others) = rng.sample(facts, 2)
    asked, right = ask(thing, rng.choice(question.questions)), Narrator(thing, rng).tell(rng.choice(ways))
    rivals = [other for other in split.like(thing) if holds(other, question.when)]
    if rivals and rng.random() < 0.5:
        told, telling = rng.choice(rivals), [thing.name]
        wrong = Narrator(told, rng).tell(rng.choice(ways))
    else:
        told, telling = thing, [ask(thing, answer) for answer in question.answers]
        wrong = Narrator(thing, rng).tell(rng.choice(others))
    named = occurrences(thing.name, right) and occurrences(told.name, wrong)
    if not named or any(occurrences(words, wrong) for words in telling) or not split.allows(f"{asked} {right} {wrong}"):
        return []
    return [("entailment", asked, right), ("not_entailment", asked, wrong)]


def duplicates(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw a question twice in different words, and with another question about it or the same about another thing."""
    thing = rng.choice(split.things)
    questions = [question for question in questions_about(type(thing)).questions if holds(thing, question.when)]
    question, other = rng.sample(questions, 2)
    if len(question.questions) < 2:
        return []
    asked, again = rng.sample(question.questions, 2)
    rivals = [rival for rival in split.like(thing) if holds(rival, question.when)]
    if rivals and rng.random() < OTHER_THING:
        wrong = ask(rng.choice(rivals), again)
    else:
        wrong = ask(thing, rng.choice(other.questions))
    first, second = ask(thing, asked), ask(thing, again)
    return [(1, first, second), (0, first, wrong)] if split.allows(f"{first} {second} {wrong}") else []


def statements(split: EntitySplit, rng: Random, facts: int = 1) -> list[Row]:
    """Draw a statement after three texts of ``facts`` facts, which imply it, contradict it or leave it open.

    As the statement is the same, it alone tells nothing.
    """
    thing = rng.choice(split.things)
    known = _recognisable(thing)
    if len(known) <= facts:
        return []
    (question, ways), *others = rng.sample(known, facts + 1)
    way, claim = rng.sample(ways, 2)
    if not _values(thing, claim) <= _values(thing, way):
        return []
    (told,) = _tell(thing, rng, [(question.when, way)])
    (claimed,) = _tell(thing, rng, [(question.when, claim)])
    another, *around = [_tell(thing, rng, [(other.when, rng.choice(ways))])[0].sentence for other, ways in others]
    false = _changed(split, told, question, rng)
    elsewhere = any(occurrences(ask(thing, answer), " ".join([another, *around])) for answer in question.answers)
    if not false or elsewhere:
        return []
    at = rng.randrange(facts)
    texts = [" ".join([*around[:at], text, *around[at:]]) for text in (told.sentence, false, another)]
    if not split.allows(" ".join([*texts, claimed.sentence])):
        return []
    return [(label, text, claimed.sentence) for label, text in zip(RELATIONS, texts, strict=True)]


def entailments(split: EntitySplit, rng: Random) -> list[Row]:
    """Draw a statement after a text of two facts that implies it, and after one that does not."""
    rows = statements(split, rng, facts=2)
    if not rows:
        return []
    implied, contradicted, left_open = rows
    other = contradicted if rng.random() < CONTRADICTED else left_open
    return [implied, ("not_entailment", *other[1:])]


def _values(thing: Entity, template: str) -> set[str]:
    """Return the attributes that a sentence tells."""
    narrator = Narrator(thing, Random(0))
    narrator.format(template)
    return narrator.told - {*SUBJECT_WORDS, "name"}


@cache
def _recognisable(thing: Entity) -> list[tuple[Question, list[str]]]:
    """Return questions with the templates that answer them, if there are several, which are interchangeable."""
    found = []
    for when, ways in facts_about(thing):
        for question in questions_about(type(thing)).questions:
            alike = [way for way in ways if question.when == when and question.is_answered_by(way)]
            if len(alike) > 1:
                found.append((question, alike))
                break
    return found


def _tell(thing: Entity, rng: Random, facts: Sequence[tuple[str, str]]) -> list[Told]:
    narrator = Narrator(thing, rng)
    return [Told(thing, when, way, narrator.tell(way)) for when, way in facts]


def _changed(split: EntitySplit, told: Told, question: Question, rng: Random) -> str:
    """Replace the answer in a sentence by another thing's; "" if there is no other answer."""
    found = answers_in(told, question)
    donors = [other for other in split.like(told.thing) if holds(other, question.when)]
    if not found or not donors:
        return ""
    template, match = max(found.items(), key=lambda item: len(item[1][0]))  # the longest includes the article
    text = ask(rng.choice(donors), template)
    if sorted(text.lower().split()) == sorted(match[0].lower().split()):  # "red and blue" means "blue and red"
        return ""
    before, after = told.sentence[: match.start()], told.sentence[match.end() :]
    return f"{before}{text if before else text[0].upper() + text[1:]}{after}"
