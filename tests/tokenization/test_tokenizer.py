"""The tokenizer against published expectations, a plain Python implementation and transformers."""

import hashlib
import json
import random
import unicodedata

import pytest

from bert.errors import UsageError
from bert.tokenization import BertTokenizer, read_vocabulary

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# Latin with accents (composed and combining), Greek, Cyrillic, CJK, kana, blanks, controls, punctuation, emoji.
ALPHABET = (
    "aabbccddeeAABBCC123 \t\n\u00a0\u2003\u3000éÉüßñİıÅσςάЯйЙ博推海\uf900\U00020001かガ\u0301\u0300\u0327"
    "\x00\x01\x7f\u0085\u200b\u200e\ufeff\ufffd\ue000.,!?-–—…“”«»¿'\"[]{}()$+<=>^`|~€©™½²😀🤖"
)
CJK = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
]  # fmt: skip


def write_vocabulary(path, pieces):
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf8")
    return path


def random_vocabulary(rng):
    """Return all characters of ALPHABET that can be pieces, and random short strings of them."""
    letters = sorted({c for c in ALPHABET.lower() + ALPHABET if not c.isspace() and unicodedata.category(c)[0] != "C"})
    words = {"".join(rng.choices("abcdeAé1", k=rng.randint(2, 4))) for _ in range(80)}
    tails = {"".join(rng.choices("abcdeAé1", k=rng.randint(1, 3))) for _ in range(60)}
    kept = rng.sample(letters, len(letters) * 3 // 4)
    return SPECIALS + sorted({*kept, *words}) + sorted(f"##{tail}" for tail in tails)


def plain_tokenize(text, pieces, lower):
    """Tokenise as published, character by character."""

    def is_punctuation(c):
        return 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126 or (
            unicodedata.category(c).startswith("P")
        )  # fmt: skip

    cleaned = ""
    for c in text:
        blank = c in " \t\n\r" or unicodedata.category(c) == "Zs"
        if not blank and (ord(c) in (0, 0xFFFD) or unicodedata.category(c).startswith("C")):
            continue
        ideograph = any(first <= ord(c) <= last for first, last in CJK)
        cleaned += " " if blank else f" {c} " if ideograph else c

    words = []
    for word in cleaned.split():
        if word in SPECIALS:
            words.append(word)
            continue
        if lower:
            word = unicodedata.normalize("NFD", word.lower())
            word = "".join(c for c in word if unicodedata.category(c) != "Mn")
        current = ""
        for c in word:
            if is_punctuation(c):
                words += [current, c]
                current = ""
            else:
                current += c
        words.append(current)

    result = []
    for word in filter(None, words):
        found, start = [], 0
        while start < len(word) and len(word) <= 100:
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in pieces:
                    found.append(piece)
                    start = end
                    break
            else:
                break
        result += found if found and start == len(word) else ["[UNK]"]
    return result


@pytest.fixture
def tokenizer(tmp_path):
    pieces = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "[PAD]", "[MASK]"]
    return BertTokenizer(write_vocabulary(tmp_path / "vocab.txt", [*pieces, "博", "ah", "zz", "ο", "##δο", "##ς"]))


def test_published_expectations(tokenizer, tmp_path):
    assert tokenizer.tokenize("UNwant\u00e9d,running") == ["un", "##want", "##ed", ",", "runn", "##ing"]
    assert tokenizer.encode_batch(["UNwant\u00e9d,running"]) == [[7, 4, 5, 10, 8, 9]]
    assert tokenizer.tokenize("unwantedX running") == ["[UNK]", "runn", "##ing"]
    assert tokenizer.tokenize("") == [] == tokenizer.tokenize(" \t\n")
    chinese = BertTokenizer(write_vocabulary(tmp_path / "zh.txt", [*SPECIALS, "ah", "博", "推", "zz"]))
    assert chinese.tokenize("ah\u535a\u63a8zz") == ["ah", "\u535a", "\u63a8", "zz"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("un [MASK] , [SEP]", ["un", "[MASK]", ",", "[SEP]"]),
        ("[PAD][PAD]", ["[UNK]"] * 6),  # not delimited by blanks, so brackets and letters come apart
        ("[mask]", ["[UNK]"] * 3),
        ("博[MASK]博", ["博", "[MASK]", "博"]),  # the spaces around ideographs delimit
        ("[MA\u200bSK]\u00a0[CLS]", ["[MASK]", "[CLS]"]),
        ("[MASK],", ["[UNK]"] * 3 + [","]),
        ("ΟΔΟΣ, οδος", ["ο", "##δο", "##ς", ",", "ο", "##δο", "##ς"]),
        ("[MASK] ΟΔΟΣ", ["[MASK]", "ο", "##δο", "##ς"]),
        ("un\U0002b820un", ["un", "[UNK]", "un"]),
        ("u" * 101, ["[UNK]"]),
    ],
)
def test_special_tokens_sigma_and_ideographs(tokenizer, text, expected):
    assert tokenizer.tokenize(text) == expected
    assert tokenizer.encode_batch(["un", text, ""]) == [[7], tokenizer.convert_tokens_to_ids(expected), []]


def test_word_length_limit(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", [*SPECIALS, "u", "##u"])
    assert BertTokenizer(path).tokenize("u" * 100) == ["u"] + ["##u"] * 99
    assert BertTokenizer(path).tokenize("u" * 101) == ["[UNK]"]
    assert BertTokenizer(path, max_input_chars_per_word=3).tokenize("uuu uuuu") == ["u", "##u", "##u", "[UNK]"]


def test_case_and_accents(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", [*SPECIALS, "É", "é", "e", "E"])
    assert BertTokenizer(path).tokenize("É é E") == ["e", "e", "e"]
    assert BertTokenizer(path, do_lower_case=False).tokenize("É é E") == ["É", "é", "E"]
    assert BertTokenizer(path, do_lower_case=True, strip_accents=False).tokenize("É é E") == ["é", "é", "e"]
    assert BertTokenizer(path, do_lower_case=False, strip_accents=True).tokenize("É é E") == ["E", "e", "E"]


@pytest.mark.parametrize("lower", [True, False])
def test_equals_a_plain_implementation_on_random_text(tmp_path, lower):
    rng = random.Random(7)
    pieces = random_vocabulary(rng)
    tokenizer = BertTokenizer(write_vocabulary(tmp_path / "vocab.txt", pieces), lower)
    parts = [*ALPHABET, *ALPHABET, "[MASK]", " [SEP] ", "ΣΑΣ", "\U0002b900"]
    texts = ["".join(rng.choices(parts, k=rng.randint(0, 40))) for _ in range(3000)]
    expected = [plain_tokenize(text, set(pieces), lower) for text in texts]
    assert [tokenizer.tokenize(text) for text in texts[:100]] == expected[:100]
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer.encode_batch(texts)] == expected
    assert sum(len(set(tokens)) > 1 for tokens in expected) > 2000, "the texts exercise more than [UNK]"


@pytest.mark.parametrize("lower", [True, False])
def test_equals_transformers_on_random_text(tmp_path, lower):
    from transformers import BertTokenizer as PeerTokenizer

    rng = random.Random(8)
    pieces = random_vocabulary(rng)
    tokenizer = BertTokenizer(write_vocabulary(tmp_path / "vocab.txt", pieces), lower)
    peer = PeerTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, do_lower_case=lower)
    texts = ["".join(rng.choices(ALPHABET, k=rng.randint(0, 40))) for _ in range(1000)]
    assert tokenizer.encode_batch(texts) == peer(texts, add_special_tokens=False)["input_ids"]


def test_vocabulary_order_and_ids(tokenizer):
    assert list(tokenizer.vocab.items())[:4] == [("[UNK]", 0), ("[CLS]", 1), ("[SEP]", 2), ("want", 3)]
    assert tokenizer.vocab_size == 19
    ids = (tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id)
    assert ids == (0, 1, 2, 11, 12)
    assert tokenizer.fingerprint == hashlib.sha256("\n".join(tokenizer.vocab).encode()).hexdigest()
    with pytest.raises(KeyError, match="absent"):
        tokenizer.convert_tokens_to_ids(["un", "absent"])
    for outside in (-1, 19):
        with pytest.raises(IndexError, match="vocabulary of 19"):
            tokenizer.convert_ids_to_tokens([0, outside])


def test_state_is_plain_and_complete(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", [*SPECIALS, "É", "e", "[X]", "x"])
    tokenizer = BertTokenizer(
        path, False, max_input_chars_per_word=5, strip_accents=False, never_split=[*SPECIALS, "[X]"]
    )
    path.unlink()
    again = BertTokenizer.from_state_dict(json.loads(json.dumps(tokenizer.state_dict())))
    assert again.state_dict() == tokenizer.state_dict() and again.fingerprint == tokenizer.fingerprint
    assert again.do_lower_case is False
    assert again.tokenize("É [X] xxxxxx e") == tokenizer.tokenize("É [X] xxxxxx e") == ["É", "[X]", "[UNK]", "e"]
    with pytest.raises(UsageError, match=r"the tokenizer: no line for \[MASK\]"):
        BertTokenizer.from_state_dict({**tokenizer.state_dict(), "vocab": ["[UNK]", "[SEP]", "[PAD]", "[CLS]"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n", r"no line for \[MASK\]"),
        (b"[PAD]\n\xff\n", "not UTF-8"),
    ],
)
def test_bad_vocabulary_is_named(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        BertTokenizer(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.txt: No such file"):
        BertTokenizer(tmp_path / "absent.txt")


def test_blank_and_doubled_lines_keep_the_ids_of_the_others(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\n".join(["\ufeff[PAD]", *SPECIALS[1:], "the", "", "a", "the ", "##s", "", ""]).encode())
    tokenizer = BertTokenizer(path)
    assert tokenizer.encode_batch(["the as the"]) == [[8, 7, 9, 8]]  # of a piece that comes twice, the last line counts
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (10, 0)
    assert tokenizer.convert_ids_to_tokens([5, 6, 8]) == ["the", "", "the"]
    again = BertTokenizer.from_state_dict(tokenizer.state_dict())
    assert again.vocab == tokenizer.vocab and again.identity == tokenizer.identity


def test_line_number_is_the_id_whatever_the_piece(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIALS, "\u2028", "\u0085", " a "]).encode() + b"\r\n\r\n")
    assert read_vocabulary(path) == [*SPECIALS, "\u2028", "\u0085", "a"]
