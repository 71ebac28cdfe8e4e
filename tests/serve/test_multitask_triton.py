"""Several tasks on the real server: mixed batches against offline predictions, and an adapter that comes and goes."""

import asyncio
import json
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "tritonclient.grpc"):
    pytest.importorskip(package)

import httpx
from serve.adapters import logits_of, save_adapter_file, save_base  # pyright: ignore[reportMissingImports]
from serve.fake_triton import running  # pyright: ignore[reportMissingImports]
from serve.real_triton import KEY, free_ports, is_installed, wait_for_port  # pyright: ignore[reportMissingImports]
from serve.test_triton_server import ROOT, infer, statistics, texts  # pyright: ignore[reportMissingImports]

from bert.client.ask import AskConfig, open_asker
from bert.config import parse_args
from bert.gateway.app import GatewayConfig
from bert.serve.repository import ExportConfig, export
from bert.serve.server import ServerConfig, TritonServer
from bert.serve.text import build_front, ranked
from bert.tokenization import BertTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.server]
KINDS = {"rte": ("pals", ["yes", "no"]), "mnli": ("houlsby", ["a", "b", "c"]), "sts": ("low_rank", [])}
ENGINE = "bert_multitask_engine"


@pytest.fixture(scope="module")
def served(tmp_path_factory, write_vocabulary):
    """A server of a base and three adapters; the fourth waits outside."""
    if not is_installed():
        pytest.skip("Triton's wheel is not installed")
    grpc = pytest.importorskip("tritonclient.grpc")
    folder = tmp_path_factory.mktemp("served")
    vocabulary, models = write_vocabulary(folder / "vocab.txt"), {}
    base = save_base(folder / "base.bin", vocabulary)
    (folder / "adapters").mkdir()
    for number, (name, each) in enumerate(KINDS.items()):
        models[name] = save_adapter_file(folder / "adapters" / f"{name}.safetensors", base, *each, seed=number)
    models["late"] = save_adapter_file(folder / "late.safetensors", base, "top_bert_layer", ["x", "y"], seed=9)
    values = {"checkpoint": folder / "base.bin", "task": "multitask", "output": folder / "models"}
    values |= {"adapters": folder / "adapters", "max_seq_length": 64, "queue_delay": 100_000}
    export(parse_args(ExportConfig, [f"--{name}={value}" for name, value in values.items()]), lambda line: None)
    http, port, metrics = free_ports(3)
    config = ServerConfig(str(folder / "models"), http, port, metrics, cache_mb=1, allow_root=True)
    front = build_front({"task": "multitask", "max_seq_length": 64}, BertTokenizer(vocabulary))
    with TritonServer(config, KEY) as server:
        (server._folder / "empty" / "bert").symlink_to(ROOT / "bert")
        server.start()
        wait_for_port(port, server._process, folder / "vocab.txt")
        with grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
            adapters, address = folder / "models" / ENGINE / "adapters", f"127.0.0.1:{port}"
            yield SimpleNamespace(
                client=client, grpc=grpc, models=models, front=front, adapters=adapters, late=folder, address=address
            )


def check_reply(served, got, row, **values):
    """Against the front in this process and the model that the task was trained in."""
    (one,) = served.front.prepare(values).inputs
    labels = KINDS.get(values["task"], ("", ["x", "y"]))[1]
    expected = ranked(logits_of(served.models[values["task"]], one.ids, one.types), labels)
    assert got["probability"][row, 0] == pytest.approx(expected["probability"], rel=1e-3)
    found, wanted = json.loads(got["scores"][row, 0]), json.loads(expected["scores"])
    if labels:
        assert got["label"][row, 0].decode() == expected["label"]
        assert [each["label"] for each in found] == [each["label"] for each in wanted]
    else:
        assert float(found[0]["label"]) == pytest.approx(float(wanted[0]["label"]), abs=2e-4)


def listed(served):
    facts = json.loads(infer(served, "bert_multitask", text="river")["tasks"].item())
    return [task["name"] for task in facts["tasks"]], facts["refused"]


def check_clients(served):
    """The gateway and both clients."""
    item = {"text": "the green river", "text_pair": "a song"}

    async def ask(task, **where):
        async with open_asker(AskConfig(**where), task) as asker:
            return await asker.ask(item)

    with running(GatewayConfig(triton=served.address)) as url:
        by_http, by_grpc = asyncio.run(ask("rte", url=url)), asyncio.run(ask("rte", grpc=served.address))
        assert by_http["probability"] == pytest.approx(by_grpc["probability"], rel=1e-4)
        assert by_http["label"] == by_grpc["label"] and len(by_http["scores"]) == 2
        refused = httpx.post(f"{url}/v1/classify", json={"task": "late", **item})
        line = "task 'late': expected one of mnli, rte, sts"
        assert (refused.status_code, refused.json()) == (422, {"error": line})
        assert asyncio.run(ask("late", grpc=served.address)) == {"error": line}
        assert [task["name"] for task in httpx.get(f"{url}/v1/tasks").json()["tasks"]] == ["mnli", "rte", "sts"]


def test_tasks_share_batches_and_an_adapter_comes_and_goes(served):
    exception = pytest.importorskip("tritonclient.utils").InferenceServerException
    asked = [
        {"task": task, "text": f"green {'river ' * number}", "text_pair": "the song" if number % 2 else ""}
        for number, task in enumerate([*KINDS] * 3)
    ]
    before, found = statistics(served, ENGINE), {}

    def send(number):
        found[number] = infer(served, "bert_multitask", **asked[number])

    threads = [threading.Thread(target=send, args=[number]) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, values in enumerate(asked):
        check_reply(served, found[number], 0, **values)
    names = list(KINDS)
    one = infer(served, "bert_multitask", task=texts(*names), text=texts("a", "seven", "the stone"))
    for row, (name, text) in enumerate(zip(names, ("a", "seven", "the stone"), strict=True)):
        check_reply(served, one, row, task=name, text=text)
    assert statistics(served, ENGINE).execution_count - before.execution_count < 5  # of 12 requests

    def refusal():
        with pytest.raises(exception) as error:
            infer(served, "bert_multitask", task="late", text="river")
        assert "INVALID_ARGUMENT" in str(error.value.status())
        return error.value.message()

    assert refusal() == "task 'late': expected one of mnli, rte, sts"
    shutil.copy(served.late / "late.safetensors", served.adapters)
    check_reply(served, infer(served, "bert_multitask", task="late", text="river"), 0, task="late", text="river")
    (served.adapters / "bad.safetensors").write_bytes(b"not one")
    (served.adapters / "late.safetensors").unlink()
    end = time.monotonic() + 20  # it looks once a second
    while "late" in listed(served)[0]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert refusal() == "task 'late': expected one of mnli, rte, sts"
    check_clients(served)
    names, refused = listed(served)
    assert names == ["mnli", "rte", "sts"]
    assert len(refused) == 1 and refused[0].startswith("bad.safetensors: ")
    check_reply(served, infer(served, "bert_multitask", task="rte", text="river"), 0, task="rte", text="river")
