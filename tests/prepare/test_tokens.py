import pickle
import random

import pytest

from bert.prepare.tokens import DocumentEncoder, join
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = [
    *SPECIAL_TOKENS,
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    *"αος中国ß",
    *(f"##{letter}" for letter in "αοσςß"),
    "the",
    "##ing",
]


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf8")
    return path


def random_sentence(rng: random.Random) -> str:
    parts = [
        *("the", "Going", "x,y", "don't", "a.b.c", "3.14", "(brackets)", "é", "É,É", ",\u0308x", "ÀÀ-à"),
        *("ΑΣ", "ΟΣ.ΟΣ", "ΑΣ'", "中国", "a中b", "\u3000", "x\u00a0y", "\x01", "a\x02b", "\u200d", "“quoted”", "…", "ß"),
        *("[MASK]", "[MASK],", "x[SEP]", "[sep]", "\tx", "_", "snake_case", "¿qué?", "\U0002b820", "\ufffd", "##ing"),
    ]
    words = ["".join(rng.choices(LETTERS.upper() + LETTERS, k=rng.randint(1, 6))) for _ in range(4)]
    return " ".join(rng.choices(parts + words, k=rng.randint(0, 12)))


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"strip_accents": False}, {"never_split": ()}, {"pretokenized": True}],
    ids=str,
)
def test_a_table_of_words_cuts_as_the_library_cuts_whole_texts(vocab_file, settings):
    tokenizer = BertTokenizer(vocab_file, **settings)
    encode = DocumentEncoder(tokenizer)
    rng = random.Random(0)
    for _ in range(20):  # the table fills from block to block
        sentences = [random_sentence(rng) for _ in range(40)]
        expected = [ids for ids in tokenizer.encode_batch(sentences) if ids]
        tokens = encode([sentences])
        found = [tokens.ids[a:b].tolist() for a, b in zip(tokens.sentences, tokens.sentences[1:], strict=False)]
        assert found == expected


def test_plain_sentences_take_the_fast_way_and_come_out_the_same(vocab_file):
    tokenizer = BertTokenizer(vocab_file)
    sentences = ["The going, (was) good.", "don't-stop; the", "a" * 200]
    tokens = DocumentEncoder(tokenizer)([sentences])
    assert tokens.ids.tolist() == [piece for ids in tokenizer.encode_batch(sentences) for piece in ids]
    assert tokens.ids[-1] == tokenizer.unk_id  # a word of over 100 letters


def test_sentences_and_documents_without_a_piece_are_gone(vocab_file):
    tokenizer = BertTokenizer(vocab_file)
    tokens = DocumentEncoder(tokenizer)([["\x01"], ["the", "\x01", "a b"], [], ["c"], ["\x02", "\x03"]])
    names = [PIECES[i] for i in tokens.ids]
    assert names == ["the", "a", "b", "c"]
    assert tokens.sentences.tolist() == [0, 1, 3, 4]
    assert tokens.documents.tolist() == [0, 2, 3]


def test_no_document_at_all(vocab_file):
    tokens = DocumentEncoder(BertTokenizer(vocab_file))([])
    assert (len(tokens.ids), tokens.num_documents) == (0, 0)


def test_a_line_break_in_a_sentence_is_a_blank(vocab_file):
    tokens = DocumentEncoder(BertTokenizer(vocab_file))([["a\nb", "c"]])
    assert tokens.sentences.tolist() == [0, 2, 3]


def test_the_table_of_words_is_bounded(vocab_file, monkeypatch):
    monkeypatch.setattr("bert.prepare.tokens.KNOWN_WORDS", 3)
    tokenizer = BertTokenizer(vocab_file)
    encode = DocumentEncoder(tokenizer)
    for text in ("a b c", "d e f", "a d g", "a b c d e f g"):
        assert encode([[text]]).ids.tolist() == tokenizer.encode_batch([text])[0]


def test_join(vocab_file):
    encode = DocumentEncoder(BertTokenizer(vocab_file))
    first, second = encode([["a", "b c"], ["d"]]), encode([["e f"]])
    both = join([first, second])
    assert [PIECES[i] for i in both.ids] == list("abcdef")
    assert both.sentences.tolist() == [0, 1, 3, 4, 6]
    assert both.documents.tolist() == [0, 2, 3, 4]


def test_a_pickled_encoder_cuts_the_same(vocab_file):
    encode = DocumentEncoder(BertTokenizer(vocab_file, do_lower_case=False))
    tokens = encode([["The a", "b"], ["ing"]])
    again = pickle.loads(pickle.dumps(encode))([["The a", "b"], ["ing"]])
    assert again.ids.tolist() == tokens.ids.tolist()
    assert again.documents.tolist() == tokens.documents.tolist()
