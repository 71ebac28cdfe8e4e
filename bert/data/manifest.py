"""``manifest.json``: how the shards beside it were made, and the size, number of samples and SHA-256 of each.

``{"settings": {"vocab_sha256": ..., "do_lower_case": true, ...}, "shards": {"shard-0.parquet": {"sha256": ...,
"num_samples": 42315, "bytes": 9183204}}}``. Without one nothing is known and nothing is checked::

    write_manifest(folder, Manifest(settings, {path.name: describe_shard(path) for path in paths}))
    check_manifests(paths, tokenizer)       # refuses shards of another vocabulary
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.data.formats.table import inspect_shard, writing
from bert.errors import UsageError
from bert.tokenization import BertTokenizer, Stated, expect_same

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ShardEntry:
    """A shard as it was when it was written."""

    sha256: str
    num_samples: int
    bytes: int


@dataclass
class Manifest:
    """What is known about the shards of a folder; any of the settings may be missing."""

    settings: dict[str, Any]
    shards: dict[str, ShardEntry]  # by file name

    def missing(self, folder: Path) -> list[str]:
        """Return the shards that are listed but not in ``folder``."""
        return [name for name in self.shards if not (folder / name).is_file()]


def describe_shard(path: Path) -> ShardEntry:
    """Count and hash a shard; raises UsageError naming it if it cannot be read."""
    samples = inspect_shard(path).num_samples
    try:
        with path.open("rb") as file:
            return ShardEntry(hashlib.file_digest(file, "sha256").hexdigest(), samples, path.stat().st_size)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def read_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest, None where there is none; raises UsageError where the file is something else."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        manifest = Manifest(dict(found["settings"]), {n: ShardEntry(**e) for n, e in found["shards"].items()})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path}: not a manifest of shards ({type(error).__name__}: {error})") from error
    for name, entry in manifest.shards.items():
        kinds = [type(value) for value in dataclasses.astuple(entry)]
        if Path(name).name != name or kinds != [str, int, int]:
            raise UsageError(
                f"{path}: not a manifest of shards ({name!r}: expected a file name, sha256 and two numbers)"
            )
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace a folder's manifest."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True)
    with writing(folder / MANIFEST) as temporary:
        temporary.write_text(text + "\n", encoding="utf8")


def add_to_manifest(path: Path, settings: dict[str, Any]) -> None:
    """List a new shard in its folder's manifest, which other processes may be writing too."""
    entry, folder = describe_shard(path), os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        manifest = read_manifest(path.parent) or Manifest({}, {})
        manifest.settings |= settings
        manifest.shards[path.name] = entry
        write_manifest(path.parent, manifest)
    finally:
        os.close(folder)


def check_manifests(paths: Iterable[Path], tokenizer: BertTokenizer) -> None:
    """Raise UsageError where a manifest beside ``paths`` names another tokenizer, or missing shards.

    data/verify.py finds out whether the shards themselves have changed.
    """
    for folder in sorted({path.parent for path in paths}):
        manifest = read_manifest(folder)
        if manifest is not None:
            check_tokenizer(folder, manifest, tokenizer)
            missing = manifest.missing(folder)
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise UsageError(f"{folder}: no {missing[0]}{more}, which {MANIFEST} lists")


def check_tokenizer(folder: Path, manifest: Manifest, tokenizer: BertTokenizer) -> None:
    """Raise UsageError where the shards were made with another tokenizer."""
    expect_same(tokenizer, f"--vocab_file {tokenizer.source}", manifest.settings, f"the manifest of {folder}")


def stated_by(paths: Iterable[Path]) -> list[Stated]:
    """Return what the manifests beside ``paths`` say of the tokenizer."""
    manifests = ((folder, read_manifest(folder)) for folder in sorted({path.parent for path in paths}))
    return [Stated(f"the manifest of {folder}", found.settings) for folder, found in manifests if found is not None]
