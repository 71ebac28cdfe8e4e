"""The characters of word pieces: by hand, and random text and answers through labels and answers."""

import json
import random
import unicodedata

import numpy as np
import pytest

from bert.squad.align import detokenize, get_final_text
from bert.squad.answers import AnswerConfig, RawResult, find_answers
from bert.squad.examples import example_from_text, read_squad_examples
from bert.squad.features import convert_examples_to_features, encode_contexts
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer
from bert.tokenization.offsets import encode_with_offsets

LETTERS = [*"abcefisσςο0123.,-()'[]京北한😀🏴של", "cafe", "river", "ιας", "i\u0307", "\u0301", "한"]
VOCABULARY = list(
    dict.fromkeys([*SPECIAL_TOKENS, *LETTERS, *(f"##{letter}" for letter in LETTERS if letter.isalpha())])
)
BLANKS = " \t\n\r\u00a0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000"
TOKENIZERS = [
    {},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"pretokenized": True},
]


def slices(text, **settings):
    return [text[a:b] for a, b in encode_with_offsets(BertTokenizer(VOCABULARY, **settings), [text]).spans.tolist()]


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("the Cafes", {}, ["the", "Cafe", "s"]),  # "the" is [UNK]
        ("Café\u00a0(xyz)", {}, ["Café", "(", "xyz", ")"]),
        ("cafe\u0301 cafe\u0301\u0302.", {}, ["cafe\u0301", "cafe\u0301\u0302", "."]),
        ("\u0301cafe", {}, ["cafe"]),  # its mark belongs to no letter
        ("cafe\u200b \x00ri\u00adver\u200d", {}, ["cafe", "ri\u00adver"]),
        ("北京a\U0002b820b", {}, ["北", "京", "a", "\U0002b820", "b"]),
        ("北京a", {"pretokenized": True}, ["北", "京", "a"]),
        ("ΟΣ ΙΑΣ. ΣΟ", {}, ["Ο", "Σ", "ΙΑΣ", ".", "Σ", "Ο"]),
        ("İ ΙΑΣ", {"strip_accents": False}, ["İ", "ΙΑΣ"]),  # its lower case is two characters
        ("A\u200b [MASK]\u3000 xΣ[MASK]", {}, ["A", "[MASK]", "xΣ", "[", "MASK", "]"]),
        ("\ufffda \x01[M\u200bASK] b", {}, ["a", "[M\u200bASK]", "b"]),
        (
            "😀\ufe0f \U0001f3f4\U000e0067\U000e007f 😀\u200d😀",
            {},
            ["😀\ufe0f", "\U0001f3f4\U000e0067\U000e007f", "😀\u200d😀"],
        ),
        ("שָׁל", {}, ["שָׁ", "ל"]),
        ("cafe\u0301", {"strip_accents": False}, ["cafe\u0301"]),
        ("한", {"strip_accents": False}, ["한"]),
        ("한", {}, ["한"]),  # becomes three letters
        ("", {}, []),
        ("\u200b \u2028", {}, []),
    ],
)
def test_spans(text, settings, expected):
    assert slices(text, **settings) == expected


def test_added_tokens_that_hold_blanks_or_take_them():
    """The library finds added tokens anywhere in the text, so a context is not cut word by word."""

    def added(name, index, **flags):
        keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
        return {"id": index, "content": name} | {key: flags.get(key, False) for key in keys}

    tokens = [added(name, index, lstrip=name == "[MASK]", special=True) for index, name in enumerate(SPECIAL_TOKENS)]
    tokens += [added("river cafe", len(VOCABULARY), normalized=True, rstrip=True), added("[E]", len(VOCABULARY) + 1)]
    tokenizer = BertTokenizer(VOCABULARY, added_tokens=tokens)
    text = "a\u3000 [MASK] River\u00a0Cafe  b[E]cafe\u0301"
    expected = ["a", "[MASK]", "River\u00a0Cafe", "b", "[E]", "cafe\u0301"]
    pieces = encode_with_offsets(tokenizer, [text])
    assert [text[a:b] for a, b in pieces.spans.tolist()] == expected
    assert pieces.ids.tolist() == tokenizer.encode_batch([text])[0]
    (context,) = encode_contexts([example_from_text("", text)], tokenizer)
    assert context.spans.tolist() == pieces.spans.tolist()
    assert context.words.tolist() == [0, 1, 2, 3, 3, 3]  # U+3000 does not separate words


# --- random text

PARTS = [
    *LETTERS,
    "xyz",
    "É",
    "e\u0301",
    "o\u0308",
    "Σ",
    "İ",
    "[MASK]",
    " [SEP] ",
    "\u200d",
    "\ufe0f",
    "\x07",
    "\U0002b820",
]


def random_text(draw, length=30):
    return "".join(draw.choice(BLANKS) if draw.random() < 0.2 else draw.choice(PARTS) for _ in range(length))


def test_random_texts():
    """Ids as without offsets; spans in order, not empty, without a blank, from a letter to a letter and its marks."""
    draw = random.Random(1)
    texts = [random_text(draw, draw.randint(0, 40)) for _ in range(150)]
    for settings in TOKENIZERS:
        tokenizer = BertTokenizer(VOCABULARY, **settings)
        ids, spans, offsets = encode_with_offsets(tokenizer, texts)
        rows = np.split(ids, offsets[1:-1])
        assert [row.tolist() for row in rows] == tokenizer.encode_batch(texts)
        for text, row in zip(texts, np.split(spans, offsets[1:-1]), strict=True):
            assert (np.diff(row, axis=0) >= 0).all()
            for start, end in row.tolist():
                kinds = [unicodedata.category(letter) for letter in text[start:end]]
                assert kinds, (text, start)
                assert not {"Zs", "Zl", "Zp"} & {*kinds}
                assert (kinds[0] not in ("Cc", "Cf"), kinds[-1] not in ("Cc", "Cf")) == (True, True)
            # The words of a context are cut one by one, with the same result.
            (context,) = encode_contexts([example_from_text("", text)], tokenizer)
            assert np.array_equal(context.spans, row)


def trial(draw, settings):
    """A context, an answer that is part of it, and its place."""
    context = random_text(draw)
    start = draw.randrange(len(context))
    end = draw.randint(start + 1, min(start + 12, len(context)))
    if draw.random() < 0.5:  # the bounds of two pieces
        spans = encode_with_offsets(BertTokenizer(VOCABULARY, **settings), [context]).spans.tolist()
        first = draw.randrange(len(spans)) if spans else 0
        start, end = (spans[first][0], spans[min(first + 2, len(spans) - 1)][1]) if spans else (start, end)
    return context, context[start:end], start


@pytest.mark.parametrize("settings", TOKENIZERS, ids=str)
def test_random_answers(tmp_path, settings):
    """From file to label to answer: the fewest pieces that cover it, which read as it does at their bounds."""
    draw, tokenizer = random.Random(2), BertTokenizer(VOCABULARY, **settings)
    trials = [each for each in (trial(draw, settings) for _ in range(150)) if each[1].strip()]
    paragraphs = [
        {"context": c, "qas": [{"id": str(i), "question": "a", "answers": [{"text": a, "answer_start": s}]}]}
        for i, (c, a, s) in enumerate(trials)
    ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    examples = read_squad_examples(path, True, False)
    features = convert_examples_to_features(examples, tokenizer, 128, 64, 2, is_training=True)
    assert len(examples) == len(trials)
    hot = [np.eye(len(f.ids))[[f.start_position, f.end_position]] for f in features]
    results = [RawResult(f.unique_id, *each) for f, each in zip(features, hot, strict=True)]
    answers = find_answers(examples, features, results, True, AnswerConfig(n_best_size=1, max_answer_length=99))
    exact = 0
    for feature in features:
        context, answer, start = trials[feature.example_index]
        spans = encode_with_offsets(tokenizer, [context]).spans.tolist()
        covering = [span for span in spans if span[0] < start + len(answer) and span[1] > start]
        if not covering:  # nothing but blanks and dropped characters
            assert feature.start_position == 0
            continue
        text = answers[feature.example_index].text
        assert text == context[covering[0][0] : covering[-1][1]]
        assert answers[feature.example_index].chosen.span == (covering[0][0], covering[-1][1])
        if start == covering[0][0] and start + len(answer) == covering[-1][1]:
            assert text == answer
            exact += 1
    assert exact > 60


def test_ascii_answers_equal_the_published_ones():
    """All answers of up to four pieces; where the letters occur twice, the published alignment takes the first."""
    draw, tokenizer, compared = random.Random(3), BertTokenizer(VOCABULARY), 0
    words = ["cafe", "(River),", "cafes", "a-b", "'bac", "3.", "2,1", "x", "Ace."]
    for _ in range(40):
        example = example_from_text("a", " ".join(draw.choices(words, k=12)))
        (feature,) = convert_examples_to_features([example], tokenizer, 128, 64, 2, is_training=False)
        pieces, numbers = feature.tokens[feature.segment_start : -1], feature.words.tolist()
        for first in range(len(pieces)):
            for last in range(first, min(first + 4, len(pieces))):
                predicted = detokenize(pieces[first : last + 1])
                original = " ".join(example.doc_tokens[numbers[first] : numbers[last] + 1])
                found = get_final_text(predicted, original, True)
                a, b = feature.characters(first, last)
                text = " ".join(example.doc_tokens)[a:b]
                whole = (numbers.index(numbers[first]), len(numbers) - 1 - numbers[::-1].index(numbers[last]))
                if "[UNK]" not in predicted or (first, last) == whole:
                    assert found.lower() == text.lower()
                    compared += 1
    assert compared > 2000
