"""One published file → the disk, whatever the network does.

A file takes its name when every byte is there and the checksum is right. Until then it is ``NAME.part``, from where a
download goes on that was cut off, also in a later run; two versions never end up in one file. Where no checksum is
published, that of what came is kept in ``NAME.sha256``::

    fetcher = Fetcher(TransferConfig(retries=3))
    fetcher.fetch(["https://example.org/a.json", "https://a.mirror/a.json"], Path("a.json"), checksum="md5:981b...")
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from bert.config import flag
from bert.download.partial_file import Digest, FetchError, Part, read_offer
from bert.download.web import Passing, Refused, Unreachable, Web, is_web_address, read_blocks
from bert.errors import UsageError
from bert.files import replacing
from bert.log.progress import progress

__all__ = ["FetchError", "Fetcher", "TransferConfig", "read_record"]

LONGEST_PAUSE = 600.0  # seconds; a server that asks for more is left for the next address
STEADY = 1 << 20  # bytes; an attempt that brings as many is no failure, and the retries begin anew
SPARE = 64 << 20  # bytes to leave free on the disk
LONG_CHECK = 256 << 20  # bytes from which on checking a file shows a progress bar


@dataclass
class TransferConfig:
    mirror: list[str] | None = flag(
        None,
        "Addresses to try first, such as https://mirror.company.org/bert. Every file is sought there under its own "
        "name, without folders (.../train-v1.1.json, .../CoLA.zip); published checksums apply as elsewhere.",
    )
    timeout: float = flag(60.0, "Seconds of silence after which a connection is given up.", minimum=0.1)
    retries: int = flag(
        5, "Further attempts at an address, after growing pauses; one that brings new data does not count.", minimum=0
    )
    disable_progress_bar: bool = flag(False, "Show no progress bars.")


Check = Callable[[Path], str | None]  # says what is wrong with a file; None if nothing is


class Fetcher:
    """Fetches files; ``sleep`` (seconds) and ``chance`` (a number in [0, 1)) make the pauses between attempts.

    Raises UsageError where a --mirror is no web address.
    """

    def __init__(
        self,
        config: TransferConfig,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ):
        for url in config.mirror or ():
            if not is_web_address(url):
                raise UsageError(f"--mirror {url}: expected an address that begins with http:// or https://")
        self._config = config
        self._web = Web(config.timeout)
        self._sleep, self._chance = sleep, chance
        self._silent_hosts: set[str] = set()  # they gave no connection, so from now on one attempt is enough

    def on_mirrors(self, name: str) -> list[str]:
        """Return the addresses that --mirror gives a file of this name."""
        return [f"{mirror.rstrip('/')}/{name}" for mirror in self._config.mirror or ()]

    def is_there(self, target: Path, checksum: str | None = None, size: int | None = None) -> bool:
        """Whether ``target`` is whole by ``checksum``, or else by its ``.sha256``; says so where it is not.

        A file with neither, put there by hand, is taken as it is, and its ``.sha256`` written.
        """
        if not target.is_file():
            return False
        known, total = checksum or read_record(target), target.stat().st_size
        digest = Digest(known)
        with target.open("rb") as file, self._bar(f"Checking {target.name}", total, least=LONG_CHECK) as bar:
            digest.read(file, bar.update)
        problem = f"{total:,} bytes, expected {size:,}" if size not in (None, total) else digest.problem
        if problem:
            print(f"{target}: damaged or another version ({problem}), fetching it again", file=sys.stderr)
        elif not known:
            print(f"{target}: taken as it is, since no checksum is known")
            _write_record(target, digest)
        return not problem

    def fetch(
        self,
        urls: Sequence[str],
        target: Path,
        *,
        checksum: str | None = None,
        size: int | None = None,
        check: Check | None = None,
        record: bool = False,
        again: bool = False,
    ) -> bool:
        """Bring ``target`` onto the disk from the first of ``urls`` that gives it whole; False where it was there.

        ``checksum`` is "md5:...", "sha1:..." or "sha256:..."; ``size`` in bytes; ``check`` looks at what came where
        there is no checksum; ``record`` writes the ``.sha256`` also where there is one; ``again`` replaces a file that
        is there. Raises FetchError; what came so far is kept.
        """
        if not again and self.is_there(target, checksum, size):
            return False
        reasons: list[str] = []
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with Part(target, checksum) as part:
                for url in sorted(urls, key=lambda url: not part.goes_on(url)):
                    try:
                        self._fetch_from(url, part, size, None if checksum else check)
                    except Refused as error:
                        reasons.append(f"  {url}: {error}")
                        continue
                    if record or not checksum:
                        _write_record(target, part.digest)
                    part.finish()
                    return True
        except OSError as error:
            raise FetchError(f"{target}: {error.strerror or error}") from error
        raise FetchError("\n".join([f"{target.name} could not be fetched", *reasons, _advice(target, checksum, size)]))

    def _fetch_from(self, url: str, part: Part, size: int | None, check: Check | None) -> None:
        """Attempt until ``part`` is whole and right; raises Refused where ``url`` is to be given up."""
        host = urlsplit(url).netloc
        failures, most = 0, part.size
        while True:
            try:
                return self._attempt(url, part, size, check)
            except Passing as error:
                if part.size >= most + STEADY:
                    failures, most = 0, part.size
                failures += 1
                if failures > (0 if host in self._silent_hosts else self._config.retries):
                    if isinstance(error, Unreachable):
                        self._silent_hosts.add(host)
                    raise Refused(f"{error}; {failures} attempt{'s' * (failures > 1)}") from error
                self._pause(failures, error, part.target.name)

    def _pause(self, failures: int, error: Passing, name: str) -> None:
        pause = min(2.0 ** (failures - 1), 60.0) * (0.5 + self._chance() / 2)
        pause = max(pause, error.after or 0.0)
        if pause > LONGEST_PAUSE:
            raise Refused(f"{error}, and asks to come back in {pause:.0f} s")
        print(f"{name}: {error}; next attempt in {pause:.1f} s", file=sys.stderr)
        self._sleep(pause)

    def _attempt(self, url: str, part: Part, size: int | None, check: Check | None) -> None:
        """Ask for the file, or for what is missing of it, and check the whole."""
        patched = part.goes_on(url)
        if not (patched and part.is_whole):  # whole: killed between the last byte and the check
            with self._web.open(url, part.headers(url)) as response:
                offer, start = read_offer(url, response)
                if size is not None and offer.size not in (None, size):
                    raise Refused(f"{offer.size:,} bytes, expected {size:,}")
                part.accept(offer, start)
                patched = start > 0
                _check_space(part, offer.size)
                with self._bar(part.target.name, offer.size, start) as bar:
                    for block in read_blocks(response):
                        part.write(block)
                        bar.update(len(block))
        total = size if size is not None else part.origin and part.origin.size
        if total is not None and part.size < total:
            raise Passing(f"the connection ended {total - part.size:,} bytes early")
        problem = part.digest.problem
        if total is not None and part.size > total:
            problem = f"more than {total:,} bytes"
        elif check:
            problem = check(part.flushed())
        if problem:
            part.restart(None)
            raise Passing(f"{problem}, starting anew") if patched else Refused(problem)

    def _bar(self, name: str, total: int | None, start: int = 0, least: int = 0) -> tqdm:
        quiet = self._config.disable_progress_bar or (total or 0) < least
        bar = progress(total=total, initial=start, description=name, unit="B", disable=quiet)
        bar.unit_scale = True
        return bar


def read_record(target: Path) -> str | None:
    """Return "sha256:..." from the ``.sha256`` beside ``target``; None where there is none."""
    try:
        words = _record(target).read_text(encoding="utf8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return f"sha256:{words[0]}" if words else None


def _advice(target: Path, checksum: str | None, size: int | None) -> str:
    known = ([] if size is None else [f"{size:,} bytes"]) + ([checksum.replace(":", " ")] if checksum else [])
    return f"  by hand: save it as {target} and run this again ({', '.join(known) or 'no checksum is published'})"


def _write_record(target: Path, digest: Digest) -> None:
    with replacing(_record(target)) as temporary:
        temporary.write_text(f"{digest.sha256}  {target.name}\n", encoding="utf8")  # as sha256sum writes it


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _check_space(part: Part, size: int | None) -> None:
    free = shutil.disk_usage(part.target.parent).free
    missing = (size or 0) - part.size
    if missing + SPARE > free:
        raise FetchError(f"{part.target}: {missing:,} bytes are to come, and the disk has {free:,} left")
