"""A small vocabulary and random shards that the data tests share."""

import numpy as np
import pytest

from bert.data.formats.table import Shard, write_shard
from bert.ragged import offsets_of

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture
def vocab() -> dict[str, int]:
    """Five specials and 95 words, among them continuations, punctuation and a word in two bytes a letter."""
    words = ["the", "##s", ",", "naïve", "北"] + [f"w{i}" for i in range(90)]
    return {piece: i for i, piece in enumerate([*SPECIALS, *words])}


@pytest.fixture
def make_shard(vocab):
    """Return a function (lengths, static, seed) -> a random shard whose sequences are [CLS] A [SEP] B [SEP]."""

    def make(lengths: list[int], static: bool = True, seed: int = 0) -> Shard:
        rng = np.random.default_rng(seed)
        offsets = offsets_of(np.array(lengths, np.int64))
        tokens = rng.integers(5, len(vocab), offsets[-1]).astype(np.int32)
        starts = np.array([rng.integers(3, n - 1) for n in lengths], np.int32)
        for begin, end, second in zip(offsets[:-1], offsets[1:], starts, strict=True):
            tokens[begin] = vocab["[CLS]"]
            tokens[end - 1] = tokens[begin + second - 1] = vocab["[SEP]"]
        labels = rng.integers(0, 2, len(lengths)).astype(np.int8)
        if not static:
            return Shard(tokens, offsets, starts, labels)
        positions = [np.array([1, n - 2])[: n - 4] for n in lengths]  # one or two per sequence
        counts = np.array([len(p) for p in positions], np.int64)
        flat = np.concatenate([*positions, np.zeros(0, np.int64)]).astype(np.int32)
        originals = rng.integers(5, len(vocab), len(flat)).astype(np.int32)
        tokens[np.repeat(offsets[:-1], counts) + flat] = vocab["[MASK]"]
        return Shard(tokens, offsets, starts, labels, flat, originals, offsets_of(counts))

    return make


@pytest.fixture
def make_folder(tmp_path, make_shard, vocab):
    """Return a function (sizes, suffix, static) -> a folder of shards with these numbers of sequences."""

    def make(sizes: list[int], suffix: str = ".hdf5", static: bool = True, name: str = "shards", longest: int = 20):
        folder = tmp_path / name
        folder.mkdir()
        for index, size in enumerate(sizes):
            lengths = np.random.default_rng(index).integers(5, longest + 1, size).tolist()
            write_shard(folder / f"shard-{index}{suffix}", make_shard(lengths, static, index), longest, 5, vocab)
        return folder

    return make
