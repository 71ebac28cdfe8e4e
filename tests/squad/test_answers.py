import json
import math
import random
import re

import numpy as np
import pytest

from bert.errors import UsageError
from bert.squad.align import detokenize, get_final_text
from bert.squad.answers import Answer, AnswerConfig, Candidate, RawResult, find_answers, write_predictions
from bert.squad.examples import SquadExample, example_from_text, read_squad_examples
from bert.squad.features import convert_examples_to_features
from bert.squad.metrics import evaluate_v1, read_gold
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer

PIECES = "a b c d e f g h what steve smith ##s the team won in elysee ecole 北 京 ( ) , . - ' ? 1995 $ 5 ##0 la s"
LOW = -20.0


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *PIECES.split()]) + "\n", encoding="utf8")
    return BertTokenizer(path)


def windows_of(tokenizer, context, length=64, stride=16, query=2, question="what"):
    examples = [example_from_text(question, context)]
    return examples, convert_examples_to_features(examples, tokenizer, length, stride, query, is_training=False)


def logits(feature, high, null=LOW):
    """Logits that are low except ``{position of the context: logit}`` and ``null`` at [CLS]."""
    values = np.full(len(feature.tokens), LOW)
    values[0] = null
    for piece, value in high.items():
        values[feature.segment_start + piece] = value
    return values


def answer_of(tokenizer, context, start, end, null=(LOW, LOW), **settings):
    """The answer of one window with the logits ``start`` and ``end`` of pieces of the context."""
    examples, (feature,) = windows_of(tokenizer, context)
    result = RawResult(feature.unique_id, logits(feature, start, null[0]), logits(feature, end, null[1]))
    (answer,) = find_answers(examples, [feature], [result], True, AnswerConfig(**settings))
    return answer


# --- one window, version 1


def test_probabilities_of_two_answers(tokenizer):
    """Starts 0 and 2 with end 2 score 3 + 1 and 1 + 1, so the odds are e squared to one."""
    answer = answer_of(tokenizer, "a b c d", {0: 3, 2: 1}, {2: 1}, n_best_size=2)
    share = 1 / (1 + math.exp(-2))
    assert answer == Answer(
        "0",
        "a b c",
        "a b c",
        None,
        [
            Candidate("a b c", pytest.approx(share), 3.0, 1.0, (0, 5)),
            Candidate("c", pytest.approx(1 - share), 1.0, 1.0, (4, 5)),
        ],
    )
    assert answer.chosen is answer.nbest[0]


def test_answers_read_as_in_the_text(tokenizer):
    context = "The Team (Steve\u202fSmith's) won $50, in 北京"
    assert answer_of(tokenizer, context, {3: 9}, {4: 9}).text == "Steve\u202fSmith"
    assert answer_of(tokenizer, context, {2: 9}, {6: 9}).text == "(Steve\u202fSmith's"
    assert answer_of(tokenizer, context, {9: 9}, {11: 9}).text == "$50"
    assert answer_of(tokenizer, context, {14: 9}, {14: 9}).text == "北"
    assert answer_of(tokenizer, context, {10: 9}, {10: 9}).text == "5"  # the pieces are "5" and "##0"


@pytest.mark.parametrize(
    ("context", "first", "last", "text", "published"),
    [
        ("a (Xyz) b", 2, 2, "Xyz", "(Xyz)"),  # [UNK]
        ("a Xyz b", 1, 1, "Xyz", "Xyz"),
        ("in\u00a0the team\u00a0won", 1, 2, "the team", "in\u00a0the team\u00a0won"),
        ("in\u00a0the\u00a0team", 1, 2, "the\u00a0team", "in\u00a0the\u00a0team"),
        ("in\u3000the\u2009team\u2028won", 1, 1, "the", "in\u3000the\u2009team\u2028won"),
        ("a\t\n\u202fb", 0, 1, "a\t\n\u202fb", "a b"),
        ("北京，在北京", 1, 2, "京，", "北京，在北京"),  # the comma and 在 are unknown
        ("(Team 😀) won", 2, 2, "😀", "😀)"),
        ("a (l'E\u0301cole\u0301) b", 4, 4, "E\u0301cole\u0301", "(l'E\u0301cole\u0301)"),
        ("the (שלום) a", 2, 2, "שלום", "(שלום)"),
        ("la-La", 2, 2, "La", "la"),  # of two places the published alignment takes the first
    ],
)
def test_both_alignments(tokenizer, context, first, last, text, published):
    found = answer_of(tokenizer, context, {first: 9}, {last: 9})
    assert found.text == text == context[slice(*found.chosen.span)]
    assert answer_of(tokenizer, context, {first: 9}, {last: 9}, answer_alignment="published").text == published


def test_an_alignment_without_a_name(tokenizer):
    with pytest.raises(UsageError, match="^--answer_alignment letters: expected offsets or published$"):
        answer_of(tokenizer, "a", {0: 9}, {0: 9}, answer_alignment="letters")


def test_accents_that_are_kept(tokenizer):
    cased = BertTokenizer([*tokenizer.vocab, "Öl"], do_lower_case=False)
    kept = BertTokenizer([*tokenizer.vocab, "öl"], strip_accents=False)
    for other, context, text in (
        (cased, "a (Öl) b", "Öl"),
        (kept, "a (Öl) b", "Öl"),
        (kept, "a (O\u0308l) b", "O\u0308l"),
    ):
        assert answer_of(other, context, {2: 9}, {2: 9}).text == text


def test_answers_of_words_without_a_context(tokenizer):
    """Such an example comes from a caller's own reader; the context is the words joined by blanks."""
    examples = [SquadExample("1", "what", ["the\u00a0team", "(won)"])]
    (feature,) = convert_examples_to_features(examples, tokenizer, 64, 16, 2, is_training=False)
    scores = logits(feature, {1: 9}), logits(feature, {3: 9})
    (answer,) = find_answers(examples, [feature], [RawResult(feature.unique_id, *scores)], True, AnswerConfig())
    assert answer.text == "team (won"


def test_which_spans_are_answers(tokenizer):
    """1 to 2 is an answer; start 3 lies after end 2, and [CLS], the query and [SEP] are not in the context."""
    examples, (feature,) = windows_of(tokenizer, "a b c d e")
    start, end = logits(feature, {3: 9, 1: 8}, null=30), logits(feature, {2: 9}, null=30)
    start[1:3], end[1:3], start[-1], end[-1] = 20, 20, 20, 20
    (answer,) = find_answers(
        examples, [feature], [RawResult(feature.unique_id, start, end)], True, AnswerConfig(n_best_size=7)
    )
    assert answer.text == "b c"


def test_the_longest_answer(tokenizer):
    start, end = {0: 9, 2: 1}, {3: 9}
    assert answer_of(tokenizer, "a b c d e", start, end, max_answer_length=4).text == "a b c d"
    assert answer_of(tokenizer, "a b c d e", start, end, max_answer_length=3).text == "c d"


def test_equal_texts_are_listed_once(tokenizer):
    answer = answer_of(tokenizer, "la b la c", {0: 5, 2: 4}, {0: 5, 2: 5}, n_best_size=2, max_answer_length=1)
    assert [c.text for c in answer.nbest] == ["la"]
    assert answer.nbest[0] == Candidate("la", 1.0, 5.0, 5.0, (0, 2))


def test_ties_keep_their_order(tokenizer):
    """All spans score 2; the first start, then its first end."""
    answer = answer_of(tokenizer, "a b c", {0: 1, 1: 1, 2: 1}, {0: 1, 1: 1, 2: 1}, n_best_size=4)
    assert [c.text for c in answer.nbest] == ["a", "a b", "a b c", "b"]


def test_no_candidate_is_the_word_empty(tokenizer):
    answer = answer_of(tokenizer, "a b c", {2: 9}, {0: 9}, n_best_size=1)
    assert (answer.text, answer.nbest) == ("empty", [Candidate("empty", 1.0, 0.0, 0.0)])
    examples, features = windows_of(tokenizer, " ")
    assert features == []
    assert find_answers(examples, features, [], True, AnswerConfig())[0].text == "empty"


# --- version 2


def null_config(**settings):
    return {"version_2_with_negative": True, **settings}


def test_the_threshold_is_strict(tokenizer):
    """Null 2 + 1.5, the best text 1 + 2: odds of 0.5."""
    odds = {"start": {0: 1}, "end": {0: 2}, "null": (2.0, 1.5)}
    for threshold, text in ((0.5, "a"), (0.25, ""), (0.0, ""), (9.0, "a"), (-9.0, "")):
        answer = answer_of(tokenizer, "a b c", **odds, **null_config(null_score_diff_threshold=threshold))
        assert (answer.text, answer.best_text, answer.null_odds) == (text, "a", 0.5)
        assert [c.text for c in answer.nbest[:2]] == ["", "a"]


def test_an_answer_below_the_threshold_is_never_the_null_entry(tokenizer):
    answer = answer_of(tokenizer, "a", {0: 1}, {0: 1}, (5.0, 5.0), **null_config(null_score_diff_threshold=100.0))
    assert (answer.nbest[0].text, answer.text) == ("", "a")


def test_the_null_answer_is_added_to_the_n_best(tokenizer):
    answer = answer_of(tokenizer, "a b c", {0: 5, 1: 4}, {0: 5, 1: 5}, **null_config(n_best_size=2))
    assert [c.text for c in answer.nbest] == ["a", "a b", ""]
    assert (answer.nbest[2].start_logit, answer.nbest[2].end_logit) == (LOW, LOW)
    assert sum(c.probability for c in answer.nbest) == pytest.approx(1)


@pytest.mark.parametrize("threshold", [0.0, 100.0])
def test_only_null_among_the_n_best(tokenizer, threshold):
    """The only start and end considered are [CLS], so there is no text, whatever the threshold."""
    config = null_config(n_best_size=1, null_score_diff_threshold=threshold)
    answer = answer_of(tokenizer, "a b", {0: 1}, {0: 1}, (5.0, 4.0), **config)
    assert answer == Answer("0", "", "", 1e6, [Candidate("", 1.0, 5.0, 4.0)])


def test_no_candidate_at_all_is_no_answer(tokenizer):
    answer = answer_of(tokenizer, "a b c", {2: 9}, {0: 9}, **null_config(n_best_size=1, null_score_diff_threshold=99.0))
    assert answer == Answer("0", "", "", 1e6, [Candidate("", 1.0, LOW, LOW)])
    examples, features = windows_of(tokenizer, " ")
    (answer,) = find_answers(examples, features, [], True, AnswerConfig(version_2_with_negative=True))
    assert answer == Answer("0", "", "", 1e6, [Candidate("", 1.0, 0.0, 0.0)])


def test_windows_compete_and_the_lowest_null_counts(tokenizer):
    """Windows "a b c d" and "c d e f": the max context of piece 2 is in the first, that of piece 3 in the second."""
    examples, features = windows_of(tokenizer, "a b c d e f", length=8, stride=2)
    first, second = features
    results = [
        RawResult(second.unique_id, logits(second, {0: 9, 1: 7}, 1), logits(second, {2: 3}, 2)),
        RawResult(first.unique_id, logits(first, {2: 5, 3: 9}, 2), logits(first, {3: 3}, 4)),
    ]
    config = AnswerConfig(n_best_size=3, version_2_with_negative=True)
    (answer,) = find_answers(examples, features, results, True, config)
    assert [c[0] for c in answer.nbest] == ["d e", "c d", ""]  # neither "c d e" of the second nor "d" of the first
    assert [(c.start_logit, c.end_logit) for c in answer.nbest] == [(7, 3), (5, 3), (1, 2)]
    assert answer.null_odds == 1 + 2 - 7 - 3


# --- results


def test_results_that_are_missing(tokenizer, capsys):
    examples, features = windows_of(tokenizer, "a b c d e f", length=8, stride=2)
    result = RawResult(features[0].unique_id, logits(features[0], {0: 9}), logits(features[0], {0: 9}))
    assert find_answers(examples, features, [result], True, AnswerConfig())[0].text == "a"
    assert capsys.readouterr().err == "warning: 1 of 2 windows have no result\n"
    with pytest.raises(UsageError, match="none of the 1 results belongs to any of the 2 windows"):
        find_answers(examples, features, [RawResult(7, [0], [0])], True, AnswerConfig())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_of_a_diverged_model(tokenizer, value):
    with pytest.raises(UsageError, match="window 1000000000: its logits are missing, infinite or not a number"):
        answer_of(tokenizer, "a b c", {0: value}, {0: 1})


def test_masked_logits_are_the_lowest(tokenizer):
    answer = answer_of(tokenizer, "a b", {0: -math.inf, 1: 3}, {0: -math.inf, 1: 4}, (-math.inf, 0), **null_config())
    assert (answer.text, answer.null_odds) == ("b", -1e6)
    assert {c.text: c.start_logit for c in answer.nbest}[""] == -1e6
    json.dumps(answer.nbest, allow_nan=False)


def test_padding_logits_rank_among_the_best_but_are_no_answers(tokenizer):
    examples, (feature,) = windows_of(tokenizer, "a b")
    start = np.concatenate([logits(feature, {0: 5}), np.full(50, 9.0)])
    result = RawResult(feature.unique_id, start, start)
    assert find_answers(examples, [feature], [result], True, AnswerConfig(n_best_size=20))[0].text == "empty"
    assert find_answers(examples, [feature], [result], True, AnswerConfig(n_best_size=51))[0].text == "a"


# --- files


def test_written_files(tokenizer, tmp_path):
    examples = [example_from_text("what", "a é", "b"), example_from_text("what", "c d", "a")]
    features = convert_examples_to_features(examples, tokenizer, 64, 16, 2, is_training=False)
    results = [
        RawResult(f.unique_id, logits(f, {1: 2}, 4), logits(f, {1: 3}, number)) for number, f in enumerate(features)
    ]
    names = [tmp_path / name for name in ("predictions.json", "nbest.json", "null_odds.json", "best.json")]
    answers = write_predictions(examples, features, results, 2, 30, True, *names[:3], False, True, -1.0, names[3])
    texts = [name.read_text() for name in names]
    assert texts[0] == '{\n    "b": "\\u00e9",\n    "a": ""\n}\n'
    assert texts[2] == '{\n    "b": -1.0,\n    "a": 0.0\n}\n'
    assert texts[3] == '{\n    "b": "\\u00e9",\n    "a": "d"\n}\n'
    nbest = json.loads(texts[1])["b"]
    assert [list(entry) for entry in nbest] == [["text", "probability", "start_logit", "end_logit"]] * 2
    assert nbest[0] == answers[0].nbest[0].as_json()

    for name in names:
        name.unlink()
    write_predictions(examples, features, results, 2, 30, True, *names[:3], False, False, 0.0, names[3])
    assert [name.exists() for name in names] == [True, True, False, False]  # version 1 has no null answer
    with pytest.raises(UsageError, match="nowhere/p.json: No such file"):
        write_predictions(
            examples, features, results, 2, 30, True, tmp_path / "nowhere/p.json", None, None, False, False, 0.0
        )


@pytest.mark.parametrize(("more", "text"), [({}, "b"), ({"answer_alignment": "published"}, "(a\u3000b)")])
def test_the_alignment_of_written_answers(tokenizer, tmp_path, more, text):
    examples, (feature,) = windows_of(tokenizer, "(a\u3000b) c")
    results = [RawResult(feature.unique_id, *[logits(feature, {2: 9})] * 2)]
    path = tmp_path / "predictions.json"
    write_predictions(examples, [feature], results, 2, 30, True, path, None, None, False, False, 0.0, **more)
    assert json.loads(path.read_text()) == {"0": text}


# --- from files to scores


def test_a_model_that_knows_the_answers_scores_100(tokenizer, tmp_path):
    """Answers are whole words without outer punctuation; they pass from file through windows and labels to scores."""
    draw = random.Random(4)
    words = ["Steve", "smith.", "(1995),", "won-in", "北京", "École", "la-la", "-", "f"]
    paragraphs = []
    for number in range(60):
        context = draw.choice([" ", "\u202f", "\n"]).join(draw.choices(words, k=draw.randint(4, 60)))
        found = draw.choice(list(re.finditer(r"\w+(\s\w+)?", context)))
        answers = [{"text": found[0], "answer_start": found.start()}]
        paragraphs.append({"context": context, "qas": [{"id": str(number), "question": "what", "answers": answers}]})
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))
    examples = read_squad_examples(path, is_training=True, version_2_with_negative=False)
    features = convert_examples_to_features(examples, tokenizer, 30, 9, 2, is_training=True)
    results = []
    for feature in features:
        start, end = np.zeros(30), np.zeros(30)
        start[feature.start_position] = end[feature.end_position] = 1 + feature.token_is_max_context.get(
            feature.start_position, 0
        )
        results.append(RawResult(feature.unique_id, start, end))
    answers = find_answers(examples, features, results, True, AnswerConfig(n_best_size=2))
    scores = evaluate_v1(read_gold(path, "1.1"), {answer.qas_id: answer.text for answer in answers})
    assert scores == {"exact_match": 100.0, "f1": 100.0}


# --- the published rules as plain loops


def literally(example, windows, n_best, longest, version_2, threshold):
    """Answer one question of ``windows``, (feature, start logits, end logits), step by step."""
    found, null = [], None
    for feature, start_logits, end_logits in windows:
        order = [sorted(range(len(x)), key=lambda i, x=x: -x[i])[:n_best] for x in (start_logits, end_logits)]
        if null is None or start_logits[0] + end_logits[0] < sum(null):
            null = (start_logits[0], end_logits[0])
        for start in order[0]:
            for end in order[1]:
                known = start in feature.token_to_orig_map and end in feature.token_to_orig_map
                if known and feature.token_is_max_context[start] and start <= end < start + longest:
                    found.append((start_logits[start], end_logits[end], feature, start, end))
    if version_2:
        found.append((*null, None, 0, 0))
    found.sort(key=lambda c: -(c[0] + c[1]))
    nbest = {}
    for start_logit, end_logit, feature, start, end in found:
        if len(nbest) < n_best:
            text = ""
            if feature is not None:
                words = [feature.token_to_orig_map[position] for position in (start, end)]
                original = " ".join(example.doc_tokens[words[0] : words[1] + 1])
                text = get_final_text(detokenize(feature.tokens[start : end + 1]), original, True)
            nbest.setdefault(text, (start_logit, end_logit))
    if version_2:
        nbest.setdefault("", null)
    nbest = nbest or {"empty": (0, 0)}
    best = next((text for text in nbest if text), None)
    if not version_2:
        return best, None, nbest
    if best is None:
        return "", 1e6, nbest
    odds = sum(null) - nbest[best][0] - nbest[best][1]
    return "" if odds > threshold else best, odds, nbest


@pytest.mark.parametrize("version_2", [False, True])
def test_against_plain_loops(tokenizer, version_2):
    draw = random.Random(3)
    words = ["Steve", "Smith's", "(1995),", "$50.", "北京", "École", "la-la", "xyz", "the", "a", "won"]
    examples = [
        example_from_text("what", " ".join(draw.choices(words, k=draw.randint(3, 50))), str(i)) for i in range(40)
    ]
    features = convert_examples_to_features(examples, tokenizer, 24, 7, 2, is_training=False)
    # Multiples of one half, so that there are ties and sums are exact.
    results = [
        RawResult(f.unique_id, *([draw.randint(-9, 9) / 2 for _ in f.tokens] for _ in range(2))) for f in features
    ]
    config = AnswerConfig(5, 6, version_2, 1.0, answer_alignment="published")
    for index, answer in enumerate(find_answers(examples, features, results, True, config)):
        windows = [(f, *r[1:]) for f, r in zip(features, results, strict=True) if f.example_index == index]
        text, odds, nbest = literally(examples[index], windows, 5, 6, version_2, 1.0)
        assert [(c.text, c.start_logit, c.end_logit) for c in answer.nbest] == [(t, *pair) for t, pair in nbest.items()]
        assert (answer.text, answer.null_odds) == (text, odds)
