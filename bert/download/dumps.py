"""The newest dump of a Wikipedia: where it is published, and with which checksum.

::

    fetch_dump(fetcher, "simple", Path("wikipedia"))    # simplewiki-latest-pages-articles-multistream.xml.bz2
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bert.download.fetch import Fetcher
from bert.download.remote import FetchError, RemoteFile
from bert.errors import UsageError

DUMP = "pages-articles-multistream.xml.bz2"
ROOTS = (  # Wikimedia's own server and mirrors of it
    "https://dumps.wikimedia.org",
    "https://mirror.accum.se/mirror/wikimedia.org/dumps",
    "https://dumps.wikimedia.your.org",
)


def check_language(flag_name: str, language: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", language):
        raise UsageError(f"{flag_name} {language}: expected the code of a Wikipedia, such as en, de or simple")


def dump_path(language: str, folder: Path) -> Path:
    """Return the path of the dump of a language in ``folder``."""
    return folder / f"{_wiki(language)}-latest-{DUMP}"


def fetch_dump(fetcher: Fetcher, language: str, folder: Path) -> bool:
    """Fetch the newest dump into ``folder``; False if one is there, however old. Raises FetchError."""
    name = dump_path(language, folder).name
    if fetcher.is_there(RemoteFile(name), folder):
        return False
    errors = []
    for urls, checksum in _sources(fetcher, _wiki(language), name):
        try:
            return fetcher.fetch(RemoteFile(name, urls, checksum, check=_problem, record=True), folder, again=True)
        except FetchError as error:
            errors.append(str(error))
    raise FetchError("\n".join(errors))


def _sources(fetcher: Fetcher, wiki: str, name: str) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yield the addresses of the dump and its checksum. A mirror's dump may be older and has a checksum of its own."""
    sums = f"{wiki}-latest-sha1sums.txt"
    for url, url_of_sums in zip(fetcher.on_mirrors(name), fetcher.on_mirrors(sums), strict=True):
        yield (url,), _published_sum(fetcher, wiki, (url_of_sums,))[1]
    date, checksum = _published_sum(fetcher, wiki, tuple(f"{root}/{wiki}/latest/{sums}" for root in ROOTS))
    # A dated file never changes, and mirrors without a folder "latest" have it too.
    yield tuple(f"{root}/{wiki}/{date}/{wiki}-{date}-{DUMP}" for root in ROOTS), checksum


def _published_sum(fetcher: Fetcher, wiki: str, urls: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the date and the checksum of the newest dump; "latest" and None if they are not published."""
    with tempfile.TemporaryDirectory() as folder:
        sums = RemoteFile(f"{wiki}-latest-sha1sums.txt", urls)
        try:
            fetcher.fetch(sums, Path(folder))
        except FetchError:
            print(f"{urls[0]}: no checksums; only the length of the dump will be checked", file=sys.stderr)
            return "latest", None
        lines = (Path(folder) / sums.name).read_text(encoding="utf8", errors="replace")
    found = re.search(rf"^([0-9a-f]{{40}}) [ *]{wiki}-(\w+)-{re.escape(DUMP)}$", lines, re.MULTILINE)
    return (found[2], f"sha1:{found[1]}") if found else ("latest", None)


def _problem(dump: Path) -> str | None:
    with dump.open("rb") as file:
        return None if file.read(3) == b"BZh" else "not a bz2 file"


def _wiki(language: str) -> str:
    return language.replace("-", "_") + "wiki"
