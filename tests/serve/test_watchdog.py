"""The gateway before a real Triton whose Python processes are killed."""

import os
import signal
import threading
import time
from collections import Counter

import pytest

for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "tritonclient.grpc"):
    pytest.importorskip(package)

import httpx
from fake_triton import running, wait_until
from real_triton import KEY, free_ports, is_installed, real_triton
from stand_ins import write_repository

from bert.gateway.app import GatewayConfig
from bert.gateway.limits import Limits
from bert.gateway.watchdog import WatchdogConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.skipif(not is_installed(), reason="the package nvidia-pytriton is not installed"),
]
LIMITS = Limits(rate=0, deadline_seconds=20)
QUIET = WatchdogConfig(probe_seconds=60)  # no probe comes in time
PROMISED = 5.0  # seconds from a dead process to the next answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    write_repository(folder / "models", engine_instances=2)
    return folder


@pytest.fixture(scope="module")
def triton(folder):
    with real_triton(folder / "models", folder) as server:
        yield server


@pytest.fixture
def serving(triton):
    """Return a function that starts a gateway, and its client."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(watchdog: WatchdogConfig) -> httpx.Client:
            config = GatewayConfig(triton.grpc, triton.metrics, LIMITS, watchdog)
            url = stack.enter_context(running(config, key=KEY))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=30, trust_env=False))
            wait_until(lambda: client.get("/healthz").json()["models"] == {"bert_qa": "ok", "bert_embed": "ok"})
            return client

        yield start


def ask(client: httpx.Client, context: str = "Ada wrote it.") -> httpx.Response:
    return client.post("/v1/answer", json={"question": "Who?", "context": context})


def kill_one(triton, model: str) -> None:
    os.kill(triton.stubs(model)[-1], signal.SIGKILL)


def test_an_answer_and_the_metrics(serving):
    client = serving(WatchdogConfig())
    answer = ask(client, "Ada\U0001f389 wrote it.").json()
    assert (answer["answer"], answer["start"], answer["end"], answer["nbest"][1]["start"]) == (
        "Ada\U0001f389",
        0,
        4,
        None,
    )
    vector = client.post("/v1/embed", json={"text": "x"}).json()["embedding"]
    assert (len(vector), vector[ord("x")]) == (256, 1.0)
    reply = ask(client, "unreadable text")
    assert (reply.status_code, reply.json()) == (422, {"error": "context: unreadable"})
    text = client.get("/metrics").text
    assert "bert_gateway_in_flight" in text and 'nv_inference_request_success{model="bert_qa"' in text


@pytest.mark.parametrize("model", ["bert_qa", "bert"])
def test_traffic_finds_one_dead_process_of_two(serving, triton, model):
    """No probe helps here: requests meet the dead process, by luck, and the watchdog reloads what is dead."""
    client = serving(QUIET)
    kill_one(triton, model)
    killed = time.monotonic()
    while (reply := ask(client)).status_code == 200:
        assert time.monotonic() < killed + 20, "no request met the dead process"
    assert reply.json() == {"error": f"{model} is being restarted, try again shortly"}
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
    assert reply.elapsed.total_seconds() < 2
    noticed = time.monotonic()
    wait_until(lambda: [ask(client).status_code for _ in range(4)] == [200] * 4, PROMISED)
    assert time.monotonic() - noticed < PROMISED
    assert f'reloads_total{{model="{model}",result="ok"}} 1.0' in client.get("/metrics").text


def test_a_probe_finds_the_only_process_dead(serving, triton):
    client = serving(WatchdogConfig())
    kill_one(triton, "bert_embed")
    wait_until(lambda: client.get("/healthz").json()["status"] == "restarting bert_embed", PROMISED)
    wait_until(lambda: client.get("/healthz").status_code == 200, PROMISED)
    assert client.post("/v1/embed", json={"text": "x"}).status_code == 200


def test_under_load_nothing_hangs(serving, triton):
    client = serving(WatchdogConfig())
    statuses: Counter[int] = Counter()
    slowest, stop = 0.0, threading.Event()

    def keep_asking() -> None:
        nonlocal slowest
        while not stop.is_set():
            reply = ask(client)
            statuses[reply.status_code] += 1
            slowest = max(slowest, reply.elapsed.total_seconds())

    threads = [threading.Thread(target=keep_asking) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    kill_one(triton, "bert")
    wait_until(lambda: statuses[503], PROMISED)
    answered = statuses[200]
    wait_until(lambda: statuses[200] > answered + 50, PROMISED)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}
    assert slowest < PROMISED  # the deadline is 20 s


def test_slow_answers_reload_nothing(serving, triton):
    client = serving(WatchdogConfig(probe_seconds=0.1, probe_deadline=0.5))
    before = triton.stubs("bert")
    threads = [threading.Thread(target=ask, args=(client, f"wait 1 {number}")) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: client.get("/healthz").json()["status"] == "no answer from bert_qa within 0.5 s")
    for thread in threads:
        thread.join()
    wait_until(lambda: client.get("/healthz").status_code == 200)
    assert triton.stubs("bert") == before
    assert "reloads_total{" not in client.get("/metrics").text


def test_the_server_comes_back(folder):
    ports = free_ports(3)
    config = GatewayConfig(f"127.0.0.1:{ports[1]}", limits=LIMITS)
    with running(config, key=KEY) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        line = {"error": "the model server is not reachable, try again shortly"}
        assert (ask(client).status_code, ask(client).json()) == (503, line)
        for _ in range(2):
            with real_triton(folder / "models", folder, ports):
                wait_until(lambda: ask(client).status_code == 200, PROMISED)
            # While the server goes down its models may die first, and are reported as being restarted.
            wait_until(lambda: (ask(client).status_code, ask(client).json()) == (503, line), PROMISED)
            assert client.get("/healthz").status_code == 503
