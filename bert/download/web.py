"""Open a web address: redirects, proxies and time limits, and every failure as one of two errors.

:class:`Passing` may be gone at the next attempt, :class:`Refused` will not. Nothing but http and https is followed, and
never from https down to http::

    with Web(timeout=60).open("https://example.org/train.json", {"Range": "bytes=100-"}) as response:
        for block in read_blocks(response): ...
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from bert import __version__
from bert.errors import UsageError

if TYPE_CHECKING:
    from urllib3 import PoolManager
    from urllib3.response import BaseHTTPResponse

HEADERS = {
    "User-Agent": f"bert-training-suite/{__version__} (data/download.py)",  # Wikimedia wants to know who asks
    "Accept-Encoding": "identity",  # the length and the checksum are those of the file as it is published
}
CONNECT_SECONDS = 15.0
MAX_REDIRECTS = 10
BLOCK = 1 << 18  # bytes

PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
RANGE_STATUS = 416  # the range that was asked for is not in the file


class Refused(Exception):
    """This address will not give the file, however often it is asked."""


class Passing(Exception):
    """Another attempt may succeed; ``after`` is the pause in seconds that the server asked for."""

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


class Unreachable(Passing):
    """No connection came about."""


class Web:
    """Connections, kept open between requests; ``timeout`` is the longest silence in seconds."""

    def __init__(self, timeout: float):
        try:
            from urllib3.util import Timeout
        except ImportError as error:
            raise UsageError("urllib3 is not installed, expected: pip install '.[prepare]'") from error
        self._timeout = Timeout(connect=min(timeout, CONNECT_SECONDS), read=timeout)
        self._pools: dict[str | None, PoolManager] = {}

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
        """Yield the response, of status 200, 206 or 416, after redirects; raises Refused and Passing."""
        with _translated():
            response = self._follow(url, headers)
        try:
            _check_status(response)
            yield response
        finally:
            response.close()

    def _follow(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        if not is_web_address(url):
            raise Refused("neither http nor https")
        for _ in range(MAX_REDIRECTS + 1):
            response = self._pool(url).request(
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
                return response
            response.close()
            url = _redirected(url, location)
        raise Refused(f"more than {MAX_REDIRECTS} redirects")

    def _pool(self, url: str) -> PoolManager:
        proxy = find_proxy(url)
        if proxy not in self._pools:
            self._pools[proxy] = _make_pool(proxy)
        return self._pools[proxy]


def read_blocks(response: BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the body as it comes in; raises Passing where it ends early or nothing comes for too long."""
    while True:
        with _translated():
            block = response.read1(BLOCK)
        if not block:
            return
        yield block


def is_web_address(url: str) -> bool:
    """Whether ``url`` is http or https and names a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def find_proxy(url: str) -> str | None:
    """Return the proxy that http_proxy, https_proxy, all_proxy and no_proxy in the environment name for ``url``."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _make_pool(proxy: str | None) -> PoolManager:
    from urllib3 import PoolManager, ProxyManager
    from urllib3.exceptions import HTTPError
    from urllib3.util import make_headers, parse_url

    if proxy is None:
        return PoolManager()
    try:
        account = parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(account)) if account else None
        return ProxyManager(proxy, proxy_headers=headers)
    except (HTTPError, ValueError) as error:
        raise Refused(f"the proxy {proxy} of the environment cannot be used ({error})") from error


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if not is_web_address(target):
        raise Refused(f"redirects to {target}, which is neither http nor https")
    if url.startswith("https:") and not target.startswith("https:"):
        raise Refused(f"redirects from https to {target}, which anyone on the way could change")
    return target


def _check_status(response: BaseHTTPResponse) -> None:
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    status = response.status
    if status in (200, 206, RANGE_STATUS):
        return
    message = f"HTTP {status} {response.reason or ''}".strip()
    if status not in PASSING_STATUS:
        raise Refused(message)
    try:
        after = Retry().get_retry_after(response)
    except InvalidHeader:  # neither seconds nor a date
        after = None
    raise Passing(message, after)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what urllib3 raises into Refused and Passing, in words for the user."""
    from urllib3 import exceptions as broken

    try:
        yield
    except broken.ProxyError as error:
        raise Unreachable(f"the proxy does not answer ({_reason(error)})") from error
    except broken.NameResolutionError as error:
        raise Unreachable("the name of the host cannot be looked up; is there a network?") from error
    except broken.NewConnectionError as error:
        raise Unreachable(f"no connection ({_reason(error)})") from error
    except broken.ConnectTimeoutError as error:
        raise Unreachable("no connection in time") from error
    except broken.ReadTimeoutError as error:
        raise Passing("the server went silent") from error
    except broken.SSLError as error:
        cause = error.args[0] if error.args else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise Refused(f"the certificate is not trusted: {cause.verify_message}") from error
        raise Passing(f"TLS failed ({_reason(error)})") from error
    except broken.IncompleteRead as error:
        missing = "" if error.expected is None else f", {error.expected:,} bytes early"
        raise Passing(f"the connection ended too early{missing}") from error
    except broken.HTTPError as error:
        raise Passing(f"the connection broke ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """Return the system's words for what lies under ``error``."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
