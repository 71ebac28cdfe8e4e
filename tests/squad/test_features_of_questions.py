import json
import random

import numpy as np
import pytest
from transformers import BertTokenizer as TransformersTokenizer

from bert.errors import UsageError
from bert.squad.examples import SquadExample, example_from_text, read_squad_examples
from bert.squad.features import convert_examples_to_features, features_to_sequences
from bert.tokenization import BertTokenizer

SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
PIECES = """
a b c d e f g h i j k what where is the seine paris big elysee steve smith ##s la 北 京 大 ( ) , . - ' ? 1995 s
"""


def words(text):
    return text.split()


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words(SPECIAL + PIECES)) + "\n", encoding="utf8")
    return BertTokenizer(path)


@pytest.fixture
def write(tmp_path):
    """Return a function (context, questions) -> a SQuAD file of one paragraph."""

    def write(context, questions):
        path = tmp_path / "squad.json"
        data = [{"title": "", "paragraphs": [{"context": context, "qas": questions}]}]
        path.write_text(json.dumps({"version": "1.1", "data": data}))
        return path

    return write


def asked(qas_id="q", answer="", start=0, question="Where?", **more):
    return {"id": qas_id, "question": question, "answers": [{"text": answer, "answer_start": start}], **more}


def features_of(tokenizer, question, context, length=64, stride=16, query=16, answer=None):
    """Windows of one question; ``answer`` is (text, first word, last word) for training, "" for an impossible one."""
    example = example_from_text(question, context)
    if answer is not None:
        example.is_impossible = not answer
        example.orig_answer_text, example.start_position, example.end_position = answer or ("", -1, -1)
    return convert_examples_to_features([example], tokenizer, length, stride, query, answer is not None)


# --- reading


def test_five_kinds_of_blanks_separate_words(write):
    context = " Paris\u202flies\ton\r\nthe\u00a0Seine,\u2003l'\u00c9lys\u00e9e  \u5317\u4eac."
    path = write(context, [asked("1", "Seine", 99), asked("2")])
    first, second = read_squad_examples(path, is_training=False, version_2_with_negative=False)
    assert first.doc_tokens == ["Paris", "lies", "on", "the\u00a0Seine,\u2003l'\u00c9lys\u00e9e", "\u5317\u4eac."]
    assert first == SquadExample("1", "Where?", first.doc_tokens)  # answers do not count outside training
    assert second.doc_tokens is first.doc_tokens
    assert example_from_text("Where?", context, "1") == first
    with pytest.raises(UsageError, match="context is not Unicode text"):
        example_from_text("Where?", "\udcff")


@pytest.mark.parametrize(
    ("answer", "start", "first_and_last"),
    [
        ("Seine", 14, (3, 3)),  # within "(Seine),"
        ("on the\u202f(Seine)", 6, (1, 3)),  # blanks of both sides compare as one blank
        (" on", 5, (0, 1)),  # its first character belongs to the word before
        ("e", 17, (3, 3)),
        ("big.", 29, (6, 6)),
    ],
)
def test_words_of_an_answer(write, answer, start, first_and_last):
    path = write("Paris on the\u202f(Seine), is not big.", [asked("q", answer, start)])
    (example,) = read_squad_examples(path, is_training=True, version_2_with_negative=False)
    assert (example.start_position, example.end_position) == first_and_last
    assert (example.orig_answer_text, example.is_impossible) == (answer, False)


@pytest.mark.parametrize(
    ("answer", "start"),
    [("Rhine", 0), ("Paris", 9), ("or", 99), ("Paris", -1), ("is big", 10), ("", 3), (" ", 5)],
)
def test_an_answer_elsewhere_is_skipped(write, capsys, answer, start):
    path = write("Paris on the Seine or\u00a0in", [asked("good", "Paris", 0), asked("bad", answer, start)])
    (example,) = read_squad_examples(path, is_training=True, version_2_with_negative=False)
    assert example.qas_id == "good"
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"1 answers are not where the file says (first: 'bad', answer {answer!r})" in error


@pytest.mark.parametrize(
    ("answer", "start", "span", "is_published"),
    [
        ("or\u00a0in", 19, (19, 24), False),  # no-break space and the like do not separate the published words
        ("Seine\u2028or", 13, (13, 21), False),
        ("on\u3000the", 6, (6, 12), False),
        ("on the", 6, (6, 12), False),
        ("the\nSeine", 9, (9, 18), True),  # blanks of both sides compare as one blank
        ("on", 7, (6, 8), True),  # one character off
        ("e", 16, (17, 18), True),  # the nearer one
        ("e", 15, (14, 15), True),
        (" on", 5, (5, 8), True),
    ],
)
def test_the_characters_of_an_answer(write, capsys, answer, start, span, is_published):
    path = write("Paris on\u3000the Seine\u2028or\u00a0in", [asked("q", answer, start), asked("other", "Paris")])
    example, _ = read_squad_examples(path, is_training=True, version_2_with_negative=False)
    assert (example.answer_span, capsys.readouterr().err) == (span, "")
    examples = read_squad_examples(path, True, False, answer_alignment="published")
    assert [each.answer_span for each in examples] == [None] * (1 + is_published)
    assert ("(first: 'q'" in capsys.readouterr().err) != is_published


def test_an_answer_that_begins_with_the_blank_of_the_context(write):
    path = write(" \u202fParis is big", [asked("q", "\u202fParis", 1)])
    (example,) = read_squad_examples(path, is_training=True, version_2_with_negative=False)
    assert (example.start_position, example.end_position) == (0, 0)


def test_only_answers_elsewhere(write):
    path = write("Paris", [asked("1", "Rome", 0), asked("2", "Rome", 0)])
    with pytest.raises(UsageError, match="squad.json: 2 answers are not where .* and no question is left"):
        read_squad_examples(path, is_training=True, version_2_with_negative=False)


def test_impossible_questions_exist_in_training_of_version_2(write):
    impossible = {"id": "q", "question": "Where?", "answers": [], "is_impossible": True}
    path = write("Paris", [impossible, asked("2", "Paris", is_impossible=False)])
    first, second = read_squad_examples(path, is_training=True, version_2_with_negative=True)
    assert first == SquadExample("q", "Where?", ["Paris"], "", -1, -1, True)
    assert second == SquadExample("2", "Where?", ["Paris"], "Paris", 0, 0, False, (0, 5))
    assert not read_squad_examples(path, is_training=False, version_2_with_negative=True)[0].is_impossible
    with pytest.raises(UsageError, match=r"qas\[0\]: 0 answers, expected exactly one .*--version_2_with_negative"):
        read_squad_examples(path, is_training=True, version_2_with_negative=False)


BROKEN = [
    ({"id": "q", "answers": []}, r"data\[0\].paragraphs\[0\].qas\[0\]: 'question' is missing"),
    ({"question": "q", "answers": []}, r"qas\[0\]: 'id' is missing"),
    ({"id": 7, "question": "q"}, r"qas\[0\]: 'id' should be text, found int"),
    ({"id": "q", "question": "q"}, r"qas\[0\]: 'is_impossible' is missing"),
    ({"id": "q", "question": "q", "is_impossible": "no"}, r"'is_impossible' should be true or false, found str"),
    ({"id": "q", "question": "q", "is_impossible": False, "answers": {}}, r"'answers' should be a list, found dict"),
    (asked(start="1", is_impossible=False), r"qas\[0\].answers\[0\]: 'answer_start' should be a whole number, found"),
    (asked(start=True, is_impossible=False), r"'answer_start' should be a whole number, found bool"),
    (asked(question="a\ud800"), r"qas\[0\]: 'question' is not Unicode text \(lone surrogate at character 1\)"),
    ("q", r"qas\[0\]: expected an object with 'question', found str"),
]


@pytest.mark.parametrize(("question", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_questions_of_another_shape(write, question, message):
    with pytest.raises(UsageError, match=message):
        read_squad_examples(write("Paris", [question]), is_training=True, version_2_with_negative=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "SQuAD file .*squad.json: the file is empty"),
        ("paris", "SQuAD file .*squad.json: not a JSON file"),
        ("[]", "expected a JSON object, found list"),
        ("{}", "squad.json: 'data' is missing"),
        ('{"data": [{}]}', r"data\[0\]: 'paragraphs' is missing"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\].paragraphs\[0\]: 'context' is missing"),
        ('{"data": []}', "squad.json: has no questions"),
        (None, "squad.json: No such file"),
    ],
)
def test_files_of_another_shape(tmp_path, text, message):
    path = tmp_path / "squad.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_squad_examples(path, is_training=False, version_2_with_negative=False)


def test_a_repeated_id(write):
    path = write("Paris", [asked("1"), asked("2"), asked("1")])
    with pytest.raises(UsageError, match=r"qas\[2\]: id '1' repeats that of data\[0\].paragraphs\[0\].qas\[0\]"):
        read_squad_examples(path, is_training=False, version_2_with_negative=False)


# --- windows


def test_everything_in_one_window(tokenizer):
    (feature,) = features_of(tokenizer, "Where is Paris?", "Steve Smith's (Seine), 北京", length=20)
    assert feature.tokens == words("[CLS] where is paris ? [SEP] steve smith ' s ( seine ) , 北 京 [SEP]")
    assert feature.token_to_orig_map == dict(zip(range(6, 16), [0, 1, 1, 1, 2, 2, 2, 2, 3, 3], strict=True))
    assert feature.token_is_max_context == dict.fromkeys(range(6, 16), True)
    assert feature.input_ids == [*tokenizer.convert_tokens_to_ids(feature.tokens), 0, 0, 0]
    assert feature.input_mask == [1] * 17 + [0] * 3
    assert feature.segment_ids == [0] * 6 + [1] * 11 + [0] * 3
    assert (feature.unique_id, feature.example_index, feature.doc_span_index) == (1_000_000_000, 0, 0)
    assert (feature.start_position, feature.end_position) == (None, None)
    assert feature.ids.tolist() == feature.input_ids[:17]


def test_several_windows(tokenizer):
    """Room for 9 - 2 - 3 = 4 pieces, windows 2 apart; the answer "d e" is whole in the second only."""
    features = features_of(tokenizer, "what is", "a b c d e f g h i j", 9, 2, 2, answer=("d e", 3, 4))
    assert [" ".join(f.tokens[4:-1]) for f in features] == ["a b c d", "c d e f", "e f g h", "g h i j"]
    assert [(f.start_position, f.end_position) for f in features] == [(0, 0), (5, 6), (0, 0), (0, 0)]
    assert [f.unique_id for f in features] == [1_000_000_000, 1_000_000_001, 1_000_000_002, 1_000_000_003]
    assert [f.doc_span_index for f in features] == [0, 1, 2, 3]
    assert [list(f.token_is_max_context.values()) for f in features] == [
        [True, True, True, False],
        [False, True, True, False],
        [False, True, True, False],
        [False, True, True, True],
    ]
    assert features[2].token_to_orig_map == {4: 4, 5: 5, 6: 6, 7: 7}


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("Paris (1995), big", ("1995", 1, 1), ["1995"]),
        ("la-la la", ("la", 0, 1), ["la"]),
        ("L'Élysée", ("Élysée", 0, 0), ["elysee"]),
        ("北京大", ("京", 0, 0), ["京"]),
        ("Smiths", ("mit", 0, 0), ["smith", "##s"]),
        ("big paris", ("big paris", 0, 1), ["big", "paris"]),
    ],
)
def test_answers_shrink_to_their_own_pieces(tokenizer, context, answer, expected):
    (feature,) = features_of(tokenizer, "what", context, answer=answer)
    assert feature.tokens[feature.start_position : feature.end_position + 1] == expected


@pytest.mark.parametrize(
    ("context", "answer", "start", "pieces", "published"),
    [
        ("北京大北京", "北京", 3, [3, 4], [0, 1]),
        ("la-la la", "la", 3, [2, 2], [0, 0]),
        ("l'Élysée (elysee)", "elysee", 10, [4, 4], [4, 4]),
        ("Paris\u00a0a\u00a0Paris", "Paris", 8, [2, 2], [0, 0]),
        ("Smiths", "mit", 1, [0, 0], [0, 1]),  # the least that covers it
        ("the (Xyz) is big", "Xyz", 5, [2, 2], [2, 2]),  # [UNK]
    ],
)
def test_an_answer_is_labelled_where_it_starts(write, tokenizer, context, answer, start, pieces, published):
    path = write(context, [asked("q", answer, start)])
    for alignment, expected in (("offsets", pieces), ("published", published)):
        examples = read_squad_examples(path, True, False, alignment)
        (feature,) = convert_examples_to_features(examples, tokenizer, 64, 16, 16, is_training=True)
        shift = feature.segment_start
        assert [feature.start_position - shift, feature.end_position - shift] == expected, alignment


def test_windows_without_an_answer(tokenizer):
    impossible = features_of(tokenizer, "what", "a b c d e f g", 9, 2, 2, answer="")
    assert [(f.start_position, f.end_position) for f in impossible] == [(0, 0)] * 2
    (no_pieces,) = features_of(tokenizer, "what", "a \u200b b", answer=("\u200b", 1, 1))
    assert (no_pieces.start_position, no_pieces.end_position) == (0, 0)
    assert features_of(tokenizer, "what", " \u200b ") == []


def test_the_query_is_cut(tokenizer):
    (feature,) = features_of(tokenizer, "a b c d e f", "g h", length=10, query=3)
    assert feature.tokens == words("[CLS] a b c [SEP] g h [SEP]")
    (empty,) = features_of(tokenizer, "a b", "g h", length=10, query=0)
    assert empty.tokens == words("[CLS] [SEP] g h [SEP]")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((19, 16, 16), r"--max_seq_length 19: expected more than --max_query_length 16 \+ 3"),
        ((64, 0, 16), "--doc_stride 0: expected at least 1"),
        ((64, 16, -1), "--max_query_length -1: expected at least 0"),
    ],
)
def test_lengths_that_leave_no_room(tokenizer, lengths, message):
    with pytest.raises(UsageError, match=message):
        features_of(tokenizer, "a", "b", *lengths)


def test_sequences(tokenizer):
    examples = [
        SquadExample("1", "what is", words("a b c d e"), "d e", 3, 4),
        SquadExample("2", "where", ["big", "paris."], "paris", 1, 1),
    ]
    features = convert_examples_to_features(examples, tokenizer, 9, 2, 2, is_training=True)
    sequences = features_to_sequences(features)
    rows = np.split(sequences.tokens, sequences.offsets[1:-1])
    assert [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in rows] == [
        "[CLS] what is [SEP] a b c d [SEP]",
        "[CLS] what is [SEP] c d e [SEP]",
        "[CLS] where [SEP] big paris . [SEP]",
    ]
    assert sequences.segment_starts.tolist() == [4, 4, 3]
    assert sequences.labels["start"].tolist() == [0, 5, 4]
    assert sequences.labels["end"].tolist() == [0, 6, 4]
    dtypes = sequences.tokens.dtype, sequences.offsets.dtype, sequences.segment_starts.dtype
    assert dtypes == (np.int32, np.int64, np.int32)
    assert features_to_sequences(convert_examples_to_features(examples, tokenizer, 9, 2, 2, False)).labels == {}
    assert len(features_to_sequences([])) == 0


def test_windows_against_transformers(tokenizer, tmp_path):
    """Its overlap of two windows is our room minus our stride; its offsets give each piece's word."""
    reference = TransformersTokenizer.from_pretrained(tmp_path)
    draw = random.Random(5)
    several = ["Paris", "(1995),", "Smith's", "北京", "Élysée", "xyz", "la-la", "is", "a", "Smiths?", "\u0301"]
    for trial in range(60):
        question, context = " ".join(draw.choices(several, k=3)), " ".join(draw.choices(several, k=draw.randint(1, 60)))
        length, stride = 40, draw.randint(5, 20)
        room = length - 3 - len(tokenizer.tokenize(question))
        options = {"max_length": length, "truncation": "only_second", "stride": room - stride, "padding": "max_length"}
        options |= {"return_overflowing_tokens": True, "return_offsets_mapping": True}
        wanted = reference(question, context, **options)
        found = features_of(tokenizer, question, context, length, stride, 30)
        assert [f.input_ids for f in found] == wanted["input_ids"], trial
        assert [f.segment_ids for f in found] == wanted["token_type_ids"]
        assert [f.input_mask for f in found] == wanted["attention_mask"]
        for number, feature in enumerate(found):
            offsets = wanted["offset_mapping"][number]
            assert feature.token_to_orig_map == {
                position: context.count(" ", 0, offsets[position][0])
                for position, segment in enumerate(wanted.sequence_ids(number))
                if segment == 1
            }
