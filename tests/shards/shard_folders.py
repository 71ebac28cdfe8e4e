"""Folders of random shards as preprocessing makes them, and what they hold."""

from collections import Counter
from pathlib import Path

import numpy as np

from bert.data.formats.table import Shard, find_shards, read_shard, write_shard
from bert.data.manifest import Manifest, describe_shard, write_manifest
from bert.ragged import offsets_of
from bert.tokenization import BertTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(195))]
VOCAB = {piece: i for i, piece in enumerate(PIECES)}


def random_shard(count: int, seed: int, shortest: int = 6, longest: int = 32, static: bool = True) -> Shard:
    """[CLS] A [SEP] B [SEP] of random pieces; where ``static``, 15 % masked, of which 80 % are [MASK]."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, count)
    offsets = offsets_of(lengths)
    tokens = rng.integers(5, len(VOCAB), offsets[-1]).astype(np.int32)
    starts = rng.integers(3, lengths - 1).astype(np.int32)
    tokens[offsets[:-1]] = VOCAB["[CLS]"]
    tokens[offsets[1:] - 1] = tokens[offsets[:-1] + starts - 1] = VOCAB["[SEP]"]
    labels = rng.integers(0, 2, count).astype(np.int8)
    if not static:
        return Shard(tokens, offsets, starts, labels)
    chosen, originals = [], []
    for begin, length, start in zip(offsets[:-1], lengths, starts, strict=True):
        ordinary = [place for place in range(1, length - 1) if place != start - 1]
        places = np.sort(rng.choice(ordinary, max(1, round(0.15 * length)), replace=False))
        chosen.append(places)
        originals.append(tokens[begin + places])
        for place in begin + places:
            fate = rng.random()
            if fate < 0.9:
                tokens[place] = VOCAB["[MASK]"] if fate < 0.8 else rng.integers(5, len(VOCAB))
    counts = np.array([len(places) for places in chosen], np.int64)
    nothing = np.zeros(0, np.int32)
    return Shard(
        tokens,
        offsets,
        starts,
        labels,
        np.concatenate([*chosen, nothing]).astype(np.int32),
        np.concatenate([*originals, nothing]).astype(np.int32),
        offsets_of(counts),
    )


def make_folder(folder: Path, sizes: dict[str, int], static: bool = True, listed: bool = True, **settings) -> Path:
    """Write shards of these names and numbers of samples; in bin b of 16 the lengths are 16 b + 1 to 16 b + 16."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate(sizes.items()):
        bin_id = int(name.rpartition("_")[2]) if ".parquet_" in name else None
        shortest, longest = (6, 32) if bin_id is None else (max(6, 16 * bin_id + 1), 16 * bin_id + 16)
        write_shard(folder / name, random_shard(size, seed, shortest, longest, static), 48, 8, VOCAB)
    if listed:
        list_shards(folder, masking="static" if static else "dynamic", **settings)
    return folder


def list_shards(folder: Path, **settings) -> None:
    """Write a manifest of the shards that are there."""
    known = {
        "vocab_sha256": tokenizer_of(folder.parent).fingerprint,
        "vocab_size": len(VOCAB),
        "do_lower_case": True,
        "max_seq_length": 48,
        "max_predictions_per_seq": 8,
        "masked_lm_ratio": 0.15,
        "bin_size": 16 if any(".parquet_" in path.name for path in find_shards(folder)) else None,
    }
    shards = {path.name: describe_shard(path) for path in find_shards(folder)}
    write_manifest(folder, Manifest(known | settings, shards))


def tokenizer_of(folder: Path) -> BertTokenizer:
    """Write the vocabulary file and read it."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return BertTokenizer(path)


def rows_of(folder: Path) -> Counter:
    """Return every sequence of a folder with its bin, and how often it occurs."""
    found: Counter = Counter()
    for path in find_shards(folder):
        shard = read_shard(path, VOCAB)
        bounds = shard.masks[2] if shard.masks else offsets_of(np.zeros(shard.num_samples))
        positions, labels, _ = shard.masks or (np.zeros(0), np.zeros(0), None)
        for i in range(shard.num_samples):
            mine = slice(bounds[i], bounds[i + 1])
            row = (
                path.suffix.partition("_")[2],
                tuple(shard.tokens[shard.offsets[i] : shard.offsets[i + 1]].tolist()),
                int(shard.segment_starts[i]),
                int(shard.next_sentence_labels[i]),
                tuple(positions[mine].tolist()),
                tuple(labels[mine].tolist()),
            )
            found[row] += 1
    return found


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
