"""Data sets by name → folders that the training commands expect: the command ``data/download.py``.

A folder that is unpacked appears whole, since it is made under a hidden name first. Its ``SHA256SUMS``, which
``sha256sum -c`` reads, lists what was made, so a later run finds damaged files and leaves the user's own alone. A data
set that fails does not stop the others::

    download(DownloadConfig(dataset=["squad", "mrpc"], output="data"))
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bert.config import flag
from bert.download.archives import ArchiveError
from bert.download.catalog import DATA_SETS, GROUPS, DataSet
from bert.download.dumps import check_language, fetch_dump
from bert.download.fetch import Fetcher, TransferConfig
from bert.download.partial_file import locked
from bert.download.remote import FetchError, RemoteFile, write_sums
from bert.errors import UsageError, naming_os_errors

SUMS = "SHA256SUMS"
WIKIPEDIA = "wikipedia"
UNPACKING = ".unpacking"


@dataclass
class DownloadConfig:
    """What to fetch, and where to."""

    dataset: list[str] = flag(
        help="What to fetch, separated by spaces. "
        + "".join(f"{group} stands for {', '.join(names)}. " for group, names in GROUPS.items())
        + "Others: xnli; vocab, the vocabulary of the uncased models without their weights; wikipedia, the dump as "
        "published."
    )
    output: str = flag(
        os.environ.get("BERT_PREP_WORKING_DIR", "data"),
        "Folder to fill: download/squad, download/glue, download/google_pretrained_weights, wikipedia. The environment "
        "variable BERT_PREP_WORKING_DIR sets the default.",
    )
    wikipedia_language: str = flag("en", "Which Wikipedia, by the code in its address, such as en, de or simple.")
    transfer: TransferConfig = field(default_factory=TransferConfig)


def download(config: DownloadConfig) -> None:
    """Fetch every data set, print a table, and exit with code 1 if one failed; raises UsageError for a bad flag."""
    names = choose(config.dataset)
    if WIKIPEDIA in names:
        check_language("--wikipedia_language", config.wikipedia_language)
    fetcher, root = Fetcher(config.transfer), Path(config.output)
    with naming_os_errors(f"--output {root}"):
        root.mkdir(parents=True, exist_ok=True)
    rows, failed = [], False
    for name in names:
        place = root / (WIKIPEDIA if name == WIKIPEDIA else DATA_SETS[name].folder)
        try:
            if name == WIKIPEDIA:
                fetched = fetch_dump(fetcher, config.wikipedia_language, place)
            else:
                fetched = install(DATA_SETS[name], place, fetcher)
            rows.append((name, "fetched" if fetched else "already there", str(place)))
        except (FetchError, ArchiveError, OSError) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            rows.append((name, "FAILED", "the reason is above"))
            failed = True
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print("\n".join(f"{name:{widths[0]}}  {state:{widths[1]}}  {place}" for name, state, place in rows))
    if failed:
        sys.exit(1)


def choose(words: Sequence[str]) -> list[str]:
    """Return the data sets that ``words`` (names and groups, in any case) stand for, each once."""
    known = {name.lower(): [name] for name in (*DATA_SETS, WIKIPEDIA)} | GROUPS
    for word in words:
        if word.lower() not in known:
            raise UsageError(f"--dataset {word}: unknown, expected one of {', '.join(sorted(known))}")
    return list(dict.fromkeys(name for word in words for name in known[word.lower()]))


def install(data_set: DataSet, folder: Path, fetcher: Fetcher) -> bool:
    """Fetch one data set into ``folder``; False if all of it was there. Raises FetchError and ArchiveError."""
    if data_set.build is None:
        return any(_fetch_all(data_set, folder, fetcher))
    if _is_complete(folder, data_set):
        return False
    fetched = _fetch_all(data_set, folder.parent, fetcher)
    try:
        _build(data_set, folder)
    except ArchiveError as error:
        if all(fetched):
            raise
        print(f"{error}; fetching it again", file=sys.stderr)
        _fetch_all(data_set, folder.parent, fetcher, again=True)
        _build(data_set, folder)
    return True


def _fetch_all(data_set: DataSet, folder: Path, fetcher: Fetcher, again: bool = False) -> list[bool]:
    """Fetch every file; only then raise FetchError for those that failed."""
    fetched, errors = [], []
    for file in data_set.files:
        urls = (*fetcher.on_mirrors(file.name), *file.urls)
        try:
            fetched.append(fetcher.fetch(replace(file, urls=urls), folder, again))
        except FetchError as error:
            errors.append(str(error))
    if errors:
        raise FetchError("\n".join(errors))
    return fetched


def _build(data_set: DataSet, folder: Path) -> None:
    assert data_set.build
    files = [folder.parent / file.name for file in data_set.files]
    with _hidden(folder) as made:
        data_set.build(files, made)
        for name, checksum in data_set.members.items():
            if problem := _problem(made / name, checksum):
                raise ArchiveError(f"{files[0]}: its {name} is {problem}")
        _place(made, folder, data_set)


def _place(made: Path, folder: Path, data_set: DataSet) -> None:
    """Rename ``made`` to ``folder``, or complete a folder that is there without touching the user's own files."""
    names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    if not folder.exists():
        write_sums(made / SUMS, {name: made / name for name in names})
        os.replace(made, folder)
        return
    ours = {name for name, checksum in _expected(folder, data_set).items() if checksum}
    kept = [name for name in names if (folder / name).exists() and name not in ours]
    new = [name for name in names if name not in kept]
    for name in new:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(made / name, folder / name)
    if kept:
        print(f"{folder}: kept your own {', '.join(kept)}")
    write_sums(folder / SUMS, {name: folder / name for name in new})


def _is_complete(folder: Path, data_set: DataSet) -> bool:
    """Return whether every file is there and undamaged; a folder that was filled by hand needs only the members."""
    if not folder.is_dir():
        return False
    problems = {name: _problem(folder / name, sum) for name, sum in _expected(folder, data_set).items()}
    for name, problem in problems.items():
        if problem and (folder / SUMS).exists():
            print(f"{folder / name}: {problem}, fetching it again", file=sys.stderr)
    return not any(problems.values())


def _expected(folder: Path, data_set: DataSet) -> dict[str, str | None]:
    """Return the files that belong in ``folder``, with their checksums if known."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf8").splitlines()
    except OSError:
        lines = []
    return {**data_set.members, **{name: f"sha256:{sum}" for sum, _, name in (line.partition("  ") for line in lines)}}


def _problem(path: Path, checksum: str | None) -> str | None:
    if not path.is_file():
        return "missing"
    problem = RemoteFile(path.name, checksum=checksum).find_problem(path)
    return problem and f"damaged ({problem})"


@contextmanager
def _hidden(folder: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``folder``; removes those that killed runs left."""
    for left in folder.parent.glob(f".*.{folder.name}{UNPACKING}"):
        with locked(left) as is_mine:
            if is_mine:
                shutil.rmtree(left, ignore_errors=True)
    made = folder.parent / f".{os.getpid()}.{folder.name}{UNPACKING}"
    made.mkdir(parents=True)
    try:
        with locked(made):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
