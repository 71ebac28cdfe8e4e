import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from shards.shard_folders import (  # pyright: ignore[reportMissingImports]
    PIECES,
    VOCAB,
    list_shards,
    make_folder,
    random_shard,
)

from bert.data.formats.table import SWAP, Shard, read_shard, write_shard
from bert.data.shard import concatenate, select
from bert.errors import UsageError
from bert.shards import checks
from bert.shards import verify as module
from bert.shards.balance import BalanceConfig, balance
from bert.shards.verify import VerifyConfig, verify

ROOT = Path(__file__).parents[2]
SIZES = {f"shard-{i}.{{}}": 60 for i in range(4)}


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_folder(tmp_path / "shards", {name.format("parquet"): size for name, size in SIZES.items()})


@pytest.fixture
def hdf5(tmp_path) -> Path:
    return make_folder(tmp_path / "shards", {name.format("hdf5"): size for name, size in SIZES.items()})


@pytest.fixture
def check(capsys) -> Callable[..., list[str]]:
    """Return a function that verifies a folder and returns the report; the exit code must agree with its last line."""

    def run(folder: Path, vocab: bool = True, **options) -> list[str]:
        vocab_file = str(folder.parent / "vocab.txt") if vocab else None
        is_well = verify(VerifyConfig(str(folder), vocab_file, num_workers=1, disable_progress_bar=True, **options))
        lines = capsys.readouterr().out.splitlines()
        assert is_well == (lines[-1] == "all is well")
        return lines

    return run


def problems(lines: list[str]) -> list[str]:
    """Return the lines after the table; their number stands in the last one."""
    if lines[-1] == "all is well":
        return []
    count = int(lines[-1].split()[0])
    return lines[-1 - count : -1]


def replaced(path: Path, shard: Shard) -> None:
    """Write a shard anew and list it, so that only its content can be wrong."""
    write_shard(path, shard, 48, 8, VOCAB)
    settings = json.loads((path.parent / "manifest.json").read_text())["settings"]
    list_shards(path.parent, **settings)


@pytest.mark.parametrize("suffix", ["parquet", "hdf5", "tfrecord"])
@pytest.mark.parametrize("static", [True, False])
def test_good_shards_are_well(tmp_path, check, suffix, static):
    folder = make_folder(tmp_path / "shards", {name.format(suffix): n for name, n in SIZES.items()}, static=static)
    report = {line[:16].strip(): line[16:] for line in check(folder)}
    assert report["shards"] == "4"
    assert report["samples"].startswith("240, ")
    assert report["sizes"] == "differ by 0  (expected: at most 1)"
    assert report["masks"].startswith("static" if static else "dynamic")
    assert report["next sentence"].endswith("(expected: 35% to 65%)")
    allowed = "1.00%" if static else "20.00%"
    assert report["duplicates"] == f"0.00% of sequences  (expected: at most {allowed})"
    if static:
        shards = [read_shard(path, VOCAB) for path in folder.glob("shard-*")]
        masked, tokens = sum(len(s.masked_labels) for s in shards), sum(len(s.tokens) for s in shards)
        assert report["masked"].startswith(f"{masked / tokens:.1%} of tokens, 100.0% of what the ratio gives")
        as_mask = sum((s.tokens == VOCAB["[MASK]"]).sum() for s in shards)
        assert report["[MASK]"] == f"{as_mask / masked:.1%} of masked  (expected: 75% to 85%)"


def test_balanced_bins_are_well(tmp_path, check):
    folder = make_folder(tmp_path / "shards", {f"part.{i}.parquet_{b}": 30 + i for i in range(2) for b in range(3)})
    lines = check(folder)
    assert lines[0] == "shards          6 in 3 bins"
    assert lines[2] == "sizes           differ by 1"
    balance(BalanceConfig(str(folder), 4, num_workers=1, disable_progress_bar=True))
    assert problems(check(folder)) == []


def test_without_a_manifest_hashes_are_unknown(tmp_path, check):
    folder = make_folder(tmp_path / "shards", {"a.parquet": 60}, listed=False)
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    assert "SHA-256         unknown for 1 of 1 shards, which no manifest.json lists" in check(folder)
    with pytest.raises(UsageError, match=r"--vocab_file: expected one, since .*a.parquet holds text"):
        check(folder, vocab=False)


def test_without_a_vocabulary_the_pieces_are_not_read(folder, check):
    lines = check(folder, vocab=False)
    assert "sequences       not read in 4 of 4 shards: Parquet needs --vocab_file" in lines
    assert not any(line.startswith("masked") for line in lines)


def test_hdf5_needs_no_vocabulary(hdf5, check):
    names = {line[:16].strip() for line in check(hdf5, vocab=False)}
    assert "masked" in names
    assert "[MASK]" not in names


def truncate(folder: Path) -> str:
    path = folder / "shard-2.parquet"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    return rf"shard-2.parquet: {size // 2} bytes, manifest.json says {size}\nshard-2.parquet: unreadable shard .*"


def flip(folder: Path) -> str:
    path = folder / "shard-2.parquet"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    return (
        r"shard-2.parquet: SHA-256 [0-9a-f]{12}\.\.\., manifest.json says [0-9a-f]{12}\.\.\.: the content has changed"
        r"(\nshard-2.parquet: unreadable shard .*)?"  # as the place of the byte may be
    )


def miscount(folder: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"]["shard-2.parquet"]["num_samples"] = 61
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return r"shard-2.parquet: 60 samples, manifest.json says 61"


def lose(folder: Path) -> str:
    (folder / "shard-2.parquet").unlink()
    return r"shard-2.parquet: missing, manifest.json lists it"


def lose_all(folder: Path) -> str:
    for path in folder.glob("*.parquet"):
        path.unlink()
    return r"\n".join(rf"shard-{i}.parquet: missing, manifest.json lists it" for i in range(4))


def add(folder: Path) -> str:
    write_shard(folder / "shard-4.parquet", random_shard(60, seed=9), 48, 8, VOCAB)
    return r"shard-4.parquet: manifest.json does not list it"


def double(folder: Path) -> str:
    shutil.copy(folder / "shard-1.parquet", folder / "shard-4.parquet")
    list_shards(folder, masking="static")
    doubled = [rf"shard-{i}.parquet: 60 of its 60 sequences occur more than once" for i in (1, 4)]
    return "\n".join([*doubled, "all shards: 20.00% of the sequences are copies of another"])


def rename_foreign(folder: Path) -> str:
    (folder / "shard-2.parquet").write_text("id,text\n" * 100)
    return r"shard-2.parquet: 800 bytes, manifest.json says \d+\nshard-2.parquet: unreadable shard .*"


def know_another_word(folder: Path) -> str:
    (folder.parent / "vocab.txt").write_text("\n".join([*PIECES[:-1], "other"]) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["settings"]["vocab_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return "\n".join([rf"shard-{i}.parquet: word piece 'w194' is not in --vocab_file \(200 pieces\)" for i in range(4)])


def label_all(folder: Path) -> str:
    shard = random_shard(60, seed=2)
    replaced(folder / "shard-2.parquet", dataclasses.replace(shard, next_sentence_labels=np.ones(60, np.int8)))
    return r"shard-2.parquet: 100.0% of the next sentences are random"


def unmask_one(folder: Path) -> str:
    replaced(folder / "shard-2.parquet", random_shard(60, seed=2, static=False))
    return r"shard-2.parquet: sequences are not masked, so masked while loading, those of most shards are masked"


def grow(folder: Path) -> str:
    replaced(folder / "shard-2.parquet", random_shard(63, seed=2))
    return r"shard-2.parquet: 63 samples, shard-0.parquet has 60: run data/balance.py"


def spoil_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text("{}")
    return r"manifest.json: not a manifest of shards .*"


DAMAGE = [
    truncate,
    flip,
    miscount,
    lose,
    lose_all,
    add,
    double,
    rename_foreign,
    know_another_word,
    label_all,
    unmask_one,
    grow,
    spoil_manifest,
]


@pytest.mark.parametrize("harm", DAMAGE, ids=lambda harm: harm.__name__)
def test_damage_is_named_with_its_shard(folder, check, harm):
    expected = harm(folder)
    found = problems(check(folder))
    assert re.fullmatch(expected, "\n".join(found)), found


def change(shard: Shard, **arrays) -> Shard:
    """Return a copy with values put at places: ``tokens={17: 3}``."""
    changed = {}
    for name, values in arrays.items():
        changed[name] = getattr(shard, name).copy()
        for place, value in values.items():
            changed[name][place] = value
    return dataclasses.replace(shard, **changed)


@pytest.mark.parametrize("vocab", [True, False])
def test_ids_outside_the_vocabulary_are_named(hdf5, check, vocab):
    with h5py.File(hdf5 / "shard-1.hdf5", "r+") as file:
        file["input_ids"][7, 1] = 200
    list_shards(hdf5, masking="static")
    (problem,) = problems(check(hdf5, vocab))
    assert problem.startswith("shard-1.hdf5: sequence 7 has token id 200, outside the vocabulary of 200 pieces")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masked_lm_positions": [47]}, "sequence 7 has .* tokens and a masked position 47"),
        ({"input_ids": [5]}, r"sequence 7 does not begin with \[CLS\]"),
        (
            {"input_mask": [0] * 48, "masked_lm_positions": [0]},
            r"sequence 7 is shorter than \[CLS\], a token and \[SEP\]",
        ),
        ({"input_mask": [1, 0, 1]}, r"input_mask of row 7 is not one run of ones"),
        ({"masked_lm_ids": [-3]}, r"sequence 7 has masked label -3, outside the vocabulary"),
    ],
)
def test_malformed_sequences_are_named(hdf5, check, changes, message):
    with h5py.File(hdf5 / "shard-1.hdf5", "r+") as file:
        for table, values in changes.items():
            file[table][7, : len(values)] = values
    list_shards(hdf5, masking="static")
    (problem,) = problems(check(hdf5))
    assert re.match(f"shard-1.hdf5: {message}", problem), problem


def test_separators_are_looked_for_where_segments_end(hdf5, check):
    shard = read_shard(hdf5 / "shard-1.hdf5")
    last, middle = int(shard.offsets[8]) - 1, int(shard.offsets[7] + shard.segment_starts[7]) - 1
    replaced(hdf5 / "shard-1.hdf5", change(shard, tokens={last: 9}))
    assert problems(check(hdf5)) == ["shard-1.hdf5: sequence 7 does not end with [SEP]"]
    replaced(hdf5 / "shard-1.hdf5", change(shard, tokens={middle: 9}))
    assert problems(check(hdf5)) == ["shard-1.hdf5: sequence 7 has no [SEP] before its second segment"]


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_special_tokens_are_never_masked(hdf5, check, where):
    """Position 0 ends a row of HDF5, so a masked [CLS] can only come first in TFRecord or Parquet."""
    folder = hdf5 if where != "first" else make_folder(hdf5.parent / "parquet", {"a.parquet": 60, "b.parquet": 60})
    path = sorted(folder.glob("[!.m]*"))[1]
    shard = read_shard(path, VOCAB)
    place = {"first": 0, "middle": int(shard.segment_starts[7]) - 1, "last": int(shard.lengths[7]) - 1}[where]
    replaced(path, change(shard, masked_positions={int(shard.masked_offsets[7]): place}))
    assert problems(check(folder)) == [f"{path.name}: sequence 7 has a masked [CLS] or [SEP]"]


def test_limits_are_the_manifests_or_the_flags(folder, check):
    longest = max(int(read_shard(path, VOCAB).lengths.max()) for path in folder.glob("*.parquet"))
    assert problems(check(folder, max_seq_length=longest)) == []
    found = problems(check(folder, max_seq_length=longest - 1))
    assert found
    assert all(f": sequences of up to {longest} tokens, --max_seq_length is {longest - 1}" in line for line in found)
    assert problems(check(folder, max_predictions_per_seq=4))[0].startswith("shard-0.parquet: up to 5 masked tokens")
    list_shards(folder, masking="static", max_seq_length=20)
    assert len(problems(check(folder))) == 4


def test_lengths_outside_their_bin_are_named(tmp_path, check):
    folder = make_folder(tmp_path / "shards", {f"part.0.parquet_{b}": 60 for b in range(3)})
    path = folder / "part.0.parquet_1"
    wrong = random_shard(2, seed=5, shortest=33, longest=33)
    replaced(path, concatenate([read_shard(path, VOCAB), wrong]))
    expected = "part.0.parquet_1: sequence 60 with 33 tokens is not of a length that belongs in bin 1 (bin_size 16)"
    assert problems(check(folder)) == [f"{expected} (and 1 more)"]
    assert problems(check(folder, bin_size=17)) != []


def test_shares_of_all_shards_are_compared(hdf5, check):
    assert problems(check(hdf5, masked_lm_ratio=0.3)) == [
        line for line in problems(check(hdf5, masked_lm_ratio=0.3)) if line.startswith("all shards: masked: ")
    ]
    assert len(problems(check(hdf5, masked_lm_ratio=0.3))) == 1
    for path in sorted(hdf5.glob("*.hdf5")):
        shard = read_shard(path)
        places = np.repeat(shard.offsets[:-1], np.diff(shard.masked_offsets)) + shard.masked_positions
        tokens = shard.tokens.copy()
        tokens[places] = VOCAB["[MASK]"]
        ones = np.ones(shard.num_samples, np.int8)
        replaced(path, dataclasses.replace(shard, tokens=tokens, next_sentence_labels=ones))
    assert problems(check(hdf5)) == [
        "all shards: 100.0% of the next sentences are random",
        "all shards: 100.0% of the masked tokens became [MASK]",
    ]


def test_copies_within_a_shard_count(folder, check):
    shard = random_shard(60, seed=2)
    order = np.concatenate([np.arange(50), np.arange(10)])
    replaced(folder / "shard-2.parquet", select(shard, order))
    assert problems(check(folder)) == ["all shards: 4.17% of the sequences are copies of another"]
    assert problems(check(folder, max_duplicates=0.05)) == []


def test_hashes_tell_sequences_apart_by_each_of_their_parts():
    shard = random_shard(50, seed=1)
    whole = checks._hash_rows(shard, 0)
    assert len(set(whole.tolist())) == 50
    changes = [
        {"tokens": {int(shard.offsets[7]) + 1: 9}},
        {"segment_starts": {7: 2}},
        {"next_sentence_labels": {7: 1 - shard.next_sentence_labels[7]}},
        {"masked_positions": {int(shard.masked_offsets[7]): 40}},
        {"masked_labels": {int(shard.masked_offsets[7]): 40}},
    ]
    for each in changes:
        different = checks._hash_rows(change(shard, **each), 0) != whole
        assert np.flatnonzero(different).tolist() == [7], each
    swapped = shard.tokens.copy()
    begin = int(shard.offsets[7])
    swapped[[begin + 1, begin + 2]] = [11, 12]
    one = checks._hash_rows(dataclasses.replace(shard, tokens=swapped), 0)[7]
    swapped[[begin + 1, begin + 2]] = [12, 11]
    assert checks._hash_rows(dataclasses.replace(shard, tokens=swapped), 0)[7] != one


def test_a_shard_read_in_parts_gives_the_same_report(hdf5, check, monkeypatch):
    whole = check(hdf5)
    monkeypatch.setattr(checks, "ROWS_AT_ONCE", 17)
    monkeypatch.setattr(checks, "ROWS_HASHED_AT_ONCE", 5)
    assert check(hdf5) == whole


def test_an_interrupted_balance_is_completed(folder, check):
    content = (folder / "shard-3.parquet").read_bytes()
    (folder / ".balance/new").mkdir(parents=True)
    (folder / "shard-3.parquet").rename(folder / ".balance/new/shard-3.parquet")
    swap = {"run": "0", "source": "", "target": "", "removals": [], "request": {}}
    (folder / SWAP).write_text(json.dumps(swap))
    assert check(folder)[0].endswith("completed an interrupted data/balance.py")
    assert (folder / "shard-3.parquet").read_bytes() == content
    assert not (folder / ".balance").exists()


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "data/verify.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_exit_codes(folder):
    vocab = ["--vocab-file", folder.parent / "vocab.txt"]
    done = run(folder, *vocab, "--num-workers", "2")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all is well"), done.stderr
    assert "Verifying" in done.stderr
    expected = add(folder)
    done = run("--indir", folder, *vocab, "--num-workers", "1")
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (1, [expected, "1 problem"])
    (folder.parent / "vocab.txt").write_text("\n".join([*PIECES, "more"]) + "\n")
    done = run(folder, *vocab)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not that of the manifest of" in done.stderr
    assert run(folder.parent / "nowhere").returncode == 2


def test_help_states_the_tolerances():
    text = " ".join(run("--help").stdout.split())

    def span(share: float, tolerance: float) -> str:
        return f"{100 * (share - tolerance):.0f} to {100 * (share + tolerance):.0f} %"

    assert f"{span(module.RANDOM_SHARE, module.RANDOM_TOLERANCE)} of the next sentences random" in text
    assert f"within {100 * module.MASKED_TOLERANCE:.0f} % of what masked_lm_ratio gives" in text
    assert f"{span(module.AS_MASK_SHARE, module.AS_MASK_TOLERANCE)} of them [MASK]" in text
    assert module.DEVIATIONS == 4 and "another four standard deviations" in text
    assert module.DOUBLED == 0.5 and "copies by more than half" in text
    assert "at most 1 % copies (20 % unmasked)" in text
    assert "--max_duplicates" in text
