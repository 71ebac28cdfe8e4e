"""The files of a tokenizer: what transformers writes is read with the same ids, and what we write comes back."""

import json
import random

import pytest
from test_tokenizer import ALPHABET, SPECIALS, random_vocabulary, write_vocabulary

from bert.errors import UsageError
from bert.tokenization import BertTokenizer, TokenizerFlags, open_tokenizer, write_tokenizer
from bert.tokenization.files import read_files

transformers = pytest.importorskip("transformers")
PIECES = [*SPECIALS, "a", "b", "A", "##b", "é", "e", "博", "博客", "##客", "x", "##x", "covid", "##19"]
WORDS = ["covid19", "[E1]", "New York", "博客", "É", "ab", "##19", "<x>"]


def opened(folder, **flags) -> BertTokenizer:
    return open_tokenizer(folder, TokenizerFlags(**flags))


def random_text(rng: random.Random) -> str:
    parts = [*ALPHABET, *ALPHABET, *WORDS, "[MASK]", " [SEP] ", "ΣΑΣ", "\U0002b900", "covid19"]
    return "".join(rng.choices(parts, k=rng.randint(0, 30)))


@pytest.mark.parametrize("seed", range(12))
def test_ids_of_any_vocabulary_that_transformers_writes(tmp_path, seed):
    rng = random.Random(seed)
    pieces = random_vocabulary(rng)
    for _ in range(rng.randint(0, 6)):  # doubled and blank lines
        pieces[rng.randrange(5, len(pieces))] = rng.choice([rng.choice(pieces[5:]), ""])
    settings = {
        "do_lower_case": rng.random() < 0.5,
        "strip_accents": rng.choice([None, True, False]),
        "tokenize_chinese_chars": rng.random() < 0.5,
    }
    if rng.random() < 0.5:
        peer = transformers.BertTokenizer(str(write_vocabulary(tmp_path / "vocab.txt", pieces)), **settings)
    else:
        ids = {piece: 2 * index if index > 9 else index for index, piece in enumerate(pieces)}
        peer = transformers.BertTokenizer(ids, **settings)
    peer.add_tokens(rng.sample(WORDS, rng.randint(0, 5)))
    peer.add_tokens([transformers.AddedToken("x-y", single_word=True, lstrip=True, normalized=rng.random() < 0.5)])
    peer.save_pretrained(tmp_path / "hf")
    ours, theirs = opened(tmp_path / "hf"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    texts = [random_text(rng) for _ in range(200)]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert ours.encode_batch(texts) == expected
    assert not ours.guessed
    assert sum(len(set(ids)) > 2 for ids in expected) > 100, "the texts exercise more than [UNK]"
    again = BertTokenizer.from_state_dict(json.loads(json.dumps(ours.state_dict())))
    assert again.encode_batch(texts) == expected
    (tmp_path / "back").mkdir()
    write_tokenizer(tmp_path / "back", ours, 512)
    assert opened(tmp_path / "back").state_dict() == ours.state_dict()
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert peer(texts, add_special_tokens=False)["input_ids"] == expected


@pytest.mark.parametrize("never_split", [SPECIALS, [*SPECIALS, "[X]"]])
@pytest.mark.parametrize(
    "settings",
    [{"pretokenized": True}, {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False},
     {"max_input_chars_per_word": 3}, {"guessed": ["do_lower_case"], "source": "a/vocab.txt"}],
)  # fmt: skip
def test_a_value_survives_the_files(tmp_path, settings, never_split):
    ours = BertTokenizer([*PIECES, None, "a", ""], never_split=never_split, **{"source": "it", **settings})
    write_tokenizer(tmp_path, ours, 512)
    found = read_files(tmp_path)
    assert found is not None
    assert BertTokenizer(**found).state_dict() == ours.state_dict()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["É ab, 博客 covid19", "xxx xxxx", "A-b 博"]
    assert theirs(texts, add_special_tokens=False)["input_ids"] == ours.encode_batch(texts)


def test_a_hole_in_the_numbers_shifts_nothing(tmp_path):
    lines = [*PIECES[:10], "a", *PIECES[11:]]  # the piece "a" twice
    transformers.BertTokenizer(str(write_vocabulary(tmp_path / "v.txt", lines))).save_pretrained(tmp_path / "hf")
    vocabulary = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())["model"]["vocab"]
    assert 5 not in vocabulary.values() and vocabulary["x"] == 14
    tokenizer = opened(tmp_path / "hf")
    assert tokenizer.encode_batch(["x a covid"]) == [[14, 10, 16]]
    assert tokenizer.vocab_size == len(lines) and tokenizer.vocab["covid"] == 16


def test_added_tokens_of_every_file(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt", PIECES)
    (tmp_path / "added_tokens.json").write_text('{"covid19": 18, "NY": 19}')
    tokenizer = opened(tmp_path, do_lower_case=True)
    assert tokenizer.encode_batch(["a covid19b x[MASK]"]) == [[5, 18, 6, 14, 4]]
    decoder = {"19": {"content": "NY", "special": False, "normalized": False, "single_word": True}}
    settings = {"do_lower_case": True, "additional_special_tokens": ["<E>"], "added_tokens_decoder": decoder}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = opened(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in ["a NY<E>", "aNY ny covid19"]:
        assert tokenizer.encode_batch([text])[0] == theirs(text, add_special_tokens=False)["input_ids"], text
    assert tokenizer.convert_ids_to_tokens([18, 19]) == ["NY", "<E>"]


WITHOUT_WORDPIECE = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
REFUSED = [
    ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class BertJapaneseTokenizer;"),
    ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"}, "XLMRobertaTokenizer; .*--pretokenized"),
    ("tokenizer_config.json", {"do_basic_tokenize": False}, "do_basic_tokenize false"),
    ("tokenizer_config.json", {"unk_token": "<unk>"}, "unk_token <unk>; expected .UNK."),
    ("tokenizer.json", WITHOUT_WORDPIECE, "model BPE; expected WordPiece"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_another_kind_of_tokenizer_is_refused_by_name(tmp_path, name, content, message):
    write_vocabulary(tmp_path / "vocab.txt", PIECES)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"{name}: .*{message}|{name}: {message}"):
        opened(tmp_path / "vocab.txt")
    if name == "tokenizer_config.json" and "token" not in "".join(content)[-5:]:
        assert opened(tmp_path / "vocab.txt", pretokenized=True).tokenize("博客 a,b") == ["博客", "[UNK]"]


def test_changed_parts_of_a_tokenizer_json_are_refused(tmp_path):
    transformers.BertTokenizer({piece: i for i, piece in enumerate(PIECES)}).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = json.loads(path.read_text())
    for part, value, message in [
        ("normalizer", {"type": "Lowercase"}, "normalizer Lowercase; expected BertNormalizer"),
        ("normalizer", {**good["normalizer"], "clean_text": False}, "clean_text False"),
        ("pre_tokenizer", {"type": "Metaspace"}, "pre_tokenizer Metaspace"),
        ("model", {**good["model"], "continuing_subword_prefix": "@@"}, "continuing_subword_prefix @@"),
        ("model", {**good["model"], "vocab": {**good["model"]["vocab"], "b": 5}}, "'a' and 'b' have the id 5"),
        (
            "model",
            {**good["model"], "vocab": {**good["model"]["vocab"], "b": 10**9}},
            "id 1000000000; expected at most",
        ),
    ]:
        path.write_text(json.dumps({**good, part: value}))
        with pytest.raises(UsageError, match=f"tokenizer.json: {message}"):
            opened(tmp_path)
    path.write_text(json.dumps(good))
    write_vocabulary(tmp_path / "vocab.txt", [*PIECES[:5], "b", "a", *PIECES[7:]])
    with pytest.raises(UsageError, match="tokenizer.json: 'a' has the id 5, but .*vocab.txt has it on line 7"):
        opened(tmp_path)
