"""One tokenizer from flags, shards, checkpoint and files: who is believed, and what is guessed."""

import json

import pytest
from test_tokenizer import SPECIALS, write_vocabulary

from bert.errors import UsageError
from bert.tokenization import BertTokenizer, Stated, TokenizerFlags, expect_same, guesses, open_tokenizer
from bert.tokenization.opening import build_tokenizer

UNCASED = [*SPECIALS, "<S>", "<T>", "[unused1]", "nba", "e", "é", "中"]
CASED = [*UNCASED, "Die"]


def casing(folder, pieces, *known, name="vocab.txt", **flags):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = open_tokenizer(write_vocabulary(folder / name, pieces), TokenizerFlags(**flags), known)
    return tokenizer.do_lower_case, tokenizer.guessed


def test_the_casing_of_published_models_is_known(tmp_path):
    for name, lower in {
        "chinese_L-12_H-768_A-12": True, "multilingual_L-12_H-768_A-12": True, "uncased_L-24_H-1024_A-16": True,
        "multi_cased_L-12_H-768_A-12": False, "cased_L-24_H-1024_A-16": False, "wwm_cased_L-24_H-1024_A-16": False,
        "bert-base-chinese": True, "bert-large-cased-whole-word-masking": False, "bert-base-german-cased": False,
    }.items():  # fmt: skip
        pieces = CASED if lower else UNCASED  # whatever the vocabulary looks like
        assert casing(tmp_path / name, pieces) == (lower, ()), name
        assert casing(tmp_path / name / "vocab", pieces) == (lower, ()), name
        with pytest.raises(UsageError, match=f"--do_lower_case {str(not lower).lower()}, but {name} has do_lower_case"):
            casing(tmp_path / name, pieces, do_lower_case=not lower)
        assert casing(tmp_path / "mine", pieces, bert_model=name) == (lower, ())


def test_a_guess_is_a_guess_and_a_flag_overrules_it(tmp_path):
    assert casing(tmp_path, UNCASED) == (True, ("do_lower_case",))  # <S>, <T> and [unused1] tell nothing
    assert casing(tmp_path, CASED) == (False, ("do_lower_case",))
    assert casing(tmp_path / "uncased-notes", CASED) == (False, ("do_lower_case",))  # no published model's name
    assert casing(tmp_path, CASED, do_lower_case=True) == (True, ())
    assert casing(tmp_path, UNCASED, do_lower_case=False) == (False, ())
    tokenizer = open_tokenizer(tmp_path / "vocab.txt", TokenizerFlags())
    assert guesses(tokenizer).startswith("--do_lower_case true: a guess from ") and guesses(tokenizer).count("\n") == 0
    assert guesses(open_tokenizer(tmp_path / "vocab.txt", TokenizerFlags(do_lower_case=True))) == ""


def test_what_stands_beside_the_vocabulary_is_a_fact(tmp_path):
    for name, settings in {"vocab.txt": "tokenizer_config.json", "zh.txt": "zh.tokenizer_config.json"}.items():
        stated = {"do_lower_case": False, "strip_accents": True, "pretokenized": True}
        (tmp_path / settings).write_text(json.dumps(stated))
        write_vocabulary(tmp_path / name, UNCASED)
        tokenizer = open_tokenizer(tmp_path / name, TokenizerFlags())
        assert (tokenizer.do_lower_case, tokenizer.strip_accents, tokenizer.guessed) == (False, True, ())
        with pytest.raises(UsageError, match="--strip_accents false, but --vocab_file .* has strip_accents true"):
            open_tokenizer(tmp_path / name, TokenizerFlags(strip_accents=False))
    assert tokenizer.pretokenized
    (tmp_path / "zh.tokenizer_config.json").write_text("{")
    with pytest.raises(UsageError, match="zh.tokenizer_config.json: not a JSON file"):
        open_tokenizer(tmp_path / "zh.txt", TokenizerFlags())


def test_shards_state_settings_too(tmp_path):
    shards = Stated("the manifest of shards", {"do_lower_case": True, "strip_accents": False, "pretokenized": True})
    assert casing(tmp_path, CASED, shards) == (True, ())
    tokenizer = open_tokenizer(tmp_path / "vocab.txt", TokenizerFlags(), [shards])
    assert (tokenizer.strip_accents, tokenizer.pretokenized, tokenizer.tokenize("É 中é")) == (
        False,
        True,
        ["é", "[UNK]"],
    )
    with pytest.raises(UsageError, match="--do_lower_case false, but the manifest of shards has do_lower_case true"):
        casing(tmp_path, CASED, shards, do_lower_case=False)
    other = Stated("the manifest of more", {"strip_accents": True})
    with pytest.raises(UsageError, match="the manifest of shards: strip_accents false, but the manifest of more has"):
        casing(tmp_path, CASED, shards, other)


def test_every_setting_is_compared():
    plain = BertTokenizer(UNCASED)
    others = {
        "do_lower_case": {"do_lower_case": False, "strip_accents": True},
        "strip_accents": {"strip_accents": False},
        "tokenize_chinese_chars": {"tokenize_chinese_chars": False},
        "pretokenized": {"pretokenized": True, "tokenize_chinese_chars": True},
        "max_input_chars_per_word": {"max_input_chars_per_word": 50},
    }
    for name, settings in others.items():
        other = BertTokenizer(UNCASED, **settings)
        assert plain.difference(other.identity) == name and not other.difference(other.identity)
        with pytest.raises(UsageError, match=f"^mine: {name} .*, but theirs has {name} "):
            expect_same(plain, "mine", other.identity, "theirs")
    assert plain.difference(BertTokenizer(CASED).identity) == "vocab_sha256"
    token = {"id": 12, "content": "x", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    assert (
        plain.difference(BertTokenizer(UNCASED, added_tokens=[{**token, "special": False}]).identity) == "added_tokens"
    )
    assert plain.difference({}) is None
    expect_same(plain, "mine", BertTokenizer([*UNCASED, ""], strip_accents=True).identity, "theirs")  # the same ids


def test_a_value_that_follows_another_is_stated_too(tmp_path):
    saved = BertTokenizer(UNCASED, source="vocab.txt").state_dict()
    assert build_tokenizer(saved, "ckpt.pt", TokenizerFlags(strip_accents=True).stated()).state_dict() == saved
    with pytest.raises(UsageError, match="--strip_accents false, but ckpt.pt has strip_accents true"):
        build_tokenizer(saved, "ckpt.pt", TokenizerFlags(strip_accents=False).stated())
    guess = {**saved, "guessed": ["do_lower_case"]}
    assert build_tokenizer(guess, "ckpt.pt", TokenizerFlags(do_lower_case=False).stated()).tokenize("é") == ["é"]
    assert build_tokenizer(guess, "ckpt.pt").guessed == ("do_lower_case",)
