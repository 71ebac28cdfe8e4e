"""Encoded data sets kept between runs, under a key of everything they were made from.

A cache is a ``.npz`` file of plain arrays, so reading one executes no code, whoever wrote it. A cache that is damaged,
or made from anything else, is rebuilt with a notice; if its folder cannot be written, the run continues with a notice::

    key = features_key(train_file, tokenizer, max_seq_length=384, doc_stride=128)
    path = cache_path(train_file, key)                      # train-v1.1.json.5f1c9d02ab34.npz
    encoded = load_or_make(path, key, lambda: EncodedSet(encode(...), {"examples": len(examples)}))
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bert.errors import naming_os_errors
from bert.files import replacing
from bert.sequences import Sequences
from bert.tokenization import BertTokenizer

FORMAT = 2  # raise it when the same arguments give other features
LABEL = "label."


@dataclass(frozen=True)
class EncodedSet:
    """Inputs of a task, and numbers about them such as how many examples they came from."""

    sequences: Sequences
    facts: dict[str, int] = field(default_factory=dict)


def features_key(data_file: str | Path, tokenizer: BertTokenizer, **arguments: Any) -> str:
    """Return the SHA-256, in hexadecimal, of the file's content, the tokenizer and ``arguments`` (plain values)."""
    with naming_os_errors(str(data_file)), open(data_file, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {"format": FORMAT, "files": [content], "tokenizer": tokenizer.state_dict(), "arguments": arguments}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cache_path(data_file: str | Path, key: str, cache_dir: str | Path | None = None) -> Path:
    """Return the cache file of ``data_file``: in ``cache_dir``, or beside the data."""
    data_file = Path(data_file)
    return Path(cache_dir or data_file.parent) / f"{data_file.name}.{key[:12]}.npz"


def load_or_make(path: Path, key: str, make: Callable[[], EncodedSet]) -> EncodedSet:
    """Return the set cached at ``path`` under ``key``, or make it and cache it."""
    if path.exists():
        try:
            return load(path, key)
        except Exception as error:  # numpy and zipfile raise ten kinds for a damaged or foreign file
            print(f"{path}: rebuilding the cache ({str(error) or type(error).__name__})", file=sys.stderr)
    encoded = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, key, encoded)
    except OSError as error:
        print(f"{path}: cannot write the cache ({error.strerror or error})", file=sys.stderr)
    return encoded


def save(path: Path, key: str, encoded: EncodedSet) -> None:
    """Write ``encoded``, whole or not at all; raises OSError."""
    sequences = encoded.sequences
    arrays = {
        "key": np.array(key),
        "facts": np.array(json.dumps(encoded.facts)),
        "tokens": sequences.tokens,
        "offsets": sequences.offsets,
        "segment_starts": sequences.segment_starts,
        **{LABEL + name: values for name, values in sequences.labels.items()},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, key: str) -> EncodedSet:
    """Read what :func:`save` wrote; raises an Exception of some kind for anything else."""
    with np.load(path, allow_pickle=False) as arrays:
        if arrays["key"].item() != key:
            raise ValueError("made from other data, tokenizer or arguments")
        facts = {str(name): int(value) for name, value in json.loads(arrays["facts"].item()).items()}
        labels = {name.removeprefix(LABEL): arrays[name] for name in arrays.files if name.startswith(LABEL)}
        sequences = Sequences(arrays["tokens"], arrays["offsets"], arrays["segment_starts"], labels)
    if not _is_consistent(sequences):
        raise ValueError("its arrays do not fit together")
    return EncodedSet(sequences, facts)


def _is_consistent(sequences: Sequences) -> bool:
    tokens, offsets, starts = sequences.tokens, sequences.offsets, sequences.segment_starts
    return (
        (tokens.dtype, offsets.dtype, starts.dtype) == (np.int32, np.int64, np.int32)
        and tokens.shape == (offsets[-1],)
        and offsets.shape == (len(starts) + 1,)
        and offsets[0] == 0
        and bool((sequences.lengths >= 1).all())
        and bool(((starts >= 0) & (starts <= sequences.lengths)).all())
        and all(values.shape == starts.shape for values in sequences.labels.values())
    )
