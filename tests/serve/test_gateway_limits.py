"""What the gateway refuses, over real connections: sizes, forms, hosts, origins, rates and numbers of requests."""

import json
import socket
import threading
import time

import pytest

for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "tritonclient.grpc"):
    pytest.importorskip(package)

import httpx
from fake_triton import FakeTriton, running, wait_until

from bert.gateway.app import GatewayConfig
from bert.gateway.limits import ADDRESSES, Limits, Rates, address_of
from bert.gateway.refusal import MAX_LINE

LIMITS = Limits(
    ["Bert.example"], rate=0, max_body_bytes=5000, body_seconds=0.5, max_question_chars=20, max_context_chars=100
)
HEAD = "POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUESTION = '{"question": "Who?", "context": "Ada."}'


@pytest.fixture(scope="module")
def triton():
    with FakeTriton() as fake:
        yield fake


@pytest.fixture(scope="module")
def client(triton):
    config = GatewayConfig(triton=triton.address, limits=LIMITS)
    with running(config) as url, httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield client


def post(client: httpx.Client, body: str | bytes, **headers: str) -> tuple[int, str]:
    """Return the status, and the error or the answer."""
    named = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    reply = client.post("/v1/answer", content=body, headers=named)
    assert reply.headers["x-content-type-options"] == "nosniff"
    return reply.status_code, reply.json().get("error") or reply.json()["answer"]


def exchange(client: httpx.Client, sent: str | bytes, seconds: float = 10) -> tuple[int, dict]:
    """Send bytes by hand; returns the status and the JSON of the reply."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=seconds) as connection:
        connection.sendall(sent.encode() if isinstance(sent, str) else sent)
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith(b"}"):
            part = connection.recv(65536)
            if not part:
                break
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(client):
    refused = (413, {"error": "body: larger than 5000 bytes (--max_body_bytes)"})
    assert exchange(client, f"{HEAD}Content-Length: 5001\r\n\r\n") == refused
    assert exchange(client, f"{HEAD}Content-Length: {'9' * 20}\r\n\r\n") == refused
    text = " " * 5000
    assert post(client, text)[0] == 400  # not JSON: exactly 5,000 bytes are read


def test_a_client_that_sends_all_of_a_large_body_sees_why_it_is_refused(client):
    """Closing the connection while a body arrives would reset it, and the answer with it."""
    assert post(client, b" " * 20_000_000) == (413, "body: larger than 5000 bytes (--max_body_bytes)")


@pytest.mark.parametrize("length", ["", "Content-Length: \r\n", "Content-Length: -1\r\n", "Content-Length: 1e3\r\n"])
def test_a_body_without_a_length(client, length):
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        connection.sendall(f"{HEAD}{length}\r\n".encode())
        status = int(connection.recv(65536).split()[1])
    assert status == (400 if length else 411)  # a malformed length is no HTTP at all


def test_chunked_bodies(client):
    line = {"error": "Content-Length: needed; chunked bodies are not accepted"}
    chunked = "Transfer-Encoding: chunked\r\n"
    assert exchange(client, f"{HEAD}{chunked}\r\n5\r\n") == (411, line)
    assert exchange(client, f"{HEAD}{chunked}Content-Length: 5\r\n\r\n5\r\n")[0] in (400, 411)
    assert exchange(client, f"{HEAD}{chunked}\r\n" + "1\r\n{\r\n" * 100_000)[0] == 411


def test_a_body_that_does_not_come(client):
    status, reply = exchange(client, f"{HEAD}Content-Length: 100\r\n\r\n{{")
    assert (status, reply) == (408, {"error": "body: not here after 0.5 s (--body_seconds)"})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
def test_other_content_types(client, kind):
    assert post(client, QUESTION, content_type=kind) == (415, "Content-Type: expected application/json")


def test_the_content_type_may_have_parameters(client):
    assert post(client, QUESTION, content_type="Application/JSON; charset=utf-8") == (200, "Ada.")


def test_compressed_bodies(client):
    assert post(client, QUESTION, content_encoding="gzip")[0] == 415


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1:80:80", "localhost:x", "[::1", ""]
)
def test_foreign_hosts(client, host):
    assert post(client, QUESTION, host=host)[0] == 421
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080", "bert.example:443"])
def test_own_hosts(client, host):
    assert post(client, QUESTION, host=host) == (200, "Ada.")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "file://", "http://[", "localhost:8080"]
)
def test_pages_of_other_servers(client, origin):
    refused = (403, "Origin: a page of another server may not ask here")
    assert post(client, QUESTION, host="localhost:8080", origin=origin) == refused


def test_the_own_page(client):
    assert post(client, QUESTION, host="localhost:8080", origin="http://localhost:8080") == (200, "Ada.")


def test_nothing_allows_other_origins(client):
    reply = client.options("/v1/answer", headers={"access-control-request-method": "POST"})
    assert reply.status_code == 405
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 400, "body: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"question": "a\nb", "context": "c"}', 400, "body: not JSON (Invalid control character at: line 1 column 16"),
        (b'{"question": "\xff", "context": "c"}', 400, "body: not JSON ("),
        ("[" * 4900, 400, "body: "),
        (f'{{"n_best": {"9" * 4800}}}', 400, "body: not JSON ("),
        ("5", 422, "body: Input should be a valid"),
        ("null", 422, "body: Input should be a valid"),
        ("{}", 422, "question: Field required"),
        ('{"question": "Who?", "context": 5}', 422, "context: Input should be a valid string"),
        ('{"question": "Who?", "context": "\\ud800"}', 422, "context: half a character, such as \\ud800 alone"),
        ('{"question": "Who?", "context": "Ada.", "\\ud800": 1}', 422, "body: Input should be a valid string"),
        ('{"question": "Who?", "context": "Ada.", "model": "bert"}', 422, "model: Extra inputs are not permitted"),
        ('{"question": " \\u3000\\n", "context": "Ada."}', 422, "question: expected some text"),
        ('{"question": "Who?", "context": ""}', 422, "context: expected some text"),
        (
            '{"question": "Who?", "context": "a", "n_best": 0}',
            422,
            "n_best: Input should be greater than or equal to 1",
        ),
        ('{"question": "Who?", "context": "a", "n_best": 21}', 422, "n_best: Input should be less than or equal to 20"),
        ('{"question": "Who?", "context": "a", "n_best": true}', 422, "n_best: Input should be a valid integer"),
        ('{"question": "Who?", "context": "a", "n_best": "3"}', 422, "n_best: Input should be a valid integer"),
        ('{"question": "Who?", "context": "a", "n_best": NaN}', 422, "n_best: Input should be a valid integer"),
    ],
)
def test_malformed_requests(client, body, status, error):
    found = post(client, body)
    assert found[0] == status and found[1].startswith(error)
    assert len(found[1]) <= MAX_LINE


@pytest.mark.parametrize(("field", "most"), [("question", 20), ("context", 100)])
def test_long_texts(client, field, most):
    asked = {"question": "Who?", "context": "Ada."}
    assert client.post("/v1/answer", json=asked | {field: "🎉" * most}).status_code == 200
    reply = client.post("/v1/answer", json=asked | {field: "🎉" * (most + 1)})
    line = f"{field}: {most + 1} characters, expected at most {most} (--max_{field}_chars)"
    assert (reply.status_code, reply.json()) == (422, {"error": line})


def test_control_characters_are_text(client):
    assert post(client, '{"question": "\\u0000\\u0007?", "context": "\\u0001Ada."}') == (200, "\x01Ada.")


PATHS = ["/v2/repository/index", "/v2/models/bert_qa/infer", "/v1/../v2/repository/index", "/v1/%2e%2e/v2/health/live"]
PATHS += ["/v1/answer/", "//v1/answer", "/v1", "/page/page.js", "/..%2f..%2fetc/passwd", "/%00", "/index.html"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_other_paths(client, method, path):
    body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" if method == "POST" else "\r\n"
    reply = exchange(client, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{body}")
    assert reply == (404, {"error": "Not Found"})


def test_other_methods(client):
    reply = client.get("/v1/answer")
    assert (reply.status_code, reply.json(), reply.headers["allow"]) == (405, {"error": "Method Not Allowed"}, "POST")
    assert client.post("/healthz").status_code == client.put("/").status_code == 405


def test_every_response_has_the_policy(client):
    for path in ("/", "/page.js", "/page.css", "/healthz", "/metrics", "/openapi.json", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["referrer-policy"] == "no-referrer"


def test_rates_by_hand():
    now = [0.0]
    rates = Rates(rate=2, burst=3, clock=lambda: now[0])
    assert [rates.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rates.wait("b") == 0
    now[0] = 0.25
    assert rates.wait("a") == 0.25
    now[0] = 0.5
    assert [rates.wait("a"), rates.wait("a")] == [0, 0.5]
    now[0] = 100.0
    assert [rates.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    for number in range(2 * ADDRESSES):
        rates.wait(f"c{number}")
    assert len(rates._buckets) == ADDRESSES


def test_a_network_of_ipv6_is_one_client():
    first, second = (address_of({"client": (f"2001:db8:1:2:{end}", 5)}) for end in ("a:b:c:d", "1:2:3:4"))
    assert first == second != address_of({"client": ("2001:db8:1:3:a:b:c:d", 5)})


def test_the_rate(triton):
    with running(GatewayConfig(triton=triton.address, limits=Limits(rate=0.1, burst=2))) as url:
        replies = [httpx.post(f"{url}/v1/embed", json={"text": "x"}) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert replies[2].json() == {"error": "more than 0.1 requests a second from your address"}
        assert 1 <= int(replies[2].headers["retry-after"]) <= 11
        forged = {"x-forwarded-for": "192.0.2.1"}
        assert httpx.post(f"{url}/v1/embed", json={"text": "x"}, headers=forged).status_code == 429
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_requests_at_once(triton):
    limits = Limits(rate=0, max_in_flight=2, deadline_seconds=20)
    config = GatewayConfig(triton=triton.address, limits=limits)
    with running(config) as url, httpx.Client(base_url=url, timeout=20) as client:
        hanging = [open_request(client, '{"text": "hang"}') for _ in range(2)]
        wait_until(lambda: triton.hanging == 2)
        reply = client.post("/v1/embed", json={"text": "x"})
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert reply.json() == {"error": "too many requests at once, try again shortly"}
        for connection in hanging:
            connection.close()
        wait_until(lambda: client.post("/v1/embed", json={"text": "x"}).status_code == 200)


def test_slow_bodies_do_not_take_the_places_of_others(triton):
    limits = Limits(rate=0, max_in_flight=2, body_seconds=20)
    config = GatewayConfig(triton=triton.address, limits=limits)
    with running(config) as url, httpx.Client(base_url=url, timeout=20) as client:
        slow = [open_request(client, "{", length=50) for _ in range(3)]
        time.sleep(0.2)
        assert client.post("/v1/embed", json={"text": "x"}).status_code == 200
        slow.append(open_request(client, "{", length=50))
        wait_until(lambda: client.post("/v1/embed", json={"text": "x"}).status_code == 503)
        for connection in slow:
            connection.close()
        wait_until(lambda: client.post("/v1/embed", json={"text": "x"}).status_code == 200)


def open_request(client: httpx.Client, body: str, length: int | None = None) -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    head = HEAD.replace("answer", "embed") + f"Content-Length: {length or len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


def test_many_clients_at_once_all_get_json(client):
    statuses: list[int] = []

    def ask() -> None:
        for _ in range(10):
            statuses.append(httpx.post(client.base_url.join("/v1/embed"), json={"text": "x"}, timeout=20).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 80
