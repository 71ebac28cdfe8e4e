"""The vocabulary trainer against vocabularies worked out by hand, and its independence of everything but the text."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bert.config import parse_args, run_command
from bert.prepare.vocabulary import (
    VocabularyConfig,
    build_vocabulary,
    choose_alphabet,
    count_words,
    train_vocabulary,
)
from bert.tokenization import BertTokenizer

ROOT = Path(__file__).resolve().parents[2]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_text(path, seed, words=4000):
    """Write random words of few letters, so that many pairs of pieces are equally frequent."""
    rng = random.Random(seed)
    lexicon = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 7))) for _ in range(600)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(" ".join(rng.choices(lexicon, k=10)) + "." for _ in range(words // 10)))


def train(text, output, **flags):
    argv = ["--text", str(text), f"--output={output}", "--disable_progress_bar"]
    train_vocabulary(parse_args(VocabularyConfig, argv + [f"--{name}={value}" for name, value in flags.items()]))
    return output.read_text(encoding="utf8").splitlines()


def test_merges_by_hand():
    """The most frequent pair first: e+s and s+t have 9 and make est; l+o and lo+w have 7, n+e and others only 6."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    characters = [*"deilnorstw", *(f"##{c}" for c in "deiorstw")]
    pieces = build_vocabulary(words, len(SPECIALS) + len(characters) + 4, min_frequency=2, show_progress=False)
    assert pieces[:5] == SPECIALS and pieces[5 : 5 + len(characters)] == characters
    merged = pieces[5 + len(characters) :]
    assert merged[0] in ("##es", "##st") and merged[1:] == ["##est", "lo", "low"]


def test_a_pair_needs_the_minimal_frequency():
    words = {"ab": 3, "abc": 1}
    assert build_vocabulary(words, 100, 2, False) == [*SPECIALS, *"abc", "##b", "##c", "ab"]
    assert build_vocabulary(words, 100, 1, False) == [*SPECIALS, *"abc", "##b", "##c", "ab", "abc"]
    assert build_vocabulary(words, 100, 5, False) == [*SPECIALS, *"abc", "##b", "##c"]


def test_words_are_counted_as_the_tokenizer_cuts_them():
    lines = ["Don't DON'T [MASK] héllo", "", "世界 " + "x" * 101, "ΟΔΟΣ"]
    assert count_words([lines[:2], lines[2:]], settings()) == Counter(
        {"don": 2, "'": 2, "t": 2, "hello": 1, "世": 1, "界": 1, "οδος": 1}
    )
    cased = settings(do_lower_case=False)
    assert count_words([["Don't", "héllo"]], cased) == {"Don": 1, "'": 1, "t": 1, "héllo": 1}
    assert count_words([["Ä世界,"]], settings(strip_accents=False, pretokenized=True)) == {"ä世界,": 1}
    assert count_words([["Ä世界,"]], settings(tokenize_chinese_chars=False)) == {"a世界": 1, ",": 1}


def settings(**values) -> VocabularyConfig:
    return VocabularyConfig(["text"], "vocab.txt", **values)


def test_alphabet_covers_the_share_asked_for():
    words = {"aaaa": 200, "éé": 90, "üß": 9, "q": 1, "ñ": 1}  # 1,000 characters: a 800, é 180, ü 9, ß 9, q 1, ñ 1
    assert choose_alphabet(words, 1.0) == set("aéüßqñ")
    assert choose_alphabet(words, 0.999) == set("aéüßq")
    assert choose_alphabet(words, 0.99) == set("aéqß")  # of the equally rare the later code point goes: ü, not ß
    assert choose_alphabet(words, 0.0) == set("aq")


def test_words_outside_the_alphabet_stay_unknown(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("é hat " * 499 + "éa ñandu", encoding="utf8")
    pieces = train(tmp_path / "a.txt", tmp_path / "v.txt", do_lower_case=False, character_coverage=0.999)
    assert "é" in pieces and "hat" in pieces
    assert not any(set(piece) & set("ñnd") for piece in pieces[5:])
    assert "0.10% of the text's words hold a character outside the alphabet" in capsys.readouterr().out


def test_the_vocabulary_spells_its_text(tmp_path):
    write_text(tmp_path / "text" / "a.txt", 1)
    pieces = train(tmp_path / "text", tmp_path / "v.txt", vocab_size=200)
    assert len(pieces) == len(set(pieces)) == 200 and pieces[:5] == SPECIALS
    tokenizer = BertTokenizer(tmp_path / "v.txt")
    text = (tmp_path / "text" / "a.txt").read_text().split("\n")
    used = Counter(piece for line in text for piece in tokenizer.tokenize(line))
    assert used["[UNK]"] == 0 and len(used) > 150
    longer = BertTokenizer(_with_alphabet_only(tmp_path, pieces))
    assert used.total() < 0.7 * sum(map(len, longer.encode_batch(text)))


def _with_alphabet_only(tmp_path, pieces):
    path = tmp_path / "letters.txt"
    path.write_text("\n".join(SPECIALS + [piece for piece in pieces if len(piece.removeprefix("##")) == 1]))
    return path


def test_casing(tmp_path):
    (tmp_path / "a.txt").write_text("Été été\n" * 10, encoding="utf8")
    uncased = train(tmp_path / "a.txt", tmp_path / "v.txt")
    assert uncased[:9] == [*SPECIALS, "e", "t", "##e", "##t"] and uncased[10:] == ["ete"]
    cased = train(tmp_path / "a.txt", tmp_path / "v.txt", do_lower_case=False)
    assert {"Été", "été"} < set(cased)


def test_a_small_text_says_so(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("ab ab")
    assert len(train(tmp_path / "a.txt", tmp_path / "v.txt", vocab_size=50)) == 9
    assert "the text supports no more than 9 of --vocab_size 50" in capsys.readouterr().out


def test_same_text_same_bytes(tmp_path):
    """For any hash seed, number of threads and run, and however the text is divided into files."""
    for i in range(3):
        write_text(tmp_path / "text" / f"{i}.txt", i)
    files = sorted((tmp_path / "text").iterdir())
    (tmp_path / "whole.txt").write_text("\n".join(path.read_text() for path in reversed(files)))
    outputs = set()
    for run, text in enumerate((tmp_path / "text", tmp_path / "text", tmp_path / "whole.txt")):
        argv = [sys.executable, "data/train_vocab.py", "--text", text, "--vocab-size", "400"]
        argv += ["--output", tmp_path / f"{run}.vocab", "--min_frequency", "2", "--do_lower_case", "true"]
        environment = {**os.environ, "PYTHONHASHSEED": str(run), "RAYON_NUM_THREADS": str(run + 1)}
        environment.pop("PYTHONPATH", None)  # the script finds the package by itself
        subprocess.run(argv, cwd=ROOT, env=environment, check=True, capture_output=True)
        outputs.add((tmp_path / f"{run}.vocab").read_bytes())
    assert len(outputs) == 1 and outputs.pop().count(b"\n") == 400


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"text": "{tmp}/absent"}, "--text {tmp}/absent: no such file or directory"),
        ({"text": "{tmp}/blank.txt"}, "--text {tmp}/blank.txt: no text in 1 file"),
        ({"text": "{tmp}/latin.txt"}, "--text {tmp}/latin.txt: not UTF-8 text"),
        ({"vocab_size": 8}, "--vocab_size 8: the special tokens and the alphabet of this text need 12"),
        ({"vocab_size": 5}, "--vocab_size: 5 is out of range"),
        ({"min_frequency": 0}, "--min_frequency: 0 is out of range"),
        ({"character_coverage": 2}, "--character_coverage: 2.0 is out of range"),
        ({"output": "{tmp}"}, "--output {tmp}: is a directory"),
        ({"output": "{tmp}/a.txt/v.txt"}, "--output {tmp}/a.txt/v.txt: "),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, capsys, flags, message):
    (tmp_path / "a.txt").write_text("abc abd")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "v.txt").write_text("precious")
    defaults = {"text": "{tmp}/a.txt", "output": "{tmp}/v.txt"}
    argv = [f"--{name}={value}".format(tmp=tmp_path) for name, value in (defaults | flags).items()]
    with pytest.raises(SystemExit) as stopped:
        run_command(train_vocabulary, VocabularyConfig, [*argv, "--disable_progress_bar"])
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and shown.out == ""
    assert message.format(tmp=tmp_path) in shown.err and shown.err.count("\n") == 1
    assert (tmp_path / "v.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "blank.txt", "latin.txt", "v.txt"]
