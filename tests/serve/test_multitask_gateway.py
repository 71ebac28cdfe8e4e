"""Several tasks at the gateway and its page, before a stand-in of Triton."""

import json
import logging

import pytest

for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "tritonclient.grpc"):
    pytest.importorskip(package)

import fake_triton
import httpx
from fake_triton import FakeTriton, running, wait_until

from bert.gateway.app import GatewayConfig
from bert.gateway.watchdog import WatchdogConfig

FAST = WatchdogConfig(probe_seconds=0.05, probe_deadline=1.0)
TASKS = [{"name": "cola", "labels": ["bad", "good"]}, {"name": "sts", "labels": []}]


@pytest.fixture
def facts(monkeypatch):
    """Return a function that sets what the model says of its tasks."""

    def change(tasks, refused=()):
        monkeypatch.setattr(fake_triton, "FACTS", [json.dumps({"tasks": tasks, "refused": list(refused)})])

    return change


@pytest.fixture(scope="module")
def client():
    with FakeTriton(models=["bert_classifier", "bert_multitask"]) as triton:
        config = GatewayConfig(triton=triton.address, watchdog=FAST)
        with running(config) as url, httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            yield client


def test_a_task_is_asked_by_name(client):
    asked = [{"text": "good film", "task": "cola"}, {"text": "dull", "text_pair": "bad"}, {"text": "x", "task": "sts"}]
    labels = [each["label"] for each in client.post("/v1/classify", json=asked).json()]
    assert labels == ["cola good", "dull", "sts x"]  # the second by the classifier
    one = client.post("/v1/classify", json={"text": "a", "text_pair": "b", "task": "cola"}).json()
    assert one == {"label": "cola a", "probability": 0.7, "scores": [{"label": "a b", "probability": 0.7}]}


@pytest.mark.parametrize(
    ("task", "line"),
    [(" ", "task: expected some text"), ("\ud800", "task: half a character, such as \\ud800 alone"), (5, "task: ")],
)
def test_names_that_are_no_text(client, task, line):
    reply = client.post("/v1/classify", content=json.dumps({"text": "a", "task": task}), headers=JSON)
    assert reply.status_code == 422 and reply.json()["error"].startswith(line)


JSON = {"content-type": "application/json"}


def test_the_list_of_tasks_follows_the_model(client, facts, caplog):
    caplog.set_level(logging.INFO, "gateway")
    assert client.get("/v1/tasks").json() == {"tasks": TASKS}
    facts([TASKS[1]], ["rte.safetensors: another base"])
    wait_until(lambda: client.get("/v1/tasks").json() == {"tasks": [TASKS[1]]})
    wait_until(lambda: caplog.text.count("bert_multitask: sts") == 1)
    facts([], ["rte.safetensors: another base"])  # the same line again
    wait_until(lambda: client.get("/v1/tasks").json() == {"tasks": []})
    health = client.get("/healthz")
    assert (health.status_code, health.json()["models"]["bert_multitask"]) == (200, "ok")  # no task yet
    assert caplog.text.count("bert_multitask: rte.safetensors: another base") == 1


def test_a_server_without_tasks():
    with FakeTriton(models=["bert_classifier"]) as triton, running(GatewayConfig(triton=triton.address)) as url:
        gone = {"error": "this server has no model bert_multitask"}
        for reply in (
            httpx.get(f"{url}/v1/tasks"),
            httpx.post(f"{url}/v1/classify", json={"text": "a", "task": "cola"}),
        ):
            assert (reply.status_code, reply.json()) == (404, gone)
