"""What the user names on the command line → the files to read, compressed ones unpacked.

::

    for path in find_files(["corpus/", "more/*.txt.gz"], "--text", compressed(".txt")):
        path = unpack(path, Path("work"), "--text", show_progress=True)     # itself, if it is not compressed
"""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import io
import lzma
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.utils import CallbackIOWrapper

from bert.errors import UsageError, naming_os_errors
from bert.files import files_below, replacing, warn
from bert.log.progress import progress
from bert.prepare.text.characters import LONE, MOST
from bert.prepare.text.extracted import FILE_NAME

DECOMPRESSORS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COPY_BYTES = 1 << 20
LINES_AT_ONCE = 4096  # enough to keep all cores busy with tokenising, few enough to show progress


def compressed(*suffixes: str) -> tuple[str, ...]:
    """Return ``suffixes``, each alone and followed by the suffix of every kind of compressed file."""
    return tuple(suffix + packed for suffix in suffixes for packed in ("", *DECOMPRESSORS))


def find_files(inputs: Sequence[str], flag_name: str, suffixes: tuple[str, ...] = (".txt",)) -> list[Path]:
    """List the files that ``inputs`` (files, patterns, directories, comma lists) name, sorted within each input.

    Directories are searched recursively for names that end in one of ``suffixes`` or, if there are none, that
    WikiExtractor gives; hidden ones are left out. Raises :class:`UsageError` for an input that names nothing.
    """
    parts = [part for text in inputs for part in ([text] if Path(text).exists() else text.split(",")) if part]
    files: list[Path] = []

    def is_named(name: str) -> bool:
        return name.lower().endswith(suffixes) and not FILE_NAME.fullmatch(name)

    for part in parts:
        path = Path(part)
        if path.is_dir():
            found = files_below(path, is_named, lambda line: warn(f"{flag_name} {line}"))
            found = found or files_below(path, lambda name: FILE_NAME.fullmatch(name) is not None, lambda line: None)
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


def prepare_output(path: Path, flag_name: str) -> None:
    """Make the directory of ``path``; raises :class:`UsageError` if no file can be written there."""
    if path.is_dir():
        raise UsageError(f"{flag_name} {path}: is a directory, expected a file")
    with naming_os_errors(f"{flag_name} {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)


def read_lines(path: Path, bar: Any, invalid: Counter[str], flag_name: str = "--input_file") -> Iterator[list[str]]:
    """Yield the stripped lines of a UTF-8 file, some thousands at a time, and update ``bar`` by bytes read.

    Invalid bytes are passed over and counted in ``invalid``. Raises UsageError where they are many.
    """
    with (
        naming_os_errors(f"{flag_name} {path}"),
        path.open("rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape") as file,
    ):
        seen = 0
        while lines := [line.strip() for line in islice(file, LINES_AT_ONCE)]:
            text, count = LONE.subn("", "\n".join(lines))
            if count:
                invalid[str(path)] += count
                lines = text.split("\n")
                if invalid[str(path)] > MOST * raw.tell():
                    raise UsageError(f"{flag_name} {path}: not UTF-8 text")
            yield lines
            bar.update(raw.tell() - seen)
            seen = raw.tell()


def unpack(path: Path, work: Path, flag_name: str, show_progress: bool) -> Path:
    """Return ``path`` or, if its suffix is that of a compressed file, an unpacked copy below ``work``.

    The copy is written atomically, once for each version of the source. Raises UsageError where the source is damaged
    or the copy cannot be written.
    """
    if path.suffix.lower() not in DECOMPRESSORS:
        return path
    source = path.stat()
    # The hash keeps files with the same name apart.
    key = hashlib.sha256(f"{path.absolute()} {source.st_size} {source.st_mtime_ns}".encode()).hexdigest()
    target = work / "unpacked" / key[:16] / path.stem
    if target.exists():
        return target
    bar = progress(total=source.st_size, description=f"Unpacking {path.name}", unit="B", disable=not show_progress)
    try:
        shutil.rmtree(target.parent, ignore_errors=True)  # what an interrupted run left
        target.parent.mkdir(parents=True)
        with bar, path.open("rb") as raw, replacing(target) as temporary, temporary.open("wb") as out:
            packed = CallbackIOWrapper(bar.update, raw, "read")
            shutil.copyfileobj(DECOMPRESSORS[path.suffix.lower()](packed), out, COPY_BYTES)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag_name} {path}: cannot unpack to {target.parent} ({reason})") from error
    return target
