"""A gateway of the standard library: it answers with the first word of the context.

A context "busy ..." is refused once with a pause, "broken" gets a reply that is not JSON, "fault" a 500, "cut" no
reply, and "wait N" takes N seconds::

    with fake_gateway() as gateway:
        gateway.url, gateway.most           # the most requests that were in flight at once
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeGateway:
    url: str = ""
    most: int = 0
    running: int = 0
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def reply_to(gateway: FakeGateway, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    try:
        asked = json.loads(body)
        if "task" in asked:
            return classify(asked)
        question, context = asked["question"], asked["context"]
        assert isinstance(question, str) and question.strip() and isinstance(context, str)
        assert len(question) + len(context) < 50_000
        assert set(asked) <= {"question", "context", "n_best"} and 1 <= asked.get("n_best", 1) <= 20
        (question + context).encode()
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        return 422, b'{"error": "not a question"}', {}
    word = context.split()[0]
    again = context in gateway.seen
    gateway.seen.append(context)
    if word == "busy" and not again:
        return 503, b'{"error": "busy"}', {"retry-after": "0"}
    if word == "broken":
        return 200, b"<html>", {}
    if word == "fault":
        return 500, b'{"error": "internal error"}', {}
    if word == "wait":
        time.sleep(float(context.split()[1]))
    span = {"start": 0, "end": len(word), "probability": 0.75}
    return 200, json.dumps({"answer": word, **span, "nbest": [{"text": word, **span}]}).encode(), {}


def classify(asked: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    """The label is the task and all texts; one that is unknown is refused."""
    if asked["task"] == "unknown":
        return 422, b'{"error": "task \'unknown\': expected one of mrpc"}', {}
    share = {"label": " ".join(asked[name] for name in sorted(asked)), "probability": 0.75}
    return 200, json.dumps({**share, "scores": [share, {"label": "other", "probability": 0.25}]}).encode(), {}


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    gateway = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(200, b"{}", {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with gateway.lock:
                gateway.running += 1
                gateway.most = max(gateway.most, gateway.running)
            reply = reply_to(gateway, body)
            with gateway.lock:
                gateway.running -= 1
            if b'"cut' in body:
                self.close_connection = True
            else:
                self.send(*reply)

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield gateway
        server.shutdown()
        thread.join()
