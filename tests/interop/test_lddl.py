"""Shards that lddl writes are read here, and those written here load in ``lddl.torch``.

Needs a Python that has lddl with its preprocessing, in the variable LDDL_PYTHON.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bert.data.dataset import Dataset, LoaderConfig
from bert.data.formats.table import Shard, find_shards, read_shard, write_shard
from bert.data.loader import PretrainingLoader
from bert.prepare.masks import mask_shard
from bert.prepare.pairs import PairConfig, assemble, draw_pairs
from bert.prepare.tokens import Tokens
from bert.ragged import offsets_of
from bert.tokenization import BertTokenizer

LDDL_PYTHON = os.environ.get("LDDL_PYTHON")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not LDDL_PYTHON,
        reason="needs lddl: scripts/lddl_env.sh /tmp/lddl whole; export LDDL_PYTHON=/tmp/lddl/bin/python",
    ),
]


def run_lddl(*arguments) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "bert" / "benchmark"), "PYTHONWARNINGS": "ignore"}
    command = [LDDL_PYTHON, str(Path(__file__).with_name("lddl_side.py")), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def pieces() -> list[str]:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return specials + [f"w{i}" for i in range(200)] + [f"##s{i}" for i in range(50)]


@pytest.fixture
def vocab(pieces) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(pieces)}


@pytest.fixture
def pieces_file(tmp_path, pieces) -> Path:
    path = tmp_path / "pieces.txt"
    path.write_text("\n".join(pieces) + "\n")
    return path


def expected_sequence(pair: dict, vocab: dict[str, int]) -> tuple:
    """(ids, types, masked positions, labels, next-sentence label) of a pair that lddl made."""
    a, b = pair["A"].split(" "), pair["B"].split(" ")
    ids = [vocab[piece] for piece in ["[CLS]", *a, "[SEP]", *b, "[SEP]"]]
    types = [0] * (len(a) + 2) + [1] * (len(b) + 1)
    labels = [vocab[piece] for piece in pair.get("masked_lm_labels", "").split()]
    positions = pair.get("masked_lm_positions", ())
    return tuple(ids), tuple(types), tuple(positions), tuple(labels), int(pair["is_random_next"])


def sequences_of(shard: Shard) -> list[tuple]:
    found = []
    for i in range(shard.num_samples):
        low, high = shard.offsets[i : i + 2]
        second = int(shard.segment_starts[i])
        types = (0,) * second + (1,) * (int(high - low) - second)
        positions, labels, bounds = shard.masks or ([], [], offsets_of(np.zeros(shard.num_samples)))
        mine = slice(bounds[i], bounds[i + 1])
        found.append(
            (
                tuple(shard.tokens[low:high].tolist()),
                types,
                tuple(map(int, positions[mine])),
                tuple(map(int, labels[mine])),
                int(shard.next_sentence_labels[i]),
            )
        )
    return found


@pytest.mark.parametrize("bin_size", [0, 16])
@pytest.mark.parametrize("masking", ["masking", "dynamic"])
def test_shards_of_lddl_are_read(tmp_path, vocab, pieces_file, masking, bin_size):
    folder = tmp_path / "lddl"
    folder.mkdir()
    run_lddl("write", folder, pieces_file, masking, bin_size)
    paths = find_shards(folder)
    assert len(paths) == (3 * 4 if bin_size else 3)
    pairs = json.loads((folder / "pairs.json").read_text())
    expected = Counter(expected_sequence(pair, vocab) for pair in pairs)
    assert len(pairs) > 100
    assert sum((Counter(sequences_of(read_shard(path, vocab))) for path in paths), Counter()) == expected

    dataset = Dataset.open(LoaderConfig(str(folder), 64, 10), vocab)
    assert dataset.num_samples == len(pairs)
    with PretrainingLoader(dataset, 16, seed=0, num_workers=2) as loader:
        assert sum(batch.num_sequences for batch in next(loader)) == 16


def random_shard(rng, count: int, shortest: int, longest: int, vocab, static: bool) -> Shard:
    """[CLS] A [SEP] B [SEP] of random pieces, with two masked positions where ``static``."""
    lengths = rng.integers(shortest, longest + 1, count)
    offsets = offsets_of(lengths)
    tokens = rng.integers(5, len(vocab), offsets[-1]).astype(np.int32)
    starts = rng.integers(3, lengths - 1).astype(np.int32)
    tokens[offsets[:-1]] = vocab["[CLS]"]
    tokens[offsets[1:] - 1] = tokens[offsets[:-1] + starts - 1] = vocab["[SEP]"]
    labels = rng.integers(0, 2, count).astype(np.int8)
    if not static:
        return Shard(tokens, offsets, starts, labels)
    positions = np.stack([np.ones(count), lengths - 2], 1).astype(np.int32).reshape(-1)
    originals = rng.integers(5, len(vocab), 2 * count).astype(np.int32)
    return Shard(tokens, offsets, starts, labels, positions, originals, offsets_of(np.full(count, 2)))


def loaded_sequences(folder: Path, static: bool) -> Counter:
    """Count what lddl's loader read."""
    found: Counter = Counter()
    for ids, types, labels, is_random in json.loads((folder / "sequences.json").read_text()):
        positions = [i for i, label in enumerate(labels) if label != -1]
        chosen = [labels[i] for i in positions]
        if not static:  # masked by lddl: put the originals back
            for position, label in zip(positions, chosen, strict=True):
                ids[position] = label
            positions, chosen = [], []
        found[tuple(ids), tuple(types), tuple(positions), tuple(chosen), is_random] += 1
    return found


@pytest.mark.parametrize("binned", [False, True])
@pytest.mark.parametrize("static", [True, False])
def test_shards_written_here_load_in_lddl(tmp_path, vocab, pieces_file, static, binned):
    folder = tmp_path / "ours"
    folder.mkdir()
    rng = np.random.default_rng(0)
    written = []
    for bin_id, (shortest, longest) in enumerate([(6, 16), (17, 32)] if binned else [(6, 32)]):
        for index, count in enumerate((21, 20)):  # lddl insists on one more, and drops it
            shard = random_shard(rng, count, shortest, longest, vocab, static)
            suffix = f"_{bin_id}" if binned else ""
            write_shard(folder / f"shard-{index}.parquet{suffix}", shard, 32, 10, vocab)
            written += sequences_of(shard)
    run_lddl("read", folder, pieces_file)
    found = loaded_sequences(folder, static)
    assert sum(found.values()) == len(written) - (2 if binned else 1)
    assert not found - Counter(written)


def run_here(*arguments) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "flags",
    [["--masking"], [], ["--masking", "--bin-size", 32], ["--bin-size", 64]],
    ids=["static", "dynamic", "binned", "both"],
)
def test_what_the_pipeline_prepares_loads_in_lddl(tmp_path, make_text, vocab_file, flags):
    (tmp_path / "text.txt").write_text(make_text(200))
    folder = tmp_path / "shards"
    common = [
        "--text",
        tmp_path / "text.txt",
        "--vocab-file",
        vocab_file,
        "--target-seq-length",
        128,
        "--block-size",
        "64K",
    ]
    run_here("data/preprocess.py", "--sink", folder, *common, *flags)
    run_here("data/balance.py", "--indir", folder, "--num-shards", 2, "--lddl-compatible")
    vocab = BertTokenizer(vocab_file).vocab
    written: Counter = Counter()
    for path in find_shards(folder):
        written.update(sequences_of(read_shard(path, vocab)))
    run_lddl("read", folder, vocab_file)
    found = loaded_sequences(folder, "--masking" in flags)
    bins = len({path.suffix for path in find_shards(folder)})
    assert sum(found.values()) == sum(written.values()) - bins  # lddl drops the odd one of each bin
    assert not found - written


def test_the_same_documents_give_the_same_distribution(tmp_path, vocab, pieces_file):
    """Mean length within 2 %, shares of random pairs and of masked pieces and the histogram within 0.02 of lddl's."""
    draw, length, passes = random.Random(0), 64, 40
    words = list(vocab)[5:]
    texts = [[draw.choices(words, k=draw.randint(3, 25)) for _ in range(draw.randint(1, 25))] for _ in range(60)]
    (tmp_path / "documents.json").write_text(json.dumps(texts))
    run_lddl("pairs", tmp_path, pieces_file, length, passes)
    lengths, labels, masked = np.array(json.loads((tmp_path / "drawn.json").read_text())).T

    tokenizer = BertTokenizer(pieces_file)
    counts = np.array([len(sentence) for text in texts for sentence in text])
    ids = np.array([vocab[word] for text in texts for sentence in text for word in sentence], np.int32)
    tokens = Tokens(ids, offsets_of(counts), offsets_of(np.array([len(text) for text in texts])))
    drawn = draw_pairs(tokens, PairConfig(length, duplicate_factor=passes), "seed")
    shard = assemble(drawn, ids, tokenizer.cls_id, tokenizer.sep_id)
    shard = mask_shard(shard, 0.15, length, tokenizer, np.random.default_rng(0))

    assert shard.num_samples == pytest.approx(len(lengths), rel=0.02)
    assert shard.lengths.mean() == pytest.approx(lengths.mean(), rel=0.02)
    assert shard.next_sentence_labels.mean() == pytest.approx(labels.mean(), abs=0.02)
    assert len(shard.masked_positions) / len(shard.tokens) == pytest.approx(masked.sum() / lengths.sum(), abs=0.005)
    bins = [0, 16, 32, 48, 64, 65]
    ours, theirs = (np.histogram(x, bins)[0] / len(x) for x in (shard.lengths, lengths))
    assert ours == pytest.approx(theirs, abs=0.02)


def test_the_benchmark_of_preparing_runs(tmp_path):
    small = ["--text_mb", "0.3", "--rounds", "1", "--times", "2", "--masking"]
    command = [sys.executable, "-m", "benchmarks", "preprocess", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ratio of speeds" in done.stdout


@pytest.mark.parametrize("options", [[], ["--dynamic", "--bin_size", "64"]])
def test_the_benchmark_reads_the_same_epochs(options):
    small = ["--sequences", "3000", "--rounds", "1", "--num_workers", "1", "--batch_size", "8", "--shards", "2"]
    command = [sys.executable, "-m", "benchmarks", "loader", *small, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "this suite" in done.stdout
    assert "lddl.torch" in done.stdout
