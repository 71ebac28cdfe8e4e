"""Files and folders that are written atomically; the files below a folder; text with a byte-order mark.

::

    with replacing(Path("vocab.txt")) as temporary:
        temporary.write_text(...)           # an error or a kill here leaves the old vocab.txt unchanged
    for path in files_below(Path("texts"), lambda name: name.endswith(".txt")): ...
"""

from __future__ import annotations

import codecs
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def warn(line: str) -> None:
    """Print a warning on stderr."""
    print(f"warning: {line}", file=sys.stderr)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces it when the block succeeds and the data is on the disk.

    The temporary file is hidden, named after this process, and keeps the suffix, by which writers choose a format.
    Raises OSError as the system does.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that is renamed to it when the block succeeds.

    ``path`` must be an empty folder or not exist. Raises OSError as the system does, also if ``path`` is not empty.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def decode(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 that begins with a byte-order mark, which is left out. Raises UnicodeDecodeError."""
    return data.decode("utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig")


def files_below(root: Path, is_wanted: Callable[[str], bool], notice: Callable[[str], None] = warn) -> list[Path]:
    """List the files below ``root`` whose names are wanted, sorted; hidden files and folders are left out.

    Links to folders are followed. No folder is read twice, and one that is reached without a link is listed so.
    ``notice`` gets one line about links that lead nowhere or in a circle, and about folders that cannot be read.
    """
    files: list[Path] = []
    left: list[str] = []
    seen: set[str] = set()
    links = [(root, "")]
    for link, above in links:  # grows while it is read
        target = os.path.realpath(link)
        if above and f"{above}/".startswith(f"{target.rstrip('/')}/"):
            left.append(f"{link} (leads back to a folder above it)")
            continue
        todo = [(link, target)]
        while todo:
            folder, real = todo.pop()
            if real not in seen:
                seen.add(real)
                shown = _list(folder, left)
                files += (path for path, is_link, is_folder in shown if not is_folder and is_wanted(path.name))
                links += ((path, real) for path, is_link, is_folder in shown if is_folder and is_link)
                todo += (
                    (path, os.path.join(real, path.name)) for path, is_link, is_folder in shown if is_folder > is_link
                )
    if left:
        first = ", ".join(sorted(left)[:3]) + ", ..." * (len(left) > 3)
        notice(f"{root}: {len(left)} links or folders passed over: {first}")
    return sorted(files)


def _list(folder: Path, left: list[str]) -> list[tuple[Path, bool, bool]]:
    """Return (path, is a link, is a folder) of what is in a folder, by name; note in ``left`` what leads nowhere."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                path, is_link = folder / entry.name, entry.is_symlink()
                if is_link and not os.path.exists(path):
                    left.append(f"{path} (a link that leads nowhere)")
                elif entry.is_dir() or entry.is_file():
                    found.append((path, is_link, entry.is_dir()))
    except OSError as error:
        left.append(f"{folder} ({error.strerror})")
    return found
