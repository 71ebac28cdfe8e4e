"""Encoded inputs kept from run to run, under a key of all that they were made from.

A cache is a ``.npz`` file of plain arrays: reading it executes nothing, whoever wrote it. One that is damaged, or made
from anything else, is made again with a notice, and a folder that cannot be written costs a notice and nothing more::

    key = features_key([train_file], tokenizer, max_seq_length=384, doc_stride=128)
    path = cache_path(train_file, key)                      # train-v1.1.json.5f1c9d02ab34.npz
    made = load_or_make(path, key, lambda: Features(encode(...), {"examples": len(examples)}))
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bert.errors import UsageError
from bert.files import replacing
from bert.sequences import Sequences
from bert.tokenization import BertTokenizer

FORMAT = 1  # to be raised when the same arguments give other features
LABEL = "label."

# Whatever numpy and zipfile raise for a file that is not what was written.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Features:
    """Inputs of a task and numbers about them, such as how many examples they came from."""

    sequences: Sequences
    facts: dict[str, int] = field(default_factory=dict)


def features_key(files: Iterable[str | Path], tokenizer: BertTokenizer, **arguments: Any) -> str:
    """Return the SHA-256 of the files' content, the tokenizer and ``arguments`` (plain values), in hexadecimal."""
    parts = {
        "format": FORMAT,
        "files": [_sha256(Path(file)) for file in files],
        "tokenizer": tokenizer.state_dict(),
        "arguments": arguments,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cache_path(data_file: str | Path, key: str, cache_dir: str | Path | None = None) -> Path:
    """Return where the features of ``data_file`` are kept: beside it, or in ``cache_dir``."""
    data_file = Path(data_file)
    return Path(cache_dir or data_file.parent) / f"{data_file.name}.{key[:12]}.npz"


def load_or_make(path: Path | None, key: str, make: Callable[[], Features]) -> Features:
    """Return the features kept at ``path`` under ``key``, or make and keep them; None keeps nothing."""
    if path is None:
        return make()
    if path.exists():
        try:
            return load(path, key)
        except UNREADABLE as error:
            print(f"{path}: not used and made again ({str(error) or type(error).__name__})", file=sys.stderr)
    features = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, key, features)
    except OSError as error:
        print(f"{path}: the features are not kept ({error.strerror or error})", file=sys.stderr)
    return features


def save(path: Path, key: str, features: Features) -> None:
    """Write ``features``, whole or not at all; raises OSError."""
    sequences = features.sequences
    arrays = {
        "key": np.array(key),
        "facts": np.array(json.dumps(features.facts)),
        "tokens": sequences.tokens,
        "offsets": sequences.offsets,
        "segment_starts": sequences.segment_starts,
        **{LABEL + name: values for name, values in sequences.labels.items()},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, key: str) -> Features:
    """Read what :func:`save` wrote; raises one of ``UNREADABLE`` for anything else."""
    with np.load(path, allow_pickle=False) as arrays:
        if arrays["key"].item() != key:
            raise ValueError("made from other data, tokenizer or arguments")
        facts = {str(name): int(value) for name, value in json.loads(arrays["facts"].item()).items()}
        labels = {name.removeprefix(LABEL): arrays[name] for name in arrays.files if name.startswith(LABEL)}
        sequences = Sequences(arrays["tokens"], arrays["offsets"], arrays["segment_starts"], labels)
    if not _is_sound(sequences):
        raise ValueError("its arrays do not fit one another")
    return Features(sequences, facts)


def _is_sound(sequences: Sequences) -> bool:
    tokens, offsets, starts = sequences.tokens, sequences.offsets, sequences.segment_starts
    kinds = [array.dtype == kind for array, kind in ((tokens, np.int32), (offsets, np.int64), (starts, np.int32))]
    return (
        all(kinds)
        and tokens.shape == (offsets[-1],)
        and offsets.shape == (len(starts) + 1,)
        and offsets[0] == 0
        and bool((sequences.lengths >= 1).all())
        and bool(((starts >= 0) & (starts <= sequences.lengths)).all())
        and all(values.shape == starts.shape for values in sequences.labels.values())
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
