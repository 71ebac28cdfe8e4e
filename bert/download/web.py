"""Complete a partial file from one address: resuming, retries, redirects, proxies and time limits.

Only http and https are followed, and never from https down to http. This module needs urllib3::

    with PartialFile(Path("a.json")) as part:
        Web(timeout=60, retries=5, show=True).complete(part, "https://example.org/a.json", file)
"""

from __future__ import annotations

import errno
import re
import shutil
import ssl
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from urllib.parse import unquote, urljoin, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout
from urllib3 import exceptions as errors
from urllib3.util import make_headers, parse_url

from bert import __version__
from bert.download.partial_file import PartialFile, Version
from bert.download.remote import FetchError, RemoteFile, is_web_address
from bert.log.progress import progress

HEADERS = {
    "User-Agent": f"bert-training-suite/{__version__} (data/download.py)",  # Wikimedia wants to know who asks
    "Accept-Encoding": "identity",  # the length and the checksum are those of the file as it is published
}
MAX_REDIRECTS = 10
CONNECT_SECONDS = 15.0
LONGEST_PAUSE = 600.0  # seconds; an address that asks for more is given up
STEADY = 1 << 20  # bytes; after so much new data the count of attempts starts again
SPARE = 64 << 20  # bytes to leave free on the disk
BLOCK = 1 << 18  # bytes

RANGE_STATUS = 416  # the range that was asked for is not in the file
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
REASONS = (  # the first class that an error belongs to
    (errors.ProxyError, "the proxy does not answer"),
    (errors.NameResolutionError, "the host name cannot be resolved"),
    (errors.NewConnectionError, "no connection"),
    (errors.ConnectTimeoutError, "connecting took too long"),
    (errors.ReadTimeoutError, "the server went silent"),
    (errors.SSLError, "TLS failed"),
    (errors.HTTPError, "the connection broke"),
)


class Passing(errors.HTTPError):
    """A failure that another attempt may mend; ``after`` is the pause in seconds that the server asks for."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class Web:
    """Downloads; ``timeout`` is the longest silence in seconds, ``show`` shows progress bars."""

    def __init__(self, timeout: float, retries: int, show: bool):
        self._timeout = Timeout(connect=min(timeout, CONNECT_SECONDS), read=timeout)
        self._show = show
        self._retry = Retry(
            retries, status_forcelist=RETRIED_STATUS, backoff_factor=1.0, backoff_jitter=1.0, backoff_max=60.0
        )
        self._silent_hosts: set[str] = set()  # no connection to them succeeded, so they get one attempt

    def complete(self, part: PartialFile, url: str, file: RemoteFile) -> None:
        """Attempt until ``part`` is the whole file; raises FetchError if ``url`` is to be given up."""
        host = urlsplit(url).netloc
        retry = self._retry.new(total=0) if host in self._silent_hosts else self._retry
        steady = part.size + STEADY
        while True:
            try:
                return self._attempt(part, url, file)
            except errors.HTTPError as error:
                reason = _explain(error)
                if part.size >= steady:
                    retry, steady = self._retry, part.size + STEADY
                try:
                    retry = retry.increment("GET", url, error=error)
                except errors.MaxRetryError:
                    if isinstance(error, (errors.ConnectTimeoutError, errors.ProxyError)):
                        self._silent_hosts.add(host)
                    attempts = len(retry.history) + 1
                    raise FetchError(f"{reason}; {attempts} attempt{'s' * (attempts > 1)}") from error
                pause = max(retry.get_backoff_time(), getattr(error, "after", None) or 0.0)
            if pause > LONGEST_PAUSE:
                raise FetchError(f"{reason}; the server asks to wait {pause:.0f} s")
            print(f"{file.name}: {reason}; next attempt in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)

    def _attempt(self, part: PartialFile, url: str, file: RemoteFile) -> None:
        """Ask for the file, or for what is missing of it, and check the whole."""
        begun, have = part.version, part.size
        validator = begun.validator if begun and begun.url == url else None
        resumed = have > 0 and bool(validator or file.checksum)  # a checksum tells whether two halves belong together
        if not (resumed and begun and have == begun.size):  # else killed between the last byte and the check
            headers = {"Range": f"bytes={have}-"} if resumed else {}
            if resumed and validator:
                headers["If-Range"] = validator
            with closing(self._open(url, headers)) as response:
                offered, start = _read_version(url, response)
                if None not in (file.size, offered.size) and file.size != offered.size:
                    raise FetchError(f"{offered.size:,} bytes, expected {file.size:,}")
                if start == 0:
                    part.restart(offered)
                elif start != have or not begun or not _continues(begun, offered, validator):
                    part.restart(None)
                    raise Passing("the file has changed; starting over")
                resumed = start > 0
                self._receive(part, response)
        total = file.size if file.size is not None else part.version and part.version.size
        if total is not None and part.size < total:
            raise Passing(f"the connection ended {total - part.size:,} bytes early")
        problem = replace(file, size=total).find_problem(part.path, self._show)
        if problem:
            part.restart(None)
            raise Passing(f"{problem}; starting over") if resumed else FetchError(problem)

    def _receive(self, part: PartialFile, response: BaseHTTPResponse) -> None:
        total = part.version and part.version.size
        missing, free = (total or 0) - part.size, shutil.disk_usage(part.path.parent).free
        if missing + SPARE > free:
            raise OSError(errno.ENOSPC, f"{missing:,} more bytes are needed, and the disk has {free:,} free")
        have, name, hidden = part.size, part.path.stem, not self._show
        with progress(total=total, initial=have, description=name, unit="B", disable=hidden) as bar:
            while block := response.read1(BLOCK):
                part.write(block)
                bar.update(len(block))

    def _open(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Return the response of status 200, 206 or 416 that ``url`` leads to."""
        for _ in range(MAX_REDIRECTS + 1):
            if not is_web_address(url):
                raise FetchError("neither http nor https")
            # PoolManager does not follow redirects here, because each may need another proxy.
            response = _make_pool(url).request(
                "GET",
                url,
                headers={**HEADERS, **headers},
                timeout=self._timeout,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            location = response.get_redirect_location()
            if not location:
                self._check_status(response)
                return response
            response.close()
            url = _redirected(url, location)
        raise FetchError(f"more than {MAX_REDIRECTS} redirects")

    def _check_status(self, response: BaseHTTPResponse) -> None:
        if response.status in (200, 206, RANGE_STATUS):
            return
        response.close()
        reason = f"HTTP {response.status} {response.reason or ''}".strip()
        if not self._retry.is_retry("GET", response.status):
            raise FetchError(reason)
        try:
            raise Passing(reason, self._retry.get_retry_after(response))
        except errors.InvalidHeader:  # neither seconds nor a date
            raise Passing(reason) from None


def _read_version(url: str, response: BaseHTTPResponse) -> tuple[Version, int]:
    """Return the version that a response belongs to, and the place of its first byte in the file; -1 if unknown."""
    tag, size, start = response.headers.get("ETag"), response.headers.get("Content-Length", ""), 0
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")  # no weak tags
    if response.status != 200:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        start, size = (int(found[1]), found[2]) if found else (-1, "")
    return Version(url, validator, int(size) if size.isdecimal() else None), start


def _continues(begun: Version, offered: Version, validator: str | None) -> bool:
    """Return whether ``offered`` has the size and, if it is known for this address, the validator of ``begun``."""
    same_size = begun.size == offered.size or None in (begun.size, offered.size)
    return same_size and validator in (None, offered.validator)


def _make_pool(url: str) -> PoolManager:
    """Return a pool with the proxy that http_proxy, https_proxy, all_proxy and no_proxy in the environment set."""
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        account = parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(account)) if account else None
        return ProxyManager(proxy, proxy_headers=headers)
    except (errors.HTTPError, ValueError) as error:
        raise FetchError(f"the proxy {proxy} of the environment cannot be used ({error})") from error


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if not is_web_address(target):
        raise FetchError(f"redirects to {target}, which is neither http nor https")
    if url.startswith("https:") and not target.startswith("https:"):
        raise FetchError(f"redirects from https to {target}, which others could alter on the way")
    return target


def _explain(error: errors.HTTPError) -> str:
    """Return what happened, with the system's words; raises FetchError for a certificate that is not trusted."""
    if isinstance(error, Passing):
        return str(error)
    if isinstance(error, errors.SSLError) and isinstance(error.args[0], ssl.SSLCertVerificationError):
        raise FetchError(f"the certificate is not trusted: {error.args[0].verify_message}") from error
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    reason = next(reason for kind, reason in REASONS if isinstance(error, kind))
    return f"{reason} ({getattr(cause, 'strerror', None) or str(cause) or type(cause).__name__})"
