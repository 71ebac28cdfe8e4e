"""Data sets by name → folders that the training commands expect: the command ``data/download.py``.

What is unpacked appears whole: it is made in a hidden folder first. ``SHA256SUMS`` in it, as ``sha256sum -c`` reads it,
says what was made, so a later run knows what is there, what was damaged since, and what is the user's own and is left
alone. A data set that fails does not stop the others::

    download(DownloadConfig(dataset=["squad", "mrpc"], output="data"))
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bert.config import flag
from bert.download.archives import ArchiveError, archive_problem
from bert.download.catalog import DATA_SETS, GROUPS, DataSet, unpack_all
from bert.download.dumps import check_language, fetch_dump
from bert.download.fetch import Fetcher, FetchError, TransferConfig
from bert.download.partial_file import Digest, locked
from bert.errors import UsageError
from bert.files import replacing

SUMS = "SHA256SUMS"
WIKIPEDIA = "wikipedia"
UNPACKING = ".unpacking"


@dataclass
class DownloadConfig:
    """What to fetch, and where to."""

    dataset: list[str] = flag(
        help="What to fetch, several by blanks. "
        + "".join(f"{group} stands for {', '.join(names)}. " for group, names in GROUPS.items())
        + "vocab is the vocabulary of the uncased models alone. wikipedia is the dump as it is published. Also xnli."
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
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {root}: {error.strerror or error}") from error
    rows, failed = [], []
    for name in names:
        try:
            if name == WIKIPEDIA:
                place = root / WIKIPEDIA
                fetched = fetch_dump(fetcher, config.wikipedia_language, place)
            else:
                place = root / DATA_SETS[name].folder
                fetched = install(DATA_SETS[name], root, fetcher)
            rows.append((name, "fetched" if fetched else "there already", str(place)))
        except (FetchError, ArchiveError, OSError) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            rows.append((name, "FAILED", "the reason is above"))
            failed.append(name)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print("\n".join(f"{name:{widths[0]}}  {state:{widths[1]}}  {place}" for name, state, place in rows))
    if failed:
        sys.exit(1)


def choose(words: Sequence[str]) -> list[str]:
    """Return the names of the data sets that ``words`` (names and groups, in any case) stand for, each once."""
    known = {name.lower(): [name] for name in (*DATA_SETS, WIKIPEDIA)} | GROUPS
    for word in words:
        if word.lower() not in known:
            raise UsageError(f"--dataset {word}: unknown, expected one of {', '.join(sorted(known))}")
    return list(dict.fromkeys(name for word in words for name in known[word.lower()]))


def install(data_set: DataSet, root: Path, fetcher: Fetcher) -> bool:
    """Bring one data set below ``root``; False where all of it was there. Raises FetchError and ArchiveError."""
    folder = root / data_set.folder
    if data_set.build is None:
        return any(_fetch_all(data_set, folder, fetcher))
    if _is_complete(folder, data_set):
        return False
    beside = folder.parent
    fetched = _fetch_all(data_set, beside, fetcher)
    try:
        _build(data_set, beside, folder)
    except ArchiveError as error:
        if all(fetched):
            raise
        print(f"{error}; fetching it again", file=sys.stderr)
        _fetch_all(data_set, beside, fetcher, again=True)
        _build(data_set, beside, folder)
    return True


def _fetch_all(data_set: DataSet, folder: Path, fetcher: Fetcher, again: bool = False) -> list[bool]:
    """Fetch all files that can be had, and only then raise what could not."""
    check = archive_problem if data_set.build is unpack_all else None
    fetched, errors = [], []
    for file in data_set.files:
        urls, target = [*fetcher.on_mirrors(file.name), *file.urls], folder / file.name
        try:
            fetched.append(
                fetcher.fetch(urls, target, checksum=file.checksum, size=file.size, check=check, again=again)
            )
        except FetchError as error:
            errors.append(str(error))
    if errors:
        raise FetchError("\n".join(errors))
    return fetched


def _build(data_set: DataSet, beside: Path, folder: Path) -> None:
    assert data_set.build
    with _hidden(folder) as made:
        data_set.build([beside / file.name for file in data_set.files], made)
        for name, checksum in data_set.members.items():
            problem = _problem(made / name, checksum)
            if problem:
                raise ArchiveError(f"{beside / data_set.files[0].name}: its {name} is {problem}")
        _place(made, folder, data_set)


def _place(made: Path, folder: Path, data_set: DataSet) -> None:
    """Give ``made`` the name ``folder``, or complete a folder that is there without touching what is not ours."""
    names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    if not folder.exists():
        _write_sums(made, names)
        os.replace(made, folder)
        return
    ours = {name for name, checksum in _expected(folder, data_set).items() if checksum}
    kept = [name for name in names if (folder / name).exists() and name not in ours]
    for name in names:
        if name not in kept:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / name, folder / name)
    if kept:
        print(f"{folder}: {', '.join(kept)} was there before and is kept as it is")
    _write_sums(folder, [name for name in names if name not in kept])


def _is_complete(folder: Path, data_set: DataSet) -> bool:
    """Whether all is there and as it was made; a folder that was filled by hand needs the members only."""
    if not folder.is_dir():
        return False
    problems = {name: _problem(folder / name, sum) for name, sum in _expected(folder, data_set).items()}
    for name, problem in problems.items():
        if problem and (folder / SUMS).exists():
            print(f"{folder / name}: {problem}, getting it again", file=sys.stderr)
    return not any(problems.values())


def _expected(folder: Path, data_set: DataSet) -> dict[str, str | None]:
    """Return the files that belong in ``folder``, with the checksums that are known."""
    return {**data_set.members, **_read_sums(folder)}


def _problem(path: Path, checksum: str | None) -> str | None:
    if not path.is_file():
        return "missing"
    if not checksum:
        return None
    digest = Digest(checksum)
    with path.open("rb") as file:
        digest.read(file)
    return digest.problem and f"damaged ({digest.problem})"


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf8").splitlines()
    except OSError:
        return {}
    return {name: f"sha256:{sum}" for sum, _, name in (line.partition("  ") for line in lines)}


def _write_sums(folder: Path, names: Sequence[str]) -> None:
    lines = []
    for name in names:
        digest = Digest()
        with (folder / name).open("rb") as file:
            digest.read(file)
        lines.append(f"{digest.sha256}  {name}\n")
    with replacing(folder / SUMS) as temporary:
        temporary.write_text("".join(lines), encoding="utf8")


@contextmanager
def _hidden(folder: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``folder``; those that killed runs left are removed."""
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
