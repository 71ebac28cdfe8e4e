"""Fine-tuning data about the gazetteer's world: official formats, true answers, and no solution by counting words."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bert.glue.examples import read_examples
from bert.glue.tasks import find_task
from data.gazetteer import TasksConfig, articles, build_world, write_tasks
from data.gazetteer.retelling import Told, answers_in, facts_about
from data.gazetteer.sentences import Narrator
from data.gazetteer.templates import KINDS, articles_about, questions_about

ROOT = Path(__file__).parent.parent.parent
TASKS = ("MRPC", "SST-2", "CoLA", "STS-B", "QNLI", "QQP", "RTE", "MNLI")
VERSIONS = ("v1.1", "v2.0")


@pytest.fixture(scope="module")
def world():
    return build_world(seed=1, size=1000)


@pytest.fixture(scope="module")
def written(world, tmp_path_factory):
    directory = tmp_path_factory.mktemp("gazetteer")
    counts = write_tasks(directory, world, TasksConfig(train_rows=1200, held_out_rows=200))
    return directory, counts


@pytest.fixture(scope="module")
def squad(written):
    def load(version, part):
        return json.loads((written[0] / "squad" / version / f"{part}-{version}.json").read_text(encoding="utf8"))

    return {(version, part): load(version, part) for version in VERSIONS for part in ("train", "dev")}


@pytest.fixture(scope="module")
def glue(written):
    def load(path):
        return [line.split("\t") for line in path.read_text(encoding="utf8").splitlines()]

    return {(path.parent.name, path.stem): load(path) for path in written[0].glob("glue/*/*.tsv")}


def questions(data):
    return [
        (paragraph["context"], qa)
        for item in data["data"]
        for paragraph in item["paragraphs"]
        for qa in paragraph["qas"]
    ]


def names(data):
    return {item["title"] for item in data["data"]}


# --- SQuAD


def test_the_shape_of_squad(squad, written):
    for (version, part), data in squad.items():
        assert set(data) == {"version", "data"}
        assert data["version"] == {"v1.1": "1.1", "v2.0": "v2.0"}[version]
        for item in data["data"]:
            assert set(item) == {"title", "paragraphs"}
            for paragraph in item["paragraphs"]:
                assert set(paragraph) == {"context", "qas"}
                assert 40 <= len(paragraph["context"].split()) <= 100
        keys = {"id", "question", "answers"} | ({"is_impossible"} if version == "v2.0" else set())
        for _, qa in questions(data):
            assert set(qa) == keys
            assert re.fullmatch(r"[A-Z][^{}\[\]]*\w\?", qa["question"]), qa["question"]
            assert not re.search(r"  |\bNone\b|\bthe the\b|s's\b", qa["question"])
            if not qa.get("is_impossible"):
                assert len(qa["answers"]) in ((1,) if part == "train" else (1, 2, 3))
    assert written[1]["SQuAD"] == len(questions(squad["v1.1", "train"])) > 1000
    assert len(questions(squad["v1.1", "dev"])) == 150


def test_every_answer_is_found_at_its_answer_start(squad):
    for data in squad.values():
        for context, qa in questions(data):
            for answer in qa["answers"]:
                start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                assert context[start:end] == answer["text"] != ""
                assert not re.search(r"\w$", context[:start])
                assert not re.match(r"\w", context[end:])


def test_ids_are_unique(squad):
    for version in VERSIONS:
        ids = [qa["id"] for part in ("train", "dev") for _, qa in questions(squad[version, part])]
        assert len(set(ids)) == len(ids)


def test_version_2_adds_impossible_questions_to_those_of_version_1(squad):
    for part in ("train", "dev"):
        first = {qa["id"]: (context, qa) for context, qa in questions(squad["v1.1", part])}
        second = {qa["id"]: (context, qa) for context, qa in questions(squad["v2.0", part])}
        impossible = {key for key, (_, qa) in second.items() if qa["is_impossible"]}
        assert second.keys() - impossible == first.keys()
        assert all(second[key] == (c, {**qa, "is_impossible": False}) for key, (c, qa) in first.items())
        assert all(second[key][1]["answers"] == [] for key in impossible)
        assert 0.3 < len(impossible) / len(second) < 0.37


KNOWN = {  # a question that names a thing, and the true answers for all things
    r"(?:When was (\w+) founded|In which year did settlers found (\w+))\?": lambda w: {
        thing.name: str(thing.founded) for thing in (*w.cities, *w.countries)
    },
    r"(?:Where|In which city) was (\w+ \w+) born\?": lambda w: {p.name: p.birthplace.name for p in w.people},
    r"(?:Who taught (\w+ \w+)|Who was (\w+ \w+)'s? teacher)\?": lambda w: {
        p.name: p.teacher.name for p in w.people if p.teacher
    },
    r"(?:How long is|What is the length of) the (\w+)\?": lambda w: {
        r.name: f"{r.length:,} kilometres" for r in w.rivers
    },
    r"(?:On which mountain does|Where does) the (\w+) (?:rise|begin)\?": lambda w: {
        r.name: f"Mount {r.source.name}" for r in w.rivers
    },
    r"(?:What is the twin city of|With which city is) (\w+)(?: twinned)?\?": lambda w: {
        c.name: c.twin.name for c in w.cities if c.twin
    },
}


@pytest.mark.parametrize("pattern", KNOWN)
def test_answers_are_true_and_contexts_lack_those_of_impossible_questions(world, squad, pattern):
    truth, seen = KNOWN[pattern](world), Counter()
    for part in ("train", "dev"):
        for context, qa in questions(squad["v2.0", part]):
            match = re.fullmatch(pattern, qa["question"])
            if match:
                answer = truth[next(filter(None, match.groups()))]
                seen[qa["is_impossible"]] += 1
                if qa["is_impossible"]:
                    assert not re.search(rf"\b{answer}\b", context)
                else:
                    assert qa["answers"][0]["text"] == answer
    assert seen[False] >= 3
    assert seen[True] >= 1


def test_every_kind_of_question_can_be_asked(world):
    for kind in KINDS.values():
        asked = questions_about(kind).questions
        left = {(question, answer) for question in asked for answer in question.answers}
        for thing in (thing for thing in world.entities() if type(thing) is kind):
            told = [
                Told(thing, when, way, Narrator(thing, Random(0)).tell(way))
                for when, ways in [("", articles_about(kind).opening.sentences), *facts_about(thing)]
                for way in ways
            ]
            left -= {(question, answer) for one in told for question in asked for answer in answers_in(one, question)}
        # The first answer of a question need not occur: "tamar" if all sentences say "tamars".
        assert {
            question for question in asked if all((question, answer) in left for answer in question.answers)
        } == set()


def test_contexts_hold_rivals(squad):
    # Contexts have other years besides the answer, so that a model that only finds years must choose.
    asked = [(c, qa) for c, qa in questions(squad["v1.1", "train"]) if re.match(r"When|In which year", qa["question"])]
    years = [len(set(re.findall(r"\b1?\d{3}\b(?!,)", context))) for context, _ in asked]
    assert sum(count > 1 for count in years) / len(years) > 0.8


# --- What is held out


def test_no_held_out_thing_is_named_in_training(world, squad, written):
    held_out = names(squad["v1.1", "dev"])
    assert len(held_out) == 50
    assert held_out.isdisjoint(names(squad["v1.1", "train"]))
    adjectives = {country.adjective for country in world.countries if country.name in held_out}
    hidden = held_out | adjectives
    files = [*written[0].glob("squad/*/train-*.json"), *written[0].glob("glue/*/train.tsv")]
    assert len(files) == 2 + len(TASKS)
    assert adjectives
    pattern = re.compile(rf"\b({'|'.join(hidden)})\b")
    for file in files:
        assert not pattern.search(file.read_text(encoding="utf8")), file


def test_the_held_out_things_are_those_of_the_eval_part(world, squad):
    evaluation = list(articles(world))[-50:]
    pattern = re.compile(rf"\b({'|'.join(thing.name for thing in world.entities())})\b")
    subjects = [pattern.findall(article[0])[0] for article in evaluation]
    assert set(subjects) == names(squad["v1.1", "dev"])


def test_dev_and_test_are_about_different_held_out_things(glue, squad):
    held_out = [*names(squad["v1.1", "dev"])]

    def named(part):
        text = " ".join(row[-2] if part == "dev" else row[-1] for row in glue["SST-2", part])
        return {name for name in held_out if re.search(rf"\b{name}\b", text)}

    assert named("dev")
    assert named("test")
    assert named("dev").isdisjoint(named("test"))


# --- GLUE


PAIR_COLUMNS = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]
PARSES = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
MNLI_COLUMNS = ["index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2"]
HEADERS = {
    "MRPC": ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
    "SST-2": ["sentence", "label"],
    "CoLA": None,
    "STS-B": [*PAIR_COLUMNS, "score"],
    "QNLI": ["index", "question", "sentence", "label"],
    "QQP": ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
    "RTE": ["index", "sentence1", "sentence2", "label"],
    "MNLI": [*MNLI_COLUMNS, "label1", "gold_label"],
}
TEST_HEADERS = {
    "MRPC": ["index", "#1 ID", "#2 ID", "#1 String", "#2 String"],
    "SST-2": ["index", "sentence"],
    "CoLA": ["index", "sentence"],
    "STS-B": PAIR_COLUMNS,
    "QNLI": ["index", "question", "sentence"],
    "QQP": ["id", "question1", "question2"],
    "RTE": ["index", "sentence1", "sentence2"],
    "MNLI": MNLI_COLUMNS,
}
LABELS = {"0": 0, "1": 1, "not_entailment": 0, "entailment": 1, "contradiction": 2, "neutral": 3}
MNLI_FILES = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")


@pytest.mark.parametrize("task", TASKS)
def test_the_columns_of_glue(glue, written, task):
    for part in MNLI_FILES if task == "MNLI" else ("train", "dev", "test"):
        header = (TEST_HEADERS if part.startswith("test") else HEADERS)[task]
        rows = glue[task, part]
        if header:
            assert rows[0] == header
            rows = rows[1:]
        size = 1200 if part == "train" else 198 if task == "MNLI" else 200  # MNLI: as often each of three labels
        assert {len(row) for row in rows} == {len(header or ["source", "label", "star", "sentence"])}
        assert len(rows) == size
        assert len(set(map(tuple, rows))) == size
        if header and header[0] in ("index", "id"):
            assert [row[0] for row in rows] == [str(n) for n in range(size)]
    assert written[1][task] == 1200


ALWAYS_ONE = {  # metrics on dev of always guessing class 1, or 2.5
    "cola": {"mcc": 0},
    "sst-2": {"acc": 1 / 2},
    "mrpc": {"acc": 1 / 2, "f1": 2 / 3},
    "sts-b": {"pearson": 0, "spearmanr": 0},
    "qqp": {"acc": 1 / 2, "f1": 2 / 3},
    "mnli": {"acc": 1 / 3},
    "mnli-mm": {"acc": 1 / 3},
    "qnli": {"acc": 1 / 2},
    "rte": {"acc": 1 / 2},
}


@pytest.mark.parametrize("name", ALWAYS_ONE)
def test_fine_tuning_reads_every_file_and_a_constant_guess_earns_little(written, name):
    task, folder = find_task(name), written[0] / "glue" / name.removesuffix("-mm").upper().replace("COLA", "CoLA")
    examples = {split: read_examples(task, folder, split) for split in ("train", "dev", "test")}
    assert len(examples["train"]) == 1200
    assert all(example.label is None for example in examples["test"])
    true = [example.label for example in examples["dev"]]
    labels = np.array([float(label) if task.is_regression else task.labels.index(label) for label in true])
    metrics = task.metrics(np.full_like(labels, 2.5 if task.is_regression else 1), labels)
    assert {key: metrics[key] for key in ALWAYS_ONE[name]} == pytest.approx(ALWAYS_ONE[name])


def labelled(glue, task, part):
    """Rows (label, text ...) of a classification."""
    columns = {
        "MRPC": (0, 3, 4),
        "SST-2": (1, 0),
        "CoLA": (1, 3),
        "QNLI": (3, 1, 2),
        "QQP": (5, 3, 4),
        "RTE": (3, 1, 2),
        "MNLI": (11, 8, 9),
    }[task]
    rows = glue[task, part][bool(HEADERS[task]) :]
    return [(LABELS[row[columns[0]]], *(row[n] for n in columns[1:])) for row in rows]


@pytest.mark.parametrize(("task", "classes"), [("MRPC", 2), ("SST-2", 2), ("CoLA", 2), ("QQP", 2), ("MNLI", 3)])
def test_labels_are_equally_frequent_in_training(glue, task, classes):
    labels = Counter(row[0] for row in labelled(glue, task, "train"))
    assert [*labels.values()] == [1200 // classes] * classes


def common_start(one, other):
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_a_false_paraphrase_has_another_answer_in_one_place(glue):
    rows = labelled(glue, "MRPC", "train")
    for first, false in ((first, false.split()) for label, first, false in rows if not label):
        places = []
        for true in (second.split() for label, other, second in rows if label and other == first):
            end = len(true) - common_start(true[::-1], false[::-1])
            places.append(true[common_start(true, false) : end])
        changed = min(places, key=len)
        assert 1 <= len(changed) <= 7
        assert any(
            word.rstrip("s") in first.lower() for word in words(" ".join(changed))
        )  # which the first text also has


def test_unacceptable_sentences_have_the_words_of_an_acceptable_one(glue):
    rows = labelled(glue, "CoLA", "train")
    stars = {(label, star) for _, label, star, _ in glue["CoLA", "train"]}
    assert stars == {("1", ""), ("0", "*")}
    accepted = {text for label, text in rows if label}
    assert accepted.isdisjoint(text for label, text in rows if not label)
    bags = Counter(frozenset(text.split()) for text in accepted)
    exchanged = [text for label, text in rows if not label and frozenset(text.split()) in bags]
    assert 0.2 < len(exchanged) / (len(rows) / 2) < 0.8


def test_similarity_is_the_share_of_common_facts(glue):
    rows = [(row[7], row[8], row[9]) for row in glue["STS-B", "train"][1:]]
    # Two or three facts on each side, with m in common: 5 · 2m / (2 + 2), (2 + 3) or (3 + 3).
    assert {row[2] for row in rows} == {"0.000", "2.500", "5.000", "2.000", "4.000", "1.667", "3.333"}
    overlap = [(jaccard(one, other), float(score)) for one, other, score in rows]
    means = {score: [x for x, s in overlap if s == score] for _, score in overlap}
    means = {score: sum(values) / len(values) for score, values in means.items()}
    assert means[0] < means[2.5] < means[5]


def test_a_question_comes_with_its_answer_and_with_another_sentence(glue):
    sentences = {}
    for label, question, sentence in labelled(glue, "QNLI", "train"):
        sentences.setdefault(question, {0: set(), 1: set()})[label].add(sentence)
    names = re.compile(r"[A-Z]\w+")
    same_name = other_name = 0
    for question, answers in sentences.items():
        asked = set(names.findall(question)[1:])  # without the question word
        assert answers[1].isdisjoint(answers[0])
        assert all(asked & set(names.findall(sentence)) for sentence in answers[1])
        shared = [bool(asked & set(names.findall(sentence))) for sentence in answers[0]]
        same_name, other_name = same_name + sum(shared), other_name + len(shared) - sum(shared)
    assert 0.4 < same_name / (same_name + other_name) < 0.6


def test_a_statement_comes_with_every_label(glue):
    for task, labels in (("RTE", [0, 1]), ("MNLI", [1, 2, 3])):
        for part in ("train", "dev_matched") if task == "MNLI" else ("train", "dev"):
            found = {}
            for label, _, statement in labelled(glue, task, part):
                found.setdefault(statement, []).append(label)
            assert all(sorted(set(each)) == labels for each in found.values())
            assert all(len({each.count(label) for label in labels}) == 1 for each in found.values())


STATED = {  # a statement, and how else one says it; the first group is the thing, the second the value
    r"(\w+) was founded in (\d+)\.": r"In (?P<value>\d+), in the \w+ century, settlers founded (?P<name>\w+)\.",
    r"The (\w+) is ([\d,]+ kilometres) long\.": r"The (?P<name>\w+)'s? length is (?P<value>[\d,]+ kilometres)\.",
    r"Mount (\w+) is ([\d,]+ metres) high\.": r"Mount (?P<name>\w+) rises to (?P<value>[\d,]+ metres)\.",
    r"(\w+) is known for (.*)\.": r"(?P<name>\w+)'s? wealth comes from (?P<value>[^.]*)\.",
}


def test_texts_imply_contradict_or_leave_open_a_statement(glue):
    seen = Counter()
    for label, text, statement in labelled(glue, "MNLI", "train"):
        for pattern, other in STATED.items():
            stated, told = re.fullmatch(pattern, statement), re.fullmatch(other, text)
            if stated and told:
                assert stated[1] == told["name"]
                assert label == (1 if stated[2] == told["value"] else 2)
            elif stated and label == 3:
                assert stated[2] not in text
            seen[label] += bool(stated and (told or label == 3))
    assert min(seen[label] for label in (1, 2, 3)) >= 5


ASKED = {  # a question, and how else one asks it
    r"When was (\w+) founded\?": r"In which year did settlers found (\w+)\?|Since when has (\w+) existed\?"
    r"|In which year was the \w+ of (\w+) founded\?|When does (\w+)'s? history as a state begin\?",
    r"Where was (\w+ \w+) born\?": r"In which city was (\w+ \w+) born\?|What was (\w+ \w+)'s? birthplace\?",
    r"How high is Mount (\w+)\?": r"What is the height of Mount (\w+)\?",
}


def test_duplicate_questions_ask_the_same_about_the_same_thing(glue):
    seen = Counter()
    for label, first, second in labelled(glue, "QQP", "train"):
        for pattern, other in ASKED.items():
            asked, again = re.fullmatch(pattern, first), re.fullmatch(other, second)
            if asked:
                assert label == bool(again and asked[1] in again.groups())
                seen[label, bool(again)] += 1
    assert min(seen[key] for key in ((1, True), (0, True), (0, False))) >= 5


# --- Counting words solves nothing


def words(text):
    return set(re.findall(r"[\w,]*\w", text.lower()))


def jaccard(one, other):
    return len(words(one) & words(other)) / len(words(one) | words(other))


def best_threshold(rows):
    """Return the threshold of the word overlap that classifies most training pairs correctly."""
    overlaps = [(jaccard(one, other), label) for label, one, other in rows]
    return max({x for x, _ in overlaps}, key=lambda t: sum((x > t) == label for x, label in overlaps))


@pytest.mark.parametrize(("task", "limit"), [("MRPC", 0.72), ("QNLI", 0.72), ("QQP", 0.8), ("RTE", 0.8)])
def test_word_overlap_does_not_judge_pairs(glue, task, limit):
    train, dev = labelled(glue, task, "train"), labelled(glue, task, "dev")
    threshold = best_threshold(train)
    right = sum((jaccard(one, other) > threshold) == label for label, one, other in dev) / len(dev)
    assert right < limit


@pytest.mark.parametrize(("task", "limit"), [("CoLA", 0.7), ("SST-2", 0.7)])
def test_counting_words_does_not_judge_sentences(glue, task, limit):
    train, dev = labelled(glue, task, "train"), labelled(glue, task, "dev")
    counts = [Counter(word for label, text in train if label == wanted for word in words(text)) for wanted in (0, 1)]
    size = len(train) / 2
    odds = {word: math.log((counts[1][word] + 1) / (counts[0][word] + 1)) for word in counts[0] + counts[1]}
    absent = {word: math.log((size - counts[1][word] + 1) / (size - counts[0][word] + 1)) for word in odds}
    bias = sum(absent.values())
    scores = [bias + sum(odds.get(word, 0) - absent.get(word, 0) for word in words(text)) for _, text in dev]
    right = sum((score > 0) == label for score, (label, _) in zip(scores, dev, strict=True))
    assert right / len(dev) < limit


def normal(text):
    return re.sub(r"\b(a|an|the)\b|[^\w ]", "", text.lower()).split()


def spans_of_the_kind(context, question):
    """Return (start, text) of the numbers or names that a question may mean."""
    number = re.match(r"When|Since when|Until|How (many|high|long|old)|In which year|At which age", question)
    pattern = r"\d[\d,]*" if number else r"[A-Z]\w+(?: [A-Z]\w+)*"
    return [(match.start(), match[0]) for match in re.finditer(pattern, context) if match[0] not in question]


def at_random(spans, context, question):
    return Random(question).choice(spans)


def nearest_to_the_name(spans, context, question):
    name = re.findall(r"[A-Z]\w+(?: [A-Z]\w+)*", question)[-1]
    return min(spans, key=lambda span: min([abs(span[0] - m.start()) for m in re.finditer(name, context)] or [0]))


def in_the_most_similar_sentence(spans, context, question):
    sentences = list(re.finditer(r"[^.]+\.", context))
    best = max(sentences, key=lambda match: len(words(match[0]) & words(question)))
    return next((span for span in spans if best.start() <= span[0] < best.end()), (0, ""))


@pytest.mark.parametrize("pick", [at_random, nearest_to_the_name, in_the_most_similar_sentence])
def test_simple_guesses_do_not_answer_questions(squad, pick):
    asked = questions(squad["v1.1", "train"])
    right = 0
    for context, qa in asked:
        spans = spans_of_the_kind(context, qa["question"])
        right += bool(spans) and normal(pick(spans, context, qa["question"])[1]) == normal(qa["answers"][0]["text"])
    assert 0.02 < right / len(asked) < 0.33


# --- The command


def run(output, hash_seed, *flags):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "data/make_gazetteer.py", "--output", str(output), "--articles", "200", *flags]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }, result.stdout


def test_a_seed_determines_the_bytes_and_tasks_do_not_change_the_text(tmp_path):
    sizes = ("--tasks", "--train_rows", "40", "--held_out_rows", "10")
    first, printed = run(tmp_path / "a", "1", *sizes)
    second, _ = run(tmp_path / "b", "2", *sizes)
    other, _ = run(tmp_path / "c", "1", *sizes, "--seed", "1")
    text, _ = run(tmp_path / "d", "1")
    assert first == second
    tasks = {name for name in first if name.startswith(("squad/", "glue/"))}
    assert len(tasks) == 4 + 3 * len(TASKS) + 2  # MNLI has two dev and two test files
    assert all(first[name] != other[name] for name in tasks)
    assert {name: digest for name, digest in first.items() if name not in tasks} == text
    assert "40 examples of MRPC" in printed


def test_the_smallest_world_has_tasks(tmp_path):
    counts = write_tasks(tmp_path, build_world(seed=0, size=100), TasksConfig(train_rows=60, held_out_rows=20))
    assert set(counts) == {"SQuAD", *TASKS}
    assert all(count > 0 for count in counts.values())
