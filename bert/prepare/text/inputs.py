"""What a user names → the files to read, unpacked where they could not be read from the middle.

::

    for path in find_files(["corpus/", "more/*.txt.gz"], "--text", compressed(".txt")):
        path = unpack(path, Path("work"), "--text", show_progress=True)     # itself, if it is not compressed
"""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import lzma
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert.errors import UsageError
from bert.files import replacing
from bert.log.progress import progress

DECOMPRESSORS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COPY_BYTES = 1 << 20


def compressed(*suffixes: str) -> tuple[str, ...]:
    """Return ``suffixes``, each also followed by that of a compressed file."""
    return tuple(suffix + packed for suffix in suffixes for packed in ("", *DECOMPRESSORS))


def find_files(inputs: Sequence[str], flag_name: str, suffixes: tuple[str, ...] = (".txt",)) -> list[Path]:
    """List the files that ``inputs`` (files, patterns, directories, comma lists) name, each input's sorted.

    A directory is searched with its sub-directories for names that end in one of ``suffixes``; hidden ones are left
    out. Raises :class:`UsageError` for an input that names nothing.
    """
    parts = [part for text in inputs for part in ([text] if Path(text).exists() else text.split(",")) if part]
    files: list[Path] = []
    for part in parts:
        path = Path(part)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.name.lower().endswith(suffixes) and _is_shown(p, path))
            missing = f"no {' or '.join(suffixes)} file in this directory"
        else:
            found = [path] if path.exists() else sorted(p for p in map(Path, glob.glob(part)) if p.is_file())
            missing = "no such file or directory"
        if not found:
            raise UsageError(f"{flag_name} {part}: {missing}")
        files += found
    if not files:
        raise UsageError(f"{flag_name}: names no file")
    return files


def unpack(path: Path, work: Path, flag_name: str, show_progress: bool) -> Path:
    """Return ``path``, or its contents in a file below ``work`` where its suffix is that of a compressed file.

    The copy is made once, whole or not at all, and again where the source has changed since. Raises UsageError where
    the source is damaged or the copy cannot be written.
    """
    if path.suffix.lower() not in DECOMPRESSORS:
        return path
    source = path.stat()
    # The hash keeps files of one name apart; the name stays the file's own, wherever its folder is moved.
    key = hashlib.sha256(f"{path.absolute()} {source.st_size} {source.st_mtime_ns}".encode()).hexdigest()
    target = work / "unpacked" / key[:16] / path.stem
    if target.exists():
        return target
    try:
        shutil.rmtree(target.parent, ignore_errors=True)  # what a killed run left
        target.parent.mkdir(parents=True)
        with replacing(target) as temporary:
            _decompress(path, temporary, show_progress)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag_name} {path}: cannot unpack to {target.parent} ({reason})") from error
    return target


def _decompress(path: Path, target: Path, show_progress: bool) -> None:
    bar = progress(total=path.stat().st_size, description=f"Unpacking {path.name}", unit="B", disable=not show_progress)
    bar.unit_scale = True
    with path.open("rb") as raw, DECOMPRESSORS[path.suffix.lower()](raw) as source, target.open("wb") as out, bar:
        while data := source.read(COPY_BYTES):
            out.write(data)
            bar.update(raw.tell() - bar.n)
        bar.update(raw.tell() - bar.n)


def _is_shown(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts) and os.path.isfile(path)
