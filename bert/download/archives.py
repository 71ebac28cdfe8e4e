"""Zip and tar files → folders; whatever an archive holds, nothing is written outside its folder.

Links, devices, absolute names and ``..`` are refused, and so is an archive that unpacks to a suspicious size. A folder
that wraps everything in the archive is left out, and so are the files that macOS adds::

    unpack(Path("CoLA.zip"), Path("CoLA"))      # CoLA/train.tsv, whether or not the archive says CoLA/train.tsv
"""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

LARGEST_RATIO = 100  # unpacked to packed bytes; text reaches 10
ALWAYS_ALLOWED = 64 << 20  # unpacked bytes, whatever the ratio
MOST_ENTRIES = 100_000
BLOCK = 1 << 20  # bytes

# What the libraries raise. RuntimeError: a password, or a compression they do not know; ValueError: a senseless field.
UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)
DAMAGED = (*UNREADABLE, RuntimeError, ValueError)


class ArchiveError(Exception):
    """An archive that is damaged, holds something dangerous, or lacks a file that it should have."""


def archive_problem(path: Path) -> str | None:
    """Return what is wrong if a file is not an archive, or is an incomplete zip file; its content is not checked."""
    return None if zipfile.is_zipfile(path) or tarfile.is_tarfile(path) else "neither a zip nor a tar file"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file into ``folder``, which may hold other things; raises ArchiveError naming the file."""
    inside = folder / f".{archive.name}"
    inside.mkdir(parents=True)
    try:
        if tarfile.is_tarfile(archive):
            _untar(archive, inside)
        elif zipfile.is_zipfile(archive):
            _unzip(archive, inside)
        else:
            raise ArchiveError("damaged, or neither a zip nor a tar file")
    except ArchiveError as error:
        raise ArchiveError(f"{archive}: {error}") from error
    except DAMAGED as error:
        raise ArchiveError(f"{archive}: damaged ({error or type(error).__name__})") from error
    entries = list(inside.iterdir())
    top = entries[0] if len(entries) == 1 and entries[0].is_dir() else inside
    for entry in top.iterdir():
        os.replace(entry, folder / entry.name)
    top.rmdir()
    if top != inside:
        inside.rmdir()


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        _check_amount(archive, len(entries), sum(entry.file_size for entry in entries))
        for entry in entries:
            _check_entry(entry.filename, stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR))
        for entry in entries:
            if not _is_clutter(entry.filename):
                opened.extract(entry, folder)  # writes no more than the file_size added up above; checks the CRC


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        number = total = 0
        for entry in opened:
            number, total = number + 1, total + entry.size
            _check_amount(archive, number, total)
            _check_entry(entry.name, entry.isreg() or entry.isdir())
            if not _is_clutter(entry.name):
                opened.extract(entry, folder, filter="data")
        assert opened.fileobj
        while opened.fileobj.read(BLOCK):  # up to the checksum at the end of a packed tar file
            pass


def _check_entry(name: str, is_plain: bool) -> None:
    path = PurePosixPath(name)
    if not name or ".." in path.parts or path.is_absolute() or PureWindowsPath(name).drive or "\\" in name:
        raise ArchiveError(f"{name!r} would lie outside the folder")
    if not is_plain:
        raise ArchiveError(f"{name} is neither a file nor a folder")


def _check_amount(archive: Path, entries: int, total: int) -> None:
    most = max(archive.stat().st_size * LARGEST_RATIO, ALWAYS_ALLOWED)
    if total > most or entries > MOST_ENTRIES:
        raise ArchiveError(f"unpacks to {entries:,} files with {total:,} bytes, which is suspicious")


def _is_clutter(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name == ".DS_Store" or path.name.startswith("._")
