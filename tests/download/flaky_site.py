"""A web site on 127.0.0.1 that answers as badly as a test asks it to."""

import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """``files`` by path; ``plan[path]`` is a queue of answers to give before the file is served as it should be."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.plan: dict[str, deque[Callable]] = defaultdict(deque)
        self.requests: list[tuple[str, Message]] = []
        self.over = threading.Event()  # lets stalled answers end
        self.with_tags = True
        self.with_ranges = True

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for ``path``."""
        return [headers.get("Range") for asked, headers in self.requests if asked == path]

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.close_connection = True
        self.site.requests.append((self.path, self.headers))
        plan = self.site.plan[self.path]
        with suppress(BrokenPipeError, ConnectionResetError):
            (plan.popleft() if plan else serve)(self)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def serve(handler: Handler) -> None:
    """Answer as a good server does, Range and If-Range included."""
    content = handler.site.files.get(handler.path)
    if content is None:
        return handler.head(404, Content_Length=0)
    start, version = 0, {"ETag": tag(content)} if handler.site.with_tags else {}
    asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    if asked and handler.site.with_ranges and condition in (None, tag(content)):
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return handler.head(416, Content_Length=0, Content_Range=f"bytes */{len(content)}")
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.head(206, Content_Length=len(content) - start, Content_Range=span, **version)
    else:
        handler.head(200, Content_Length=len(content), **version)
    handler.wfile.write(content[start:])
    return None


def cut(count: int) -> Callable[[Handler], None]:
    """Promise the whole file, send ``count`` bytes of it and hang up."""

    def answer(handler: Handler) -> None:
        content = handler.site.files[handler.path]
        version = {"ETag": tag(content)} if handler.site.with_tags else {}
        handler.head(200, Content_Length=len(content), **version)
        handler.wfile.write(content[:count])

    return answer


def stall(count: int) -> Callable[[Handler], None]:
    """Send ``count`` bytes and then nothing, without hanging up."""

    def answer(handler: Handler) -> None:
        cut(count)(handler)
        handler.wfile.flush()
        handler.site.over.wait(60)

    return answer


def without_length(count: int | None = None) -> Callable[[Handler], None]:
    """Send a file whose end only the end of the connection tells, or ``count`` bytes of it."""

    def answer(handler: Handler) -> None:
        handler.head(200)
        handler.wfile.write(handler.site.files[handler.path][:count])

    return answer


def chunked(*chunks: bytes, end: bool = True) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if end:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def status(code: int, **headers: object) -> Callable[[Handler], None]:
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def redirect(location: str, code: int = 302) -> Callable[[Handler], None]:
    return status(code, Location=location)


def hang_up(handler: Handler) -> None:
    """Close the connection without an answer."""
    handler.connection.close()


@contextmanager
def running() -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(server.server_address[1])
    server.RequestHandlerClass = type("SiteHandler", (Handler,), {"site": site})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
