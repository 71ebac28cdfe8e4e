"""The sentences about people; ``sentences`` explains the notation."""

from .sentences import Section

PERSON: list[Section] = [
    [
        ("name", (
            "{It} was {country.adjective:a} {profession}.",
            "{It} ({born}-{died}) was {country.adjective:a} {profession}.",
            "{It}, born in {birthplace} in {born}, was {country.adjective:a} {profession}.",
        )),
    ],
    [
        ("birthplace", (
            "{It} was born in {birthplace}.",
            "{It} was born in {born} in {birthplace:full}.",
            "{Its} birthplace was {birthplace}, a city in {country}.",
            "{It} came from {birthplace}, where the family had lived for generations.",
        )),
        ("parent", (
            "{Its} {parent.gender:parent} was {parent:full}.",
            "{It} was the {gender:child} of {parent:full}.",
            "{parent}, {its} {parent.gender:parent}, worked as {parent.profession:a}.",
        )),
        ("name", (
            "{Its} first language was {country.language}.",
            "At home the family spoke {country.language}.",
            "{It} wrote letters and diaries in {country.language}, the language of {country}.",
        )),
        ("university", (
            "{It} studied at the university of {university}.",
            "At the age of eighteen {it} went to the university of {university}.",
            "The university of {university} accepted {them} as a student in {entered}.",
        )),
        ("teacher", (
            "{Its} teacher was {teacher:full}.",
            "{It} learned {its} craft from {teacher}.",
            "{teacher}, {teacher.country.adjective:a} {teacher.profession}, taught {them} for several years.",
        )),
    ],
    [
        ("works", (
            "{It} {works[0].verb} the {works[0].kind} {works[0].title}.",
            "{Its} {works[0].kind} {works[0].title} appeared in {works[0].year}.",
            "In {works[0].year}, {it} {works[0].verb} the {works[0].kind} {works[0].title}.",
        )),
        ("works", (
            "{It} is best known for {works[1].title}, {works[1].kind:a} {works[1].participle} in {works[1].city}.",
            "{works[1].title}, {works[1].participle} in {works[1].year}, made {them} famous all over "
            "{country.continent}.",
            "{It} {works[1].verb} {works[1].title} in {works[1].city:full}.",
        )),
        ("discovery", (
            "{It} discovered {discovery.title}.",
            "In {discovery.year}, {it} discovered {discovery.title} in {discovery.city}.",
            "{It} is remembered for {discovery.title}, discovered in {discovery.year}.",
        )),
        ("building", (
            "{It} designed the {building.kind} of {building.city}.",
            "The {building.kind} of {building.city}, completed in {building.year}, is {its} work.",
            "In {building.year}, {it} finished the {building.material} {building.kind} of {building.city}.",
        )),
        ("later_building", (
            "{It} built the {later_building.kind} of {later_building.city}.",
            "{Its} works include the {later_building.kind} of {later_building.city:full}.",
            "{later_building.city} owes its {later_building.kind} to {them}.",
        )),
        ("ascent", (
            "{It} was the first to climb {ascent}.",
            "In {ascent.climbed}, {it} reached the summit of {ascent} in {ascent.country}.",
            "Until {ascent.climbed}, when {it} reached the top, nobody had climbed {ascent}.",
        )),
        ("office", (
            "{It} was prime minister of {country} from {office[0]} to {office[1]}.",
            "In {office[0]}, {it} became prime minister of {country}.",
            "{It} led the {country.adjective} government until {office[1]}.",
        )),
        ("profession", (
            "{It} spent most of {its} life as {profession:a} in {home}.",
            "For many years {it} lived and worked in {home}.",
            "{It} earned {its} living as {profession:a} in {home:full}.",
        )),
        ("pupil", (
            "{Its} best pupil was {pupil:full}.",
            "{It} taught {pupil}, who also became {pupil.profession:a}.",
            "{pupil}, born in {pupil.birthplace}, was {its} pupil.",
        )),
    ],
    [
        ("honoured", (
            "In {honoured}, {it} received the golden medal of the {country.government}.",
            "The university of {university} made {them} a doctor of honour in {honoured}.",
            "{It} was elected to the {country.adjective} academy in {honoured}.",
        )),
        ("name", (
            "{Its} papers are kept in the library of {home}.",
            "The museum of {home} keeps {its} letters.",
            "Scholars go to {home} to read {its} letters and diaries.",
        )),
        ("spouse", (
            "{It} was married to {spouse:full}.",
            "{Its} {spouse.gender:spouse} was {spouse}, {spouse.profession:a} from {spouse.birthplace}.",
            "{It} married {spouse} in {home}.",
        )),
        ("child", (
            "{Its} {child.gender:child} was {child:full}.",
            "{It} had a {child.gender:child}, {child}, who became {child.profession:a}.",
            "{child}, {its} {child.gender:child}, was born in {child.born}.",
        )),
        ("pastime", (
            "{It} loved {pastime} and never travelled without {its} notebook.",
            "Friends described {them} as quiet and fond of {pastime}.",
            "{It} spent {its} free hours with {pastime}.",
        )),
        ("died", (
            "{It} died in {died}.",
            "{It} died in {home} in {died} at the age of {age}.",
            "{It} was {age} years old when {it} died in {died}.",
        )),
        ("name", (
            "A street in {birthplace} bears {its} name.",
            "{Its} house in {birthplace} is now a museum.",
            "In {birthplace}, a statue remembers {them}.",
        )),
        ("name", (
            "{It} is one of the best known {profession}s of the {prime:century}.",
            "{country} honours {them} as one of its great {profession}s.",
            "{Its} portrait is printed on the note of ten {country.currency}s.",
        )),
    ],
]  # fmt: skip
