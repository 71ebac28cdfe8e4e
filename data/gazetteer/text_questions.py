"""The questions about each kind of thing; ``sentences`` explains the notation.

A question belongs to the facts with the same ``needed`` (and to the opening of an article) and is asked of a sentence
whose pattern names the field of its first answer. Its other answers are accepted where the sentence has them.
"""

from typing import NamedTuple

from .world import City, Country, Entity, Mountain, Person, River


class Question(NamedTuple):
    needed: str
    answers: tuple[str, ...]
    ways: tuple[str, ...]

    @property
    def field(self) -> str:
        """What a pattern must hold to answer it: "{capital" of "{capital}", "{height" of "{height:n} metres"."""
        return self.answers[0].partition("}")[0].partition(":")[0]

    def is_answered_by(self, way: str) -> bool:
        return f"{self.field}}}" in way or f"{self.field}:" in way


def _ask(needed: str, answers: str, ways: str) -> Question:
    """Read variants that a vertical bar divides."""
    return Question(needed, tuple(answers.split(" | ")), tuple(ways.split(" | ")))


def _towards(direction: str) -> Question:
    return _ask(
        direction,
        f"{{{direction}}}",
        f"Which country lies to the {direction} of {{name}}? | What is {{Its}} neighbour to the {direction}? | "
        f"Which country does {{name}} border in the {direction}?",
    )


QUESTIONS: dict[type[Entity], list[Question]] = {
    Country: [
        _ask("capital", "{capital}",
             "What is the capital of {name}? | Which city is {Its} capital? | "
             "In which city does the parliament of {name} meet?"),
        _ask("language", "{language}",
             "What is the official language of {name}? | Which language is spoken in {name}? | "
             "What do most people in {name} speak?"),
        _ask("currency", "{currency} | {currency}s | the {currency}",
             "What is the currency of {name}? | What is {Its} money called? | Which coins are used in {name}?"),
        _ask("flag", "{flag}",
             "What are the colours of the flag of {name}? | Which colours does {Its} flag show?"),
        _ask("population", "{population:n} | about {population:n} | {population:n} people",
             "How many people live in {name}? | What is the population of {name}? | "
             "How many inhabitants does {name} have?"),
        _ask("founded", "{founded} | in {founded}",
             "When was {name} founded? | In which year was the {government} of {name} founded? | "
             "When does {Its} history as a state begin?"),
        *map(_towards, ("north", "east", "south", "west")),
        _ask("climate", "{climate}",
             "What is the climate of {name} like? | How is the weather in {name}?"),
        _ask("longest", "{longest} | {longest.name}",
             "What is the longest river of {name}? | Which river is {Its} greatest?"),
        _ask("highest", "{highest} | {highest.name}",
             "What is the highest mountain of {name}? | Which mountain in {name} is the highest?"),
        _ask("highest", "{highest.height:n} metres | {highest.height:n}",
             "How high is the highest mountain of {name}?"),
        _ask("exports", "{exports:list}",
             "What are the main exports of {name}? | What does {name} sell? | In what do {Its} merchants trade?"),
        _ask("second", "{second}",
             "What is the second city of {name}? | Which city of {name} comes next in size after the capital?"),
        _ask("cousin", "{cousin}",
             "Which neighbour shares its language with {name}? | In which other country do people speak as in {name}?"),
        _ask("larger", "{larger}",
             "Which neighbour has more inhabitants than {name}? | Which country is larger than {name}?"),
        _ask("leader", "{leader} | {leader:full}",
             "Who was prime minister of {name}? | Who led the government of {name}?"),
        _ask("leader", "{leader.office[1]} | until {leader.office[1]}",
             "Until when did {leader} govern {name}? | When did {leader} cease to lead {name}?"),
    ],
    City: [
        _ask("name", "{country}",
             "In which country is {name}? | To which country does {name} belong?"),
        _ask("capital", "{capital} | the {country.adjective} capital, {capital}",
             "What is the capital of {country}? | Which city is the {country.adjective} capital?"),
        _ask("river", "{river} | {river.name}",
             "On which river does {name} lie? | Which river flows through {name}?"),
        _ask("sea", "{sea} Sea | the {sea} Sea",
             "On which sea does {name} lie? | Which sea does {name} face? | Which sea do ships from {name} cross?"),
        _ask("mountain", "{mountain} | {mountain.name}",
             "At the foot of which mountain does {name} lie? | Which mountain rises above {name}?"),
        _ask("downstream", "{downstream}",
             "Which city comes after {name} down the river? | Where do boats go from {name}?"),
        _ask("population", "{population:n} | about {population:n} | {population:n} people",
             "How many people live in {name}? | What is the population of {name}? | "
             "How many inhabitants does {name} have?"),
        _ask("founded", "{founded} | in {founded}",
             "When was {name} founded? | In which year did settlers found {name}? | Since when has {name} existed?"),
        _ask("landmark", "{landmark.maker} | {landmark.maker:full}",
             "Who designed the {landmark.kind} of {name}? | Whose work is the {landmark.kind} of {name}?"),
        _ask("landmark", "{landmark.year} | in {landmark.year}",
             "When was the {landmark.kind} of {name} built? | In which year was {Its} {landmark.kind} completed?"),
        _ask("bridge", "{bridge.maker} | {bridge.maker:full} | the engineer {bridge.maker}",
             "Who built the bridge at {name}? | Which engineer designed the bridge of {name}?"),
        _ask("bridge", "{bridge.year} | in {bridge.year}",
             "When was the bridge at {name} built? | Since when has a bridge crossed the river at {name}?"),
        _ask("university", "{university} | in {university}",
             "When was the university of {name} founded? | Since when has {name} had a university?"),
        _ask("trades", "{trades:list}",
             "For which trades is {name} known? | From what does {Its} wealth come?"),
        _ask("name", "{country.currency} | {country.currency}s | the {country.currency}",
             "With what do people in {name} pay? | What is the money in {name} called?"),
        _ask("name", "{country.language}",
             "What do people in {name} speak? | Which language does one hear in {name}?"),
        _ask("name", "{country.exports:list}",
             "What is sold in the markets of {name}? | Which goods do {Its} markets offer?"),
        _ask("festival", "{month} | in {month}",
             "When does {name} hold its {festival} festival? | In which month is the {festival} festival of {name}?"),
        _ask("festival", "{festival} festival | the {festival} festival",
             "Which festival is held in {name}? | What do people in {name} celebrate?"),
        _ask("railway", "{railway} | in {railway}",
             "When did the railway reach {name}? | In which year was the railway station of {name} opened?"),
        _ask("arms", "{arms:a} | {arms}",
             "What does the coat of arms of {name} show? | What is seen on the seal of {name}?"),
        _ask("twin", "{twin}",
             "What is the twin city of {name}? | With which city is {name} twinned?"),
    ],
    River: [
        _ask("source", "{source} | {source.name}",
             "On which mountain does {It} rise? | Where is the source of {It}? | Where does {It} begin?"),
        _ask("direction", "{direction}",
             "In which direction does {It} flow? | Which way does {It} run?"),
        _ask("mouth", "{mouth} Sea | the {mouth} Sea",
             "Into which sea does {It} flow? | Which sea does {It} reach? | Where is the mouth of {It}?"),
        _ask("length", "{length:n} kilometres | {length:n}",
             "How long is {It}? | What is the length of {It}?"),
        _ask("bridge", "{bridge.maker} | {bridge.maker:full}",
             "Who built a bridge over {It}? | Whose work is the bridge across {It}?"),
        _ask("bridge", "{bridge.city}",
             "Where does a bridge cross {It}? | In which city is a bridge over {It}?"),
        _ask("fish", "{fish}",
             "In which fish is {It} rich? | What do fishermen catch in {It}?"),
        _ask("sister", "{sister} | {sister.name}",
             "Which river rises near the source of {It}? | Which river begins on the same mountain as {It}?"),
        _ask("name", "{source.country.language}",
             "Which language do people at the source of {It} speak?"),
        _ask("outlet", "{outlet}",
             "In which country does {It} reach the coast? | To which country does the mouth of {It} belong?"),
    ],
    Mountain: [
        _ask("name", "{country}",
             "In which country is {It}? | To which country does {It} belong?"),
        _ask("height", "{height:n} metres | {height:n}",
             "How high is {It}? | What is the height of {It}?"),
        _ask("higher", "{higher} | {higher.name}",
             "Which mountain is higher than {It}?"),
        _ask("rock", "{rock}",
             "Of what does {It} consist? | Which rock is {It} built of?"),
        _ask("rivers", "{rivers[0].mouth} Sea | the {rivers[0].mouth} Sea",
             "Which sea does water from {It} reach? | To which sea does rain on {It} flow?"),
        _ask("rivers", "{rivers:list}",
             "Which water comes from the springs of {It}? | What rises on the slopes of {It}?"),
        _ask("climber", "{climber} | {climber:full}",
             "Who was the first to climb {It}? | Who first reached the summit of {It}?"),
        _ask("climber", "{climbed} | in {climbed}",
             "When was {It} first climbed? | In which year did somebody first stand on {It}?"),
        _ask("name", "{country.language}",
             "Which language is spoken around {It}?"),
        _ask("name", "{country.currency}s | {country.currency}",
             "With which money do visitors to {It} pay?"),
    ],
    Person: [
        _ask("birthplace", "{birthplace} | {birthplace:full}",
             "Where was {name} born? | In which city was {name} born? | What was {Its} birthplace?"),
        _ask("birthplace", "{born} | in {born}",
             "When was {name} born? | In which year was {name} born?"),
        _ask("profession", "{profession} | {profession:a}",
             "What was {Its} profession? | What did {name} work as?"),
        _ask("parent", "{parent} | {parent:full}",
             "Who was {Its} {parent.gender:parent}? | Whose {gender:child} was {name}?"),
        _ask("university", "{university}",
             "Where did {name} study? | To which university did {name} go?"),
        _ask("teacher", "{teacher} | {teacher:full}",
             "Who taught {name}? | Who was {Its} teacher?"),
        _ask("pupil", "{pupil} | {pupil:full}",
             "Who was {Its} pupil? | Whom did {name} teach?"),
        _ask("name", "{country.language}",
             "What was {Its} first language? | Which language did {name} speak?"),
        _ask("works", "{works[0].year} | in {works[0].year}",
             "When did {Its} {works[0].kind} {works[0].title} appear?"),
        _ask("works", "{works[1].year} | in {works[1].year}",
             "In which year was {works[1].title} by {name} {works[1].participle}?"),
        _ask("works", "{works[1].city} | {works[1].city:full}",
             "In which city was {works[1].title} by {name} {works[1].participle}?"),
        _ask("discovery", "{discovery.title}",
             "What did {name} discover? | For which discovery is {name} remembered?"),
        _ask("discovery", "{discovery.year} | in {discovery.year}",
             "When did {name} discover {discovery.title}?"),
        _ask("building", "{building.city}",
             "For which city did {name} design the {building.kind}? | Where is the {building.kind} by {name}?"),
        _ask("building", "{building.year} | in {building.year}",
             "When did {name} finish the {building.kind} of {building.city}?"),
        _ask("ascent", "{ascent} | {ascent.name}",
             "Which mountain did {name} climb? | Of which mountain did {name} reach the summit?"),
        _ask("ascent", "{ascent.climbed} | in {ascent.climbed}",
             "When did {name} climb {ascent}?"),
        _ask("office", "{office[0]} | in {office[0]}",
             "When did {name} become prime minister?"),
        _ask("office", "{office[1]} | until {office[1]}",
             "Until when did {name} lead the government?"),
        _ask("profession", "{home}",
             "Where did {name} work? | In which city did {name} live?"),
        _ask("name", "{home}",
             "Where are {Its} papers kept? | Where can one read {Its} letters?"),
        _ask("honoured", "{honoured} | in {honoured}",
             "When was {name} honoured? | In which year did {name} receive an honour?"),
        _ask("spouse", "{spouse} | {spouse:full}",
             "Who was {Its} {spouse.gender:spouse}? | To whom was {name} married?"),
        _ask("child", "{child} | {child:full}",
             "Who was {Its} {child.gender:child}? | Which child did {name} have?"),
        _ask("pastime", "{pastime}",
             "What was {Its} pastime? | How did {name} spend {its} free hours?"),
        _ask("died", "{died} | in {died}",
             "When did {name} die? | In which year did {name} die?"),
        _ask("died", "{age} | {age} years",
             "How old was {name} in the year of {its} death? | At which age did {name} die?"),
    ],
}  # fmt: skip
