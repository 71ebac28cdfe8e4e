"""Texts in, replies out: with logits that are set by hand in place of an engine."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from bert.errors import UsageError
from bert.serve.text import build_front
from bert.squad.answers import AnswerConfig, RawResult, find_answers
from bert.squad.examples import read_squad_examples
from bert.squad.features import convert_examples_to_features
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer

PIECES = "a b c d e river stone song the who what walks cafe 北 京 在 中 国 ##s . , ! ( ) 😀"
LOW = -20.0
QA = {
    "task": "qa",
    "max_seq_length": 64,
    "doc_stride": 16,
    "max_query_length": 4,
    "max_answer_length": 30,
    "version_2_with_negative": False,
    "null_score_diff_threshold": 0.0,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *PIECES.split()]) + "\n", encoding="utf8")
    return BertTokenizer(path)


def ask(tokenizer, context, starts, ends, question="who", null=(LOW, LOW), n_best=None, **changes):
    """The reply where pieces of the context have these logits, {piece: logit} of each window, and all others LOW."""
    front = build_front({**QA, **changes}, tokenizer)
    values = {"question": question, "context": context} | ({} if n_best is None else {"n_best": n_best})
    prepared = front.prepare(values)
    starts, ends = ([each] if isinstance(each, dict) else each for each in (starts, ends))
    outputs = []
    for one, *both in zip(prepared.inputs, starts, ends, strict=True):
        segment = int(np.argmax(one.types))
        logits = np.full((2, len(one.ids)), LOW, np.float32)
        logits[:, 0] = null
        for row, high in zip(logits, both, strict=True):
            for piece, value in high.items():
                row[segment + piece] = value
        outputs.append(list(logits))
    return front.reply(prepared, outputs)


def found(context, reply):
    """The reply's answer, after a look at whether it stands where the reply says."""
    if reply["start"] >= 0:
        assert context[reply["start"] : reply["end"]] == reply["answer"]
    return reply["answer"], reply["start"], reply["end"]


# --- places in the original text


@pytest.mark.parametrize(
    ("context", "first", "last", "expected"),
    [
        ("the river song", 1, 1, ("river", 4, 9)),
        ("the\nriver\n\nsong", 1, 2, ("river\n\nsong", 4, 15)),
        ("\t the\t\triver", 1, 1, ("river", 7, 12)),
        ("the  river   song", 0, 2, ("the  river   song", 0, 17)),
        ("  river song  ", 0, 1, ("river song", 2, 12)),
        ("the\u202friver", 1, 1, ("river", 4, 9)),
        ("\r\nriver\r\n", 0, 0, ("river", 2, 7)),
        ("😀 river 😀", 1, 1, ("river", 2, 7)),  # code points: an emoji is one
        ("😀 river 😀", 2, 2, ("😀", 8, 9)),
        ("the cafe\u0301 song", 1, 1, ("cafe\u0301", 4, 9)),  # combining accent
        ("the café song", 1, 1, ("café", 4, 8)),
        ("北京在中国", 2, 2, ("在", 2, 3)),
        ("北京在中国", 3, 4, ("中国", 3, 5)),
        ("the (river) song", 2, 2, ("river", 5, 10)),
        ("RIVER Stones.", 1, 2, ("Stones", 6, 12)),
        ("river song river song", 2, 3, ("river song", 11, 21)),  # not the first of the two
        ("river river river", 1, 1, ("river", 6, 11)),
        ("river (river) river", 2, 2, ("river", 7, 12)),
        ("the\xa0river song", 1, 1, ("river", 4, 9)),
        ("the\u3000river\u2028song", 0, 1, ("the\u3000river", 0, 9)),
        ("the (Öl) song", 2, 2, ("Öl", 5, 7)),  # [UNK]
        ("北京，在中国", 2, 3, ("，在", 2, 4)),
        ("the (שלום) song", 2, 2, ("שלום", 5, 9)),
    ],
)
def test_places(tokenizer, context, first, last, expected):
    assert found(context, ask(tokenizer, context, {first: 5}, {last: 5})) == expected


def test_every_candidate_has_a_place(tokenizer):
    context = "the\n\nriver  (stone)\tsong"
    reply = ask(tokenizer, context, {0: 3, 1: 2, 3: 1}, {1: 3, 3: 2, 5: 1}, n_best=20)
    candidates = json.loads(reply["nbest"])
    assert len(candidates) > 10
    for each in candidates:
        assert context[each["start"] : each["end"]] == each["text"]
    assert len({each["text"] for each in candidates}) == len(candidates)


# --- the n best


def test_order_and_probabilities(tokenizer):
    """Starts 0 and 2 with end 2 score 3 + 1 and 1 + 1; starts and ends elsewhere are at least 19 lower."""
    reply = ask(tokenizer, "a b c d", {0: 3, 2: 1}, {2: 1}, n_best=2)
    share = 1 / (1 + math.exp(-2))
    assert json.loads(reply["nbest"]) == [
        {"text": "a b c", "start": 0, "end": 5, "probability": pytest.approx(share, rel=1e-6)},
        {"text": "c", "start": 4, "end": 5, "probability": pytest.approx(1 - share, rel=1e-6)},
    ]
    assert (reply["answer"], reply["start"], reply["end"]) == ("a b c", 0, 5)
    assert reply["probability"] == pytest.approx(share, rel=1e-6)
    assert len(json.loads(ask(tokenizer, "a b c d", {0: 3, 2: 1}, {2: 1})["nbest"])) == 1


@pytest.mark.parametrize("n_best", [0, -1, 21])
def test_n_best_out_of_range(tokenizer, n_best):
    with pytest.raises(UsageError, match=f"^n_best {n_best}: expected 1 to 20$"):
        ask(tokenizer, "a b", {0: 1}, {0: 1}, n_best=n_best)


def test_the_longest_answer(tokenizer):
    reply = ask(tokenizer, "a b c d e", {0: 5}, {4: 5, 1: 2}, max_answer_length=2)
    assert (reply["answer"], reply["start"], reply["end"]) == ("a b", 0, 3)


# --- SQuAD 2.0


def test_no_answer(tokenizer):
    reply = ask(tokenizer, "a b", {1: 1}, {1: 2}, null=(3, 4), n_best=2, version_2_with_negative=True)
    null, text = (1 / (1 + math.exp(sign * 4)) for sign in (-1, 1))  # scores 7 and 3
    assert (reply["answer"], reply["start"], reply["end"]) == ("", -1, -1)
    assert reply["probability"] == pytest.approx(null, rel=1e-6)
    assert json.loads(reply["nbest"]) == [
        {"text": "", "start": None, "end": None, "probability": pytest.approx(null, rel=1e-6)},
        {"text": "b", "start": 2, "end": 3, "probability": pytest.approx(text, rel=1e-6)},
    ]


@pytest.mark.parametrize(("threshold", "expected"), [(3.9, ""), (4.0, "b"), (4.1, "b"), (-1.0, "")])
def test_the_threshold(tokenizer, threshold, expected):
    """The score of no answer exceeds that of "b" by 4."""
    changes = {"version_2_with_negative": True, "null_score_diff_threshold": threshold}
    reply = ask(tokenizer, "a b", {1: 1}, {1: 2}, null=(3, 4), **changes)
    assert reply["answer"] == expected
    assert reply["start"] == (2 if expected else -1)
    assert json.loads(reply["nbest"])[0]["text"] == ""  # the order is that of the scores


def test_an_answer_of_a_model_that_may_have_none(tokenizer):
    reply = ask(tokenizer, "a b", {1: 3}, {1: 4}, null=(1, 2), n_best=20, version_2_with_negative=True)
    assert (reply["answer"], reply["start"]) == ("b", 2)
    assert "" in [each["text"] for each in json.loads(reply["nbest"])]


def test_without_it_the_first_token_is_no_answer(tokenizer):
    assert ask(tokenizer, "a b", {1: 1}, {1: 2}, null=(30, 40))["answer"] == "b"


# --- questions and windows


def test_inputs(tokenizer):
    prepared = build_front(QA, tokenizer).prepare({"question": "Who walks", "context": "the river!"})
    (one,) = prepared.inputs
    pieces = tokenizer.convert_ids_to_tokens(one.ids.tolist())
    assert pieces == ["[CLS]", "who", "walks", "[SEP]", "the", "river", "!", "[SEP]"]
    assert one.types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert one.ids.dtype == one.types.dtype == np.int32


def test_a_long_question_is_cut(tokenizer):
    prepared = build_front(QA, tokenizer).prepare({"question": "a b c d e who", "context": "river"})
    pieces = tokenizer.convert_ids_to_tokens(prepared.inputs[0].ids.tolist())
    assert pieces == ["[CLS]", "a", "b", "c", "d", "[SEP]", "river", "[SEP]"]


def test_windows(tokenizer):
    """Windows of 4 pieces, 2 apart; the best answer is in the third, at the second of two equal texts."""
    windows = {"max_seq_length": 8, "doc_stride": 2, "max_query_length": 1}
    context = "a river  b c\nd a river  e"
    reply = ask(tokenizer, context, [{1: 2}, {}, {1: 3}], [{1: 2}, {}, {2: 3}], **windows)
    assert found(context, reply) == ("a river", 15, 22)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": "", "context": "a"}, "question '': expected some text"),
        ({"question": " \n\t", "context": "a"}, "question ' \\n\\t': expected some text"),
        ({"question": "a", "context": ""}, "context '': expected some text"),
        ({"question": "a", "context": "\u202f "}, "context '\\u202f ': expected some text"),
        ({"question": "a", "context": "\x01\x02 \x7f"}, "context: no word of it is text to the model"),
        ({"question": "a", "context": "\u200b"}, "context: no word of it is text to the model"),
        ({"question": "\x01\x02", "context": "a"}, "question: no word of it is text to the model"),
        ({"question": "\ud800", "context": "a"}, "question is not Unicode text (lone surrogate at character 0)"),
        ({"question": "a", "context": "ab\udfff"}, "context is not Unicode text (lone surrogate at character 2)"),
        ({"context": "a"}, "question '': expected some text"),
        ({"question": "a"}, "context '': expected some text"),
    ],
)
def test_texts_that_cannot_be_answered(tokenizer, values, message):
    with pytest.raises(UsageError) as error:
        build_front(QA, tokenizer).prepare(values)
    assert str(error.value) == message


def test_nul_characters_are_dropped(tokenizer):
    context = "the\x00 ri\x00ver"
    reply = ask(tokenizer, context, {1: 5}, {1: 5})
    assert (reply["answer"], reply["start"], reply["end"]) == ("ri\x00ver", 5, 11)


def test_the_same_texts_as_run_squad(tokenizer, tmp_path):
    """Every question of a file with random logits: the reader of files, all features at once, against the front."""
    contexts = [
        "The river\nwalks (the stone). Songs!",
        "a  b c d e a b c d e river a b\u202fc",
        "北京 在中国, the café",
    ]
    questions = [
        {"id": f"{i}{j}", "question": text, "answers": []}
        for i in range(3)
        for j, text in enumerate(["who walks", "what", "a b c d e a b c d e"])
    ]
    paragraphs = [{"context": text, "qas": questions[3 * i : 3 * i + 3]} for i, text in enumerate(contexts)]
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    settings = {**QA, "max_seq_length": 12, "doc_stride": 3}
    windows = {name: settings[name] for name in ("max_seq_length", "doc_stride", "max_query_length")}
    draw, unanswered = np.random.default_rng(0), 0
    for version_2 in (False, True):
        front = build_front({**settings, "version_2_with_negative": version_2}, tokenizer)
        examples = read_squad_examples(path, False, version_2)
        features = convert_examples_to_features(examples, tokenizer, **windows, is_training=False)
        assert len(features) > len(examples)
        logits = [draw.normal(0, 3, (2, len(feature.ids))).astype(np.float32) for feature in features]
        for number, both in enumerate(logits):
            both[:, 0] += 8 * (features[number].example_index % 2)  # where version 2 has no answer
        results = [RawResult(each.unique_id, *both) for each, both in zip(features, logits, strict=True)]
        expected = find_answers(examples, features, results, True, AnswerConfig(version_2_with_negative=version_2))
        for number, (question, answer) in enumerate(zip(questions, expected, strict=True)):
            context = contexts[number // 3]
            prepared = front.prepare({"question": question["question"], "context": context, "n_best": 20})
            outputs = [list(both) for f, both in zip(features, logits, strict=True) if f.example_index == number]
            reply = front.reply(prepared, outputs)
            assert found(context, reply)[0] == answer.text
            nbest = [(each["text"], each["probability"]) for each in json.loads(reply["nbest"])]
            assert nbest == [(c.text, pytest.approx(c.probability)) for c in answer.nbest[:20]]
            unanswered += answer.text == ""
    assert 0 < unanswered < 9


# --- classification and embedding


def classify(tokenizer, logits, labels, **values):
    front = build_front({"task": "classify", "max_seq_length": 8, "labels": labels}, tokenizer)
    return front.reply(front.prepare({"text": "a b", **values}), [[np.array(logits, np.float32)]])


def test_labels(tokenizer):
    reply = classify(tokenizer, [math.log(1), math.log(6), math.log(3)], ["bad", "good", "so so"])
    assert (reply["label"], reply["probability"]) == ("good", pytest.approx(0.6))
    assert json.loads(reply["scores"]) == [
        {"label": "good", "probability": pytest.approx(0.6)},
        {"label": "so so", "probability": pytest.approx(0.3)},
        {"label": "bad", "probability": pytest.approx(0.1)},
    ]


def test_large_logits(tokenizer):
    assert classify(tokenizer, [1000, -1000], ["x", "y"])["probability"] == 1.0


def test_a_regression(tokenizer):
    reply = classify(tokenizer, [2.34567], [])
    assert (reply["label"], reply["probability"]) == ("2.3457", 1.0)
    assert json.loads(reply["scores"]) == [{"label": "2.3457", "probability": 1.0}]


@pytest.mark.parametrize(
    ("values", "pieces", "types"),
    [
        ({"text": "A river"}, "[CLS] a river [SEP]", [0, 0, 0, 0]),
        ({"text": "a", "text_pair": "b c"}, "[CLS] a [SEP] b c [SEP]", [0, 0, 0, 1, 1, 1]),
        ({"text": "a", "text_pair": None}, "[CLS] a [SEP]", [0, 0, 0]),
        ({"text": "a b c d e a b c d"}, "[CLS] a b c d e a [SEP]", [0] * 8),  # 8 in all
        ({"text": "a b c d e", "text_pair": "d e"}, "[CLS] a b c [SEP] d e [SEP]", [0, 0, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_inputs_of_texts(tokenizer, values, pieces, types):
    front = build_front({"task": "classify", "max_seq_length": 8, "labels": ["x", "y"]}, tokenizer)
    (one,) = front.prepare(values).inputs
    assert tokenizer.convert_ids_to_tokens(one.ids.tolist()) == pieces.split()
    assert one.types.tolist() == types


@pytest.mark.parametrize("task", ["classify", "embed"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": " "}, "text ' ': expected some text"),
        ({"text": "\udc80"}, "text is not Unicode text (lone surrogate at character 0)"),
        ({"text": "\x01"}, "text: no word of it is text to the model"),
        ({}, "text '': expected some text"),
        ({"text_pair": "a"}, "text '': expected some text"),
    ],
)
def test_texts_that_cannot_be_read(tokenizer, task, values, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        build_front({"task": task, "max_seq_length": 8, "labels": []}, tokenizer).prepare(values)


def test_an_embedding(tokenizer):
    front = build_front({"task": "embed", "max_seq_length": 8}, tokenizer)
    vector = np.array([[0.6, 0.8]], np.float32)
    assert front.reply(front.prepare({"text": "a"}), [[vector[0]]])["embedding"].tolist() == vector[0].tolist()


def test_an_embedding_is_of_one_text(tokenizer):
    front = build_front({"task": "embed", "max_seq_length": 8}, tokenizer)
    (one,) = front.prepare({"text": "a b"}).inputs
    assert tokenizer.convert_ids_to_tokens(one.ids.tolist()) == ["[CLS]", "a", "b", "[SEP]"]


# --- what is imported


@pytest.mark.parametrize("module", ["text", "engine", "requests", "model_config"])
def test_without_torch(module):
    """A front, or an ONNX engine, starts faster and stays smaller without PyTorch."""
    code = f"import sys, bert.serve.{module}; print(*{{'torch', 'onnx', 'onnxruntime'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
