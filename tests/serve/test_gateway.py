"""The gateway before a stand-in of Triton: answers, lists, errors, health, and the restarts of dead models."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "tritonclient.grpc"):
    pytest.importorskip(package)

import httpx
from fake_triton import FakeTriton, running, wait_until

from bert.gateway.app import GatewayConfig
from bert.gateway.limits import Limits
from bert.gateway.listen import ListenConfig, open_socket
from bert.gateway.watchdog import WatchdogConfig

ROOT = Path(__file__).parents[2]
FAST = WatchdogConfig(probe_seconds=0.05, probe_deadline=1.0)
SEVERAL = Limits(rate=0, list_parallel=3, max_list=8, deadline_seconds=15.0)


@pytest.fixture(scope="module")
def triton():
    with FakeTriton() as fake:
        yield fake


@pytest.fixture(scope="module")
def client(triton):
    config = GatewayConfig(triton=triton.address, limits=SEVERAL)
    with running(config) as url, httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield client


def question(context: str) -> dict:
    return {"question": "Who?", "context": context}


def test_an_answer_has_offsets_into_the_context(client):
    reply = client.post("/v1/answer", json=question("  Ada\U0001f389 wrote it."))
    span = {"text": "Ada\U0001f389", "start": 2, "end": 6, "probability": 0.5}
    assert (reply.status_code, reply.json()) == (
        200,
        {"answer": "Ada\U0001f389", "start": 2, "end": 6, "probability": 0.5, "nbest": [span]},
    )


def test_no_answer_has_no_offsets(client):
    answer = client.post("/v1/answer", json=question("unanswerable")).json()
    assert (answer["answer"], answer["start"], answer["end"]) == ("", None, None)


def test_classify_and_embed(client):
    label = client.post("/v1/classify", json={"text": "good film", "text_pair": "bad"}).json()
    assert label == {"label": "good", "probability": 0.7, "scores": [{"label": "good bad", "probability": 0.7}]}
    # fp32 in the fewest digits: 0.6, not 0.6000000238418579
    assert client.post("/v1/embed", json={"text": "x"}).json() == {"embedding": [0.6, -0.8]}
    assert client.post("/v1/embed", json=[{"text": "x"}] * 2).json() == [{"embedding": [0.6, -0.8]}] * 2


def test_a_list_is_answered_item_by_item(client):
    items = [question("Ada"), question(""), 5, question("wrong"), question("Babbage")]
    reply = client.post("/v1/answer", json=items)
    assert reply.status_code == 200
    first, empty, number, wrong, last = reply.json()
    assert (first["answer"], last["answer"]) == ("Ada", "Babbage")
    assert empty == {"error": "context: expected some text"}
    assert number["error"].startswith("body: ")
    assert wrong == {"error": "context: wrong, expected another"}


@pytest.mark.parametrize(
    ("items", "status", "line"),
    [
        ([{}, 5], 422, "question: Field required"),
        ([question("busy")] * 2, 503, "the model server is busy, try again shortly"),
        ([question("x")] * 9, 422, "body: 9 objects, expected at most 8 (--max_list)"),
    ],
)
def test_a_list_that_fails_as_a_whole(client, items, status, line):
    reply = client.post("/v1/answer", json=items)
    assert (reply.status_code, reply.json()) == (status, {"error": line})


def test_an_empty_list_has_an_empty_answer(client):
    assert client.post("/v1/answer", json=[]).json() == []


@pytest.mark.parametrize(
    ("context", "status", "line"),
    [
        ("busy", 503, "the model server is busy, try again shortly"),
        ("wrong", 422, "context: wrong, expected another"),
        ("broken", 502, "bert_qa failed"),
        ("memory", 503, "bert_qa failed"),
        ("nan", 502, "the model returned a number that is not finite"),
    ],
)
def test_errors_of_the_model(client, context, status, line):
    reply = client.post("/v1/answer", json=question(context))
    assert (reply.status_code, reply.json()) == (status, {"error": line})
    assert ("retry-after" in reply.headers) == (context == "busy")


def test_an_error_that_quotes_the_client_reloads_nothing(client, triton):
    """Or anybody could have the models reloaded all day."""
    assert client.post("/v1/answer", json=question("quoting")).status_code == 422
    assert triton.admin == []


def post_and_leave(client: httpx.Client, body: object) -> socket.socket:
    """Send a request by hand and return the connection, which the caller closes."""
    text = json.dumps(body).encode()
    head = (
        f"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    )
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    connection.sendall(head.encode() + b"\r\n\r\n" + text)
    return connection


def test_a_client_that_leaves_cancels_its_requests(client, triton):
    before = triton.cancelled
    connection = post_and_leave(client, question("hang"))
    wait_until(lambda: triton.hanging == 1)
    connection.close()
    wait_until(lambda: triton.cancelled == before + 1, seconds=5)
    assert 'status="499"' in client.get("/metrics").text


def test_a_list_keeps_few_requests_in_flight_and_leaves_with_its_client(client, triton):
    before, triton.most_hanging = triton.cancelled, 0
    connection = post_and_leave(client, [question("hang")] * 8)
    wait_until(lambda: triton.hanging == 3)
    time.sleep(0.2)
    connection.close()
    wait_until(lambda: triton.cancelled == before + 3, seconds=5)
    assert triton.most_hanging == 3  # --list_parallel


def test_the_deadline(triton):
    config = GatewayConfig(triton=triton.address, limits=Limits(deadline_seconds=0.3))
    before = triton.cancelled
    with running(config) as url:
        reply = httpx.post(f"{url}/v1/answer", json=question("hang"), trust_env=False)
        assert (reply.status_code, reply.json()) == (504, {"error": "no answer in time, try a shorter text or later"})
        wait_until(lambda: triton.cancelled == before + 1)


def test_models_that_the_server_lacks():
    with FakeTriton(models=["bert_qa"]) as triton:
        config = GatewayConfig(triton=triton.address, watchdog=FAST)
        with running(config) as url, httpx.Client(base_url=url, trust_env=False) as client:
            reply = client.post("/v1/classify", json={"text": "x"})
            assert (reply.status_code, reply.json()) == (404, {"error": "this server has no model bert_classifier"})
            assert client.get("/healthz").json() == {"status": "ok", "models": {"bert_qa": "ok"}}
        assert triton.admin == []


def test_probes_go_ahead_of_the_queue_and_differ(client, triton):
    assert client.get("/healthz").json()["status"] == "ok"
    probes = [call for call in triton.calls if call[2] == 1]
    assert {name for name, *_ in probes} == {"bert_qa", "bert_classifier", "bert_embed", "bert_multitask"}


def test_the_server_may_be_down_and_come_back():
    with FakeTriton() as triton:
        port = triton.port
        config = GatewayConfig(triton=triton.address, watchdog=FAST)
        with running(config) as url, httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            assert client.post("/v1/answer", json=question("Ada")).status_code == 200
            triton.stop()
            reply = client.post("/v1/answer", json=question("Ada"))
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.json() == {"error": "the model server is not reachable, try again shortly"}
            health = client.get("/healthz")
            assert (health.status_code, health.json()["status"]) == (503, reply.json()["error"])
            with FakeTriton(port=port, models=["bert_qa"]):
                wait_until(lambda: client.get("/healthz").status_code == 200, seconds=10)
                assert client.post("/v1/answer", json=question("Ada")).json()["answer"] == "Ada"
                assert client.get("/healthz").json()["models"] == {"bert_qa": "ok"}


@pytest.mark.parametrize(("stub", "reloaded"), [("bert_qa_0_1", "bert_qa"), ("bert_0_0", "bert")])
def test_a_dead_process_is_reloaded_as_soon_as_a_request_meets_it(stub, reloaded):
    with FakeTriton() as triton:
        triton.load_seconds = 1.0
        config = GatewayConfig(triton=triton.address, watchdog=WatchdogConfig(probe_seconds=60))
        with running(config) as url, httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            assert client.get("/healthz").json()["status"] == "ok"
            triton.dead["bert_qa"] = stub
            hanging = post_in_thread(url, question("hang"))
            reply = client.post("/v1/answer", json=question("Ada"))
            line = f"{reloaded} is being restarted, try again shortly"
            assert (reply.status_code, reply.json(), reply.headers["retry-after"]) == (503, {"error": line}, "2")
            # While it loads, requests are refused without being sent, and other models answer.
            asked = len(triton.words("bert_qa"))
            assert client.post("/v1/answer", json=question("Ada")).status_code == 503
            assert len(triton.words("bert_qa")) == asked
            assert client.post("/v1/embed", json={"text": "x"}).status_code == 200
            health = client.get("/healthz")
            assert (health.status_code, health.json()["status"]) == (503, f"restarting {reloaded}")
            wait_until(lambda: client.post("/v1/answer", json=question("Ada")).status_code == 200, seconds=5)
            assert triton.admin == [f"unload {reloaded}", f"load {reloaded}"]
            assert f'reloads_total{{model="{reloaded}",result="ok"}} 1.0' in client.get("/metrics").text
            assert hanging() == 503


def post_in_thread(url: str, body: object):
    """Post, and return a function that waits for the status."""
    statuses: list[int] = []
    thread = threading.Thread(
        target=lambda: statuses.append(httpx.post(f"{url}/v1/answer", json=body, timeout=20).status_code)
    )
    thread.start()
    return lambda: (thread.join(), statuses[0])[1]


def test_requests_in_flight_do_not_wait_for_a_dead_process():
    with FakeTriton() as triton:
        config = GatewayConfig(triton=triton.address, limits=SEVERAL, watchdog=WatchdogConfig(probe_seconds=60))
        with running(config) as url:
            start = time.monotonic()
            status = post_in_thread(url, question("hang"))
            wait_until(lambda: triton.hanging == 1)
            triton.load_seconds, triton.dead["bert_qa"] = 2.0, "bert_qa_0_0"
            assert httpx.post(f"{url}/v1/answer", json=question("Ada")).status_code == 503
            assert status() == 503
            assert time.monotonic() - start < 10  # the deadline is 15 s


def test_probes_find_a_dead_process_without_traffic():
    with FakeTriton() as triton, running(GatewayConfig(triton=triton.address, watchdog=FAST)):
        wait_until(lambda: triton.calls)
        triton.dead["bert_embed"] = "bert_embed_0_0"
        wait_until(lambda: triton.admin == ["unload bert_embed", "load bert_embed"])


def test_a_reload_that_fails_is_repeated():
    with FakeTriton() as triton:
        config = GatewayConfig(triton=triton.address, watchdog=FAST)
        with running(config) as url:
            wait_until(lambda: httpx.get(f"{url}/healthz").status_code == 200)
            triton.failing_loads, triton.dead["bert_qa"] = 2, "bert_qa_0_0"
            wait_until(lambda: httpx.get(f"{url}/healthz").json()["status"] == "restarting bert_qa")
            wait_until(lambda: httpx.get(f"{url}/healthz").status_code == 200)
            assert triton.admin == ["unload bert_qa", "load bert_qa"] * 3
            assert 'reloads_total{model="bert_qa",result="failed"} 2.0' in httpx.get(f"{url}/metrics").text


def test_a_slow_model_is_not_reloaded():
    with FakeTriton() as triton:
        config = GatewayConfig(triton=triton.address, watchdog=WatchdogConfig(probe_seconds=0.05, probe_deadline=0.2))
        with patch_probe("hang"), running(config) as url:
            wait_until(lambda: triton.cancelled >= 6)
            health = httpx.get(f"{url}/healthz")
            assert (health.status_code, health.json()["models"]["bert_qa"]) == (
                503,
                "no answer from bert_qa within 0.2 s",
            )
        assert triton.admin == []


def patch_probe(word: str):
    from unittest.mock import patch

    from bert.gateway import watchdog

    probes = {
        front: lambda n, probe=probe: {**probe(n), "context": word, "text": word}
        for front, probe in watchdog.PROBES.items()
    }
    return patch.object(watchdog, "PROBES", probes)


def test_a_wrong_key_is_said_in_the_log_and_does_not_stop_the_gateway(caplog):
    with FakeTriton() as triton, running(GatewayConfig(triton=triton.address, watchdog=FAST), key="wrong") as url:
        triton.dead["bert_qa"] = "bert_qa_0_0"
        wait_until(lambda: "BERT_SERVE_ADMIN_KEY is missing or wrong" in caplog.text)
        assert httpx.post(f"{url}/v1/embed", json={"text": "x"}).status_code == 200
    assert triton.admin == []


def test_metrics_are_followed_by_those_of_triton(triton):
    config = GatewayConfig(triton=triton.address, metrics_url="http://127.0.0.1:9/metrics")
    with running(config) as url:
        text = httpx.get(f"{url}/metrics").text
        assert 'bert_gateway_requests_total{route="/metrics"' not in text
        assert text.endswith("# Triton's metrics are not reachable\n")
        with running(config) as other:
            config.metrics_url = f"{other}/metrics"  # any text will do
            with running(config) as both:
                assert httpx.get(f"{both}/metrics").text.count("# TYPE bert_gateway_in_flight gauge") == 2
        text = httpx.get(f"{url}/metrics").text
        assert 'bert_gateway_requests_total{route="/metrics",status="200"} 1.0' in text


def test_openapi_describes_the_routes(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/v1/answer", "/v1/classify", "/v1/tasks", "/v1/embed", "/healthz", "/metrics"}
    body = described["paths"]["/v1/answer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["anyOf"][0]["required"] == ["question", "context"]
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


@pytest.fixture
def command():
    started = []

    def start(*flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "triton" / "gateway.py"), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_command_says_when_it_is_ready_and_ends_on_sigterm(command):
    with FakeTriton() as triton:
        process = command("--port", "0", "--triton", triton.address)
        line = process.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:")
        assert httpx.get(f"{line.split()[1]}/healthz").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--port", "TAKEN"], "--port TAKEN: Address already in use"),
        (["--triton", "nowhere"], "--triton nowhere: expected HOST:PORT, such as 127.0.0.1:8001"),
        (["--metrics_url", "x"], "--metrics_url x: expected http://HOST:PORT/metrics"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
    ],
)
def test_bad_flags(command, flags, named):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = command(*(flag.replace("TAKEN", port) for flag in flags))
        assert process.wait(20) == 2
        (line,) = process.stderr.read().splitlines()
        assert line.startswith(f"error: {named.replace('TAKEN', port)}")


@pytest.mark.slow
def test_a_missing_package_is_one_line():
    code = f"import runpy, sys; sys.modules['fastapi'] = None; runpy.run_path({str(ROOT / 'triton/gateway.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    line = "error: fastapi is not installed: run `bash triton/setup.sh`\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_answers_leave_without_delay():
    """asyncio sets TCP_NODELAY only on sockets that name their protocol; without it an answer takes 40 ms more."""
    with open_socket(ListenConfig(port=0)) as opened:
        assert opened.proto == socket.IPPROTO_TCP
