"""Fetch one published file to the disk, however unreliable the network is.

A file gets its name once every byte has arrived and the checksum is right. Until then it is ``NAME.part``, from which
an interrupted download resumes, also in a later run; two versions are never joined. If no checksum is published, the
fetched file's own is kept in ``NAME.sha256``::

    fetcher = Fetcher(TransferConfig(retries=3))
    urls = ("https://example.org/a.json", "https://a.mirror/a.json")
    fetcher.fetch(RemoteFile("a.json", urls, checksum="md5:981b..."), Path("data"))
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bert.config import flag
from bert.download.partial_file import PartialFile
from bert.download.remote import FetchError, RemoteFile, is_web_address, write_sums
from bert.errors import UsageError


@dataclass
class TransferConfig:
    mirror: list[str] | None = flag(
        None,
        "Addresses to try first, such as https://mirror.company.org/bert. Every file is expected there under its own "
        "name, without folders (.../train-v1.1.json, .../CoLA.zip); published checksums apply to mirrors too.",
    )
    timeout: float = flag(60.0, "Seconds of silence after which a connection is given up.", minimum=0.1)
    retries: int = flag(
        5, "Further attempts at an address, after growing pauses; those that bring new data do not count.", minimum=0
    )
    disable_progress_bar: bool = flag(False, "Show no progress bars.")


class Fetcher:
    """Fetches files. Raises UsageError if a --mirror is not a web address."""

    def __init__(self, config: TransferConfig):
        try:
            from bert.download.web import Web
        except ImportError as error:
            raise UsageError("urllib3 is not installed, expected: pip install '.[prepare]'") from error
        for url in config.mirror or ():
            if not is_web_address(url):
                raise UsageError(f"--mirror {url}: expected an address that begins with http:// or https://")
        self._mirrors = config.mirror or []
        self._show = not config.disable_progress_bar
        self._web = Web(config.timeout, config.retries, self._show)

    def on_mirrors(self, name: str) -> list[str]:
        """Return the addresses that --mirror gives a file of this name."""
        return [f"{mirror.rstrip('/')}/{name}" for mirror in self._mirrors]

    def is_there(self, file: RemoteFile, folder: Path) -> bool:
        """Return whether ``folder`` has the file, by its checksum or else its ``.sha256``; says so if it is damaged.

        A file that has neither was put there by hand: it is accepted, and its ``.sha256`` is written.
        """
        target = folder / file.name
        if not target.is_file():
            return False
        known = file.checksum or read_record(target)
        problem = replace(file, checksum=known, check=None).find_problem(target, self._show)
        if problem:
            print(f"{target}: damaged or another version ({problem}), fetching it again", file=sys.stderr)
        elif not known:
            print(f"{target}: accepted as it is, since no checksum is known")
            write_sums(_record(target), {target.name: target}, self._show)
        return not problem

    def fetch(self, file: RemoteFile, folder: Path, again: bool = False) -> bool:
        """Fetch into ``folder`` from the first address that has the whole file; False if it was there already.

        ``again`` replaces a file that is there. Raises FetchError; what arrived so far is kept.
        """
        if not again and self.is_there(file, folder):
            return False
        target, reasons = folder / file.name, []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with PartialFile(target) as part:
                begun = part.version and part.version.url
                for url in sorted(file.urls, key=lambda url: url != begun):  # the one that can resume comes first
                    try:
                        self._web.complete(part, url, file)
                    except FetchError as error:
                        reasons.append(f"  {url}: {error}")
                        continue
                    if file.record or not file.checksum:
                        write_sums(_record(target), {target.name: part.path}, self._show)
                    part.finish()
                    return True
        except OSError as error:
            raise FetchError(f"{target}: {error.strerror or error}") from error
        expected = [f"{file.size:,} bytes"] if file.size is not None else []
        expected += [file.checksum.replace(":", " ")] if file.checksum else []
        advice = f"save it as {target} and run this again ({', '.join(expected) or 'no checksum is published'})"
        raise FetchError("\n".join([f"{file.name} could not be fetched", *reasons, f"  by hand: {advice}"]))


def read_record(target: Path) -> str | None:
    """Return "sha256:..." from the ``.sha256`` beside ``target``; None if there is none."""
    try:
        words = _record(target).read_text(encoding="utf8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return f"sha256:{words[0]}" if words else None


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")
