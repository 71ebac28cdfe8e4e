"""Checkpoint files in a directory: write, describe, list, verify, load, prune.

Invariant: at every instant each ``ckpt_N.pt`` is a whole checkpoint, and ``ckpt_N.json`` beside it, if it exists,
describes that very file. Hence the order of a write::

    temporary file written    ckpt_7.json of an older ckpt_7.pt removed    synced, renamed    ckpt_7.json written

A ``.pt`` without description (a crash before the last step, or another program's file) is verified by the checksums
inside the format and is never pruned: it may be somebody's.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from bert.checkpoint.pieces import PATTERN, delete_pieces, joined
from bert.errors import UsageError
from bert.files import replacing

FORMAT_VERSION = 1
NAME = re.compile(r"ckpt_(0|[1-9]\d*)\.pt")


@dataclass(frozen=True)
class Description:
    """What ``ckpt_N.json`` says about ``ckpt_N.pt``."""

    step: int
    phase: int | None
    bytes: int
    sha256: str
    keep: bool  # never prune
    saved_at: float  # seconds since 1970
    pieces: list[str] = field(default_factory=list)  # names of the files that belong to it
    format_version: int = FORMAT_VERSION


def list_checkpoints(directory: str | Path) -> list[Path]:
    """Return the files named ``ckpt_STEP.pt``, the highest step first."""
    found = [path for path in Path(directory).glob("ckpt_*.pt") if NAME.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step, reverse=True)


def checkpoint_step(path: Path) -> int:
    """Return the number in a file name: 7038 for ``ckpt_7038.pt``."""
    return int(path.stem.removeprefix("ckpt_"))


def read_description(path: Path) -> Description | None:
    """Read the description of ``ckpt_N.pt``; None if it is missing or damaged."""
    try:
        return Description(**json.loads(path.with_suffix(".json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_checkpoint(path: Path, step: int, state: dict[str, Any], keep: bool, pieces: Sequence[str] = ()) -> None:
    """Write ``path`` and its description; a crash at any instant leaves the old or the new checkpoint, whole.

    ``pieces`` names the files beside it that belong to it.
    """
    description = path.with_suffix(".json")
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            hashing = _HashingFile(file)
            torch.save(state, hashing)  # type: ignore[arg-type]  # it needs only write and flush
        hashing.raise_error()
        description.unlink(missing_ok=True)
        _sync_directory(path.parent)
    _sync_directory(path.parent)
    digest = hashing.sha256.hexdigest()
    record = asdict(Description(step, state.get("phase"), hashing.size, digest, keep, time.time(), list(pieces)))
    if not pieces:
        del record["pieces"]
    with replacing(description) as temporary:
        temporary.write_bytes(json.dumps(record, indent=2).encode() + b"\n")
    _sync_directory(path.parent)


def prune(directory: Path, keep: int, current: Path) -> None:
    """Delete all but the ``keep`` checkpoints written last; ``current`` counts as the very last.

    Every checkpoint in the directory counts, whichever process wrote it. Marked checkpoints and files without
    description stay. The order is that of writing, not of steps: a run sent back by --resume_step gradually replaces
    its abandoned future.
    """
    described = [(path, read_description(path)) for path in list_checkpoints(directory)]
    ours = [(path == current, found.saved_at, path) for path, found in described if found and not found.keep]
    for _, _, path in sorted(ours)[:-keep]:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        delete_pieces(directory, path.stem)


def remove_leftovers(directory: Path) -> None:
    """Delete what killed runs left behind: temporary files, and descriptions and pieces without their checkpoint."""
    for path in directory.glob(".[0-9]*.ckpt_*"):  # named by bert.files.replacing
        path.unlink(missing_ok=True)
    for path in directory.glob("ckpt_*.json"):
        if NAME.fullmatch(f"{path.stem}.pt") and not path.with_suffix(".pt").exists():
            path.unlink(missing_ok=True)
    for stem in {path.name.split(".")[0] for path in directory.glob(f"ckpt_{PATTERN}")}:
        whole = directory / f"{stem}.pt"
        if not whole.exists():
            delete_pieces(directory, stem)
        elif described := read_description(whole):
            delete_pieces(directory, stem, described.pieces)


def find_damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint ("is empty"), or None. Reads the whole file and all of its pieces."""
    damage, description = _damage(path), read_description(path)
    for name in description.pieces if description and damage is None else ():
        damage = damage or _damage(path.with_name(name))
        if damage:
            return f"has a piece {name} that {damage}"
    return damage


def _damage(path: Path) -> str | None:
    if not path.is_file():
        return "is not a file" if path.exists() else "does not exist"
    size, description = path.stat().st_size, read_description(path)
    if size == 0:
        return "is empty"
    if description is not None and size != description.bytes:
        return f"has {size} bytes where {description.bytes} were written"
    try:
        if description is not None:
            with path.open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == description.sha256
            return None if intact else "is damaged: its SHA-256 is not the one recorded when it was written"
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                record = archive.testzip()
            return f"is damaged: the checksum of {record} in it is wrong" if record else None
        load(path)  # truncated, or from before torch 1.6, when the format had no checksums
    except (OSError, zipfile.BadZipFile, UsageError) as error:
        return f"cannot be read ({error})"
    return None


def load(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint to host memory without running code from it. Raises UsageError naming the file.

    The optimizer states of its pieces are put in their place.
    """
    state = _load(path)
    optimizer = state.get("optimizer")
    if not isinstance(optimizer, dict) or "pieces" not in optimizer:
        return state
    return joined(state, [_load(Path(path).with_name(name)) for name in optimizer["pieces"]])


def _load(path: str | Path) -> dict[str, Any]:
    try:
        # Mapped, not read: the ranks of a machine share one copy in the page cache.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises nearly anything on a foreign file, KeyError: 101 among others
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        reason = f"holds a {found[1]} besides tensors and plain values" if found else "not a checkpoint, or damaged"
        raise UsageError(f"{path}: {reason} ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UsageError(f"{path}: holds a {type(state).__name__}; expected a dictionary")
    return state


class _HashingFile:
    """Passes writes on and hashes them, which saves reading the file again.

    An error of the disk is kept for ``raise_error``: torch's C++ writer would turn it into an unrelated message.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        self.sha256.update(data)
        self.size += len(data)
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None: ...

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such operation
            raise
    finally:
        os.close(descriptor)
