"""A gRPC server with Triton's protocol, in this process, whose models fail on request; and a gateway before it.

The first word of the context or text decides: "hang" never answers, "busy", "wrong", "broken" and "nan" fail in as many
ways, and anything else is the answer itself. A model in ``dead`` fails until it is unloaded and loaded::

    with FakeTriton() as triton, running(GatewayConfig(triton=triton.address)) as url:
        httpx.post(f"{url}/v1/answer", json={"question": "Who?", "context": "Ada."}).json()["answer"]     # "Ada."
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from bert.gateway.app import ADMIN_KEY, GatewayConfig, build_app
from bert.gateway.listen import ListenConfig, build_server, open_socket, url_of

PAGE = Path(__file__).parents[2] / "triton" / "page"
MODELS = ("bert_qa", "bert_classifier", "bert_embed")
TRACE = "Failed to process the request(s): KeyError\n\nAt:\n  /srv/models/bert_qa/1/model.py(15): execute\n"
FAILURES = {
    "busy": (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"),
    "wrong": (grpc.StatusCode.INVALID_ARGUMENT, "context: wrong, expected another\nAt: /srv/models"),
    "quoting": (grpc.StatusCode.INVALID_ARGUMENT, "context: Stub process 'bert_0_0' is not healthy."),
    "memory": (grpc.StatusCode.UNAVAILABLE, "bert: CUDA out of memory"),
    "broken": (grpc.StatusCode.INTERNAL, TRACE),
}
SECONDS = 20.0  # until a test gives up


def wait_until(condition, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, models=MODELS, port: int = 0, key: str = "secret"):
        self.models, self.key = set(models), key
        self.dead: dict[str, str] = {}  # front: the process that is dead
        self.calls: list[tuple[str, str, int]] = []  # model, its first word, priority
        self.admin: list[str] = []
        self.hanging = self.most_hanging = self.cancelled = 0
        self.failing_loads, self.load_seconds, self.lock = 0, 0.0, threading.Lock()
        self.server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self) -> None:
        self.server.stop(0).wait()

    def words(self, model: str) -> list[str]:
        """The first words that the model was asked, without the probes."""
        return [word for name, word, priority in self.calls if name == model and priority != 1]

    def ModelInfer(self, request, context):
        values = {
            tensor.name: deserialize_bytes_tensor(raw)[0].decode()
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
            if tensor.datatype == "BYTES"
        }
        assert all(list(tensor.shape) == [1, 1] for tensor in request.inputs)
        word = values.get("context", values.get("text", "")).split()[0]
        name = request.model_name
        self.calls.append((name, word, request.parameters["priority"].uint64_param))
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        if name in self.dead:
            stub = self.dead[name]
            code = grpc.StatusCode.INTERNAL if stub.startswith(name) else grpc.StatusCode.UNAVAILABLE  # its engine's
            context.abort(code, f"engine: Stub process '{stub}' is not healthy.")
        if word == "hang":
            self.hang(context)
        if word in FAILURES:
            context.abort(*FAILURES[word])
        return to_response(name, OUTPUTS[name](word, values))

    def hang(self, context) -> None:
        left = threading.Event()
        context.add_callback(left.set)
        with self.lock:
            self.hanging += 1
            self.most_hanging = max(self.most_hanging, self.hanging)
        has_left = left.wait(SECONDS)
        with self.lock:
            self.hanging -= 1
            self.cancelled += has_left

    def check_key(self, context) -> None:
        if ("triton-grpc-protocol-admin-key", self.key) not in [tuple(each) for each in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header")

    def RepositoryModelUnload(self, request, context):
        self.check_key(context)
        self.admin.append(f"unload {request.model_name}")
        self.models.discard(request.model_name)
        self.dead = {front: stub for front, stub in self.dead.items() if not stub.startswith(f"{request.model_name}_")}
        return service_pb2.RepositoryModelUnloadResponse()

    def RepositoryModelLoad(self, request, context):
        self.check_key(context)
        time.sleep(self.load_seconds)
        self.admin.append(f"load {request.model_name}")
        if self.failing_loads:
            self.failing_loads -= 1
            context.abort(grpc.StatusCode.INTERNAL, "load failed: no memory")
        self.models.add(request.model_name)
        return service_pb2.RepositoryModelLoadResponse()


def qa_outputs(word, values):
    if word == "unanswerable":
        spans = [{"text": "", "start": None, "end": None, "probability": 0.9}]
        return {"answer": "", "start": -1, "end": -1, "probability": 0.9, "nbest": json.dumps(spans)}
    start = values["context"].index(word)
    span = {"text": word, "start": start, "end": start + len(word), "probability": 0.5}
    spans = [span]
    if word == "twice":
        second = values["context"].split()[1]
        spans.append({"text": second, "start": len("twice "), "end": len(f"twice {second}"), "probability": 0.25})
    probability = float("nan") if word == "nan" else 0.5
    return {**span, "answer": word, "probability": probability, "nbest": json.dumps(spans)}


OUTPUTS = {
    "bert_qa": qa_outputs,
    "bert_classifier": lambda word, values: {
        "label": word,
        "probability": 0.7,
        "scores": json.dumps([{"label": f"{word} {values.get('text_pair')}", "probability": 0.7}]),
    },
    "bert_embed": lambda word, values: {"embedding": [0.6, -0.8]},
    "bert_multitask": lambda word, values: {
        **(
            {"label": f"{values['task']} {word}", "tasks": ""} if "task" in values else {"label": "", "tasks": FACTS[0]}
        ),
        "probability": 0.7,
        "scores": json.dumps([{"label": f"{word} {values.get('text_pair')}", "probability": 0.7}]),
    },
}
FACTS = ['{"tasks": [{"name": "cola", "labels": ["bad", "good"]}, {"name": "sts", "labels": []}], "refused": []}']


def to_response(model: str, outputs: dict):
    response = service_pb2.ModelInferResponse(model_name=model)
    for name, value in outputs.items():
        if isinstance(value, str):
            kind, raw, width = "BYTES", serialize_byte_tensor(np.array([[value.encode()]], dtype=object)).item(), 1
        else:
            array = np.atleast_1d(np.array(value, dtype=np.int32 if isinstance(value, int) else np.float32))
            kind, raw, width = {"i": "INT32", "f": "FP32"}[array.dtype.kind], array.tobytes(), len(array)
        response.outputs.add(name=name, datatype=kind, shape=[1, width])
        response.raw_output_contents.append(raw)
    return response


@contextmanager
def running(config: GatewayConfig, key: str = "secret") -> Iterator[str]:
    """Run the gateway with uvicorn in a thread; yields its URL."""
    listen = ListenConfig(port=0)
    opened = open_socket(listen)
    with patch.dict(os.environ, {ADMIN_KEY: key}):
        server = build_server(build_app(config, PAGE), listen)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[opened])))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield url_of(opened)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()
