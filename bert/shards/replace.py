"""Replacing the files of a folder wholly or not at all, whatever ends the process and when.

New files are made in a hidden folder, ``.balance/<run>``. Then a journal of what to move in and what to remove appears,
and from then on the change is certain: who starts next carries it out. Before that, nothing has happened::

    with staging(folder) as staged:
        (staged / "shard-0.parquet").write_bytes(...)
        commit(staged, Journal(moves=["shard-0.parquet"], removals=["part.0.parquet"], request={}))
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from bert.data.formats.table import JOURNAL
from bert.errors import UsageError
from bert.files import replacing

WORK, NAME = Path(JOURNAL).parts


@dataclass
class Journal:
    """What becomes of a folder; all names are relative to it."""

    moves: list[str]  # from the hidden folder to the same name here, over what is there
    removals: list[str]
    request: dict[str, Any]  # what the user asked for
    run: str = ""  # name of the hidden folder
    following: str = ""  # another folder, whose journal of the same run is carried out next


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield an empty hidden folder inside ``folder``, which is made if need be; nothing stays unless committed.

    Raises UsageError where another process does the same, or the system refuses.
    """
    made = not folder.exists()
    with _locked(folder):
        for left in (folder / WORK).iterdir():  # of a process that was killed before its commit
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        staged = folder / WORK / uuid4().hex[:8]
        staged.mkdir()
        try:
            yield staged
        finally:
            if not (folder / JOURNAL).exists():
                shutil.rmtree(folder / WORK, ignore_errors=True)
                if made and not any(folder.iterdir()):
                    folder.rmdir()


def commit(staged: Path, journal: Journal, following: tuple[Path, Journal] | None = None) -> None:
    """Make the change certain and carry it out; then that of another folder, given with its hidden folder."""
    journal.run = staged.name
    if following is not None:
        other, last = following
        last.run = other.name
        _write(other / NAME, last)
        journal.following = str(other.resolve())
    _write(staged.parent / NAME, journal)
    _carry_out(staged.parents[1])


def finish(folder: Path) -> dict[str, Any] | None:
    """Carry out what an interrupted process left certain in ``folder``; return the request, None if there is none.

    Raises UsageError where the system refuses, or where the journal is none of ours.
    """
    if not (folder / JOURNAL).exists():
        return None
    try:
        with _locked(folder):
            return _carry_out(folder)
    except OSError as error:
        raise UsageError(f"{folder}: data/balance.py was interrupted here; completing it: {error}") from error


def _write(path: Path, journal: Journal) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(journal), indent=1), encoding="utf8")


def _carry_out(folder: Path) -> dict[str, Any]:
    """Do what is not done yet of the journal in ``folder``, remove it, and go on with the next one."""
    journal = _read(folder)
    for name in journal.moves:
        staged, target = _inside(folder / WORK, f"{journal.run}/{name}"), _inside(folder, name)
        if staged.exists():
            os.replace(staged, target)
        elif not target.exists():
            raise UsageError(f"{folder / JOURNAL}: {name} is neither in {staged.parent} nor in {folder}")
    for name in journal.removals:
        _inside(folder, name).unlink(missing_ok=True)
    if journal.following:
        waiting = Path(journal.following) / NAME
        if waiting.exists():
            os.replace(waiting, waiting.parents[1] / NAME)
    (folder / JOURNAL).unlink()
    shutil.rmtree(folder / WORK, ignore_errors=True)
    if journal.following:
        other = Path(journal.following).parents[1]
        if (other / JOURNAL).exists():
            _carry_out(other)
    return journal.request


def _read(folder: Path) -> Journal:
    path = folder / JOURNAL
    try:
        journal = Journal(**json.loads(path.read_text(encoding="utf8")))
        if journal.following and Path(journal.following).parent.name != WORK:
            raise ValueError(f"following {journal.following}")
        return journal
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not a journal of data/balance.py ({error})") from error


def _inside(folder: Path, name: str) -> Path:
    """Return the path of ``name``; raises UsageError where a journal, perhaps of a stranger, leaves its folder."""
    path = folder / name
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{path}: outside of {folder}, the folder of a journal of data/balance.py")
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working on ``folder``; the lock ends with the process, however it ends."""
    (folder / WORK).mkdir(parents=True, exist_ok=True)
    with (folder / WORK / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another data/balance.py is at work here") from error
        except OSError:
            pass  # a file system without locks
        yield
