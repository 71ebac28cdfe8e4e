"""Replacing the shards of a folder wholly or not at all, whatever ends the process and when.

New files are made in a hidden folder, ``.balance/new``. Then ``.balance/swap.json`` appears with the names of the old
ones, and the swap is certain: new files move in, old files go, and after a kill whoever comes next completes it. Until
then nothing has happened. Shards that go to another folder are swapped in the same way::

    with staging(source, target):
        (target / NEW / "shard-0.parquet").write_bytes(...)
        swap(source, target, removals=[source / "part.0.parquet"], request={})
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from bert.data.formats.table import SWAP
from bert.errors import UsageError
from bert.files import replacing
from bert.lock import owning

WORK = Path(SWAP).parent
NEW = WORK / "new"


@dataclass(frozen=True)
class Swap:
    """The content of ``swap.json``, which both folders get; the swap is certain once the target has it."""

    run: str
    source: str  # where files are removed; "" = the folder that holds this file
    target: str  # where new files move in; "" = the folder that holds this file
    removals: list[str]  # relative to the source
    request: dict[str, Any]  # what the user asked for


@contextmanager
def staging(*folders: Path) -> Iterator[dict[str, Any] | None]:
    """Make an empty ``.balance/new`` in each of ``folders``, themselves made if need be, and leave no trace of it.

    Yields the request of a swap that was interrupted here and is now complete, else None. Raises UsageError where
    another process works on a folder.
    """
    folders = tuple(dict.fromkeys(folders))
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_locked(folder))
        completed = [_complete(folder) for folder in folders]
        for folder in folders:
            shutil.rmtree(folder / NEW, ignore_errors=True)  # of a process that was killed before its swap
            (folder / NEW).mkdir()
        yield next((request for request in completed if request is not None), None)


def swap(source: Path, target: Path, removals: Sequence[Path], request: dict[str, Any]) -> None:
    """Replace the files ``removals`` of ``source`` by those that are staged, in both folders if there are two."""
    names = [path.relative_to(source).as_posix() for path in removals]
    names = [name for name in names if not (source / NEW / name).exists()]
    run = uuid4().hex
    for folder in dict.fromkeys((source, target)):
        one, other = ("" if each == folder else str(each.resolve()) for each in (source, target))
        with replacing(folder / SWAP) as temporary:
            content = dataclasses.asdict(Swap(run, one, other, names, request))
            temporary.write_text(json.dumps(content, indent=1), encoding="utf8")
    _complete(target)


def _complete(folder: Path) -> dict[str, Any] | None:
    """Carry out the rest of a swap if it is certain, cancel it if not; return its request if it was carried out."""
    found = _read(folder)
    if found is None:
        return None
    source, target = folder / found.source, folder / found.target
    unfinished = [each for each in dict.fromkeys((source, target)) if getattr(_read(each), "run", "") == found.run]
    if target in unfinished:
        for each in unfinished:
            for path in sorted((each / NEW).rglob("*")):
                if not path.is_dir():
                    os.replace(path, _inside(each, path.relative_to(each / NEW)))
        for name in found.removals if source in unfinished else []:
            _inside(source, name).unlink(missing_ok=True)
    for each in unfinished:  # the target, which makes it certain, comes last
        (each / SWAP).unlink()
    return found.request if target in unfinished else None


def _read(folder: Path) -> Swap | None:
    try:
        found = Swap(**json.loads((folder / SWAP).read_text(encoding="utf8")))
        if "" not in (found.source, found.target):
            raise ValueError("about other folders")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder / SWAP}: not a file of data/balance.py ({error})") from error


def _inside(folder: Path, name: str | Path) -> Path:
    """Return the path of ``name``; raises UsageError where a swap, perhaps from a stranger, leaves its folder."""
    path = folder / name
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{folder / SWAP}: {name} is outside of the folder")
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working on ``folder``, and remove its work folder unless a swap is unfinished."""
    with owning(folder, str(folder)):
        (folder / WORK).mkdir(exist_ok=True)
        try:
            yield
        finally:
            if not (folder / SWAP).exists():
                shutil.rmtree(folder / WORK, ignore_errors=True)
