"""The text models on Triton, over gRPC.

A failed call raises a :class:`Refusal` with what the client may know; :class:`ModelDown` also names the model whose
process has died::

    upstream = Upstream("127.0.0.1:8001", admin_key)
    result = await upstream.infer("bert_qa", {"question": "Who?", "context": "Ada."}, seconds=10)
    result["answer"], result["start"]               # "Ada", 0
"""

import asyncio
import logging
import re
import secrets
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton_grpc
from tritonclient.grpc import InferInput, InferResult
from tritonclient.utils import InferenceServerException

from bert.gateway.refusal import Refusal

LOG = logging.getLogger("gateway")
ADMIN_HEADER = "triton-grpc-protocol-admin-key"
LOAD_SECONDS = 120.0
# Reconnecting starts at 1 s and doubles up to 2 minutes by default: too long for a server that is back in seconds.
CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
# "Stub process 'bert_0_1' is not healthy.": model, group and instance. A front quotes its engine's error.
DEAD_STUB = re.compile(r"Stub process '([^']+?)(?:_\d+_\d+)?' is not healthy")
UNNAMED_STUB = re.compile(r"stub process", re.IGNORECASE)
NOT_LOADED = re.compile(r"Model '([^']+)' is not ready")
FULL_QUEUE = re.compile(r"queue|timeout")
NO_CONNECTION = re.compile(r"connect|socket|recvmsg|GOAWAY|server not ready", re.IGNORECASE)


class ModelDown(Refusal):
    """The process of ``model`` has died, or the model is not loaded: reloading it helps."""

    def __init__(self, model: str):
        super().__init__(503, f"{model} is being restarted, try again shortly", retry_after=2)
        self.model = model


class ModelAbsent(Refusal):
    """The server has no such model."""


class Unreachable(Refusal):
    """There is no server, or it is starting or stopping."""


class Upstream:
    def __init__(self, address: str, admin_key: str | None):
        self._client = triton_grpc.InferenceServerClient(address, channel_args=CHANNEL)
        self._admin = {ADMIN_HEADER: admin_key} if admin_key else {}
        self._waiting: defaultdict[str, set[asyncio.Timeout]] = defaultdict(set)

    async def infer(
        self, model: str, values: Mapping[str, str | int], seconds: float, priority: int = 0
    ) -> dict[str, Any]:
        """Return the outputs, batch dimension removed: str, int, float, or a list of floats.

        ``priority`` 0 is the model's default. Cancelling the call cancels it on the server.
        """
        limit = asyncio.timeout(seconds)
        self._waiting[model].add(limit)
        try:
            async with limit:
                # The server's deadline is a little later, so that one clock decides.
                result = await self._client.infer(
                    model, to_tensors(values), priority=priority, client_timeout=seconds + 0.5
                )
        except TimeoutError:
            raise Refusal(504, "no answer in time, try a shorter text or later") from None
        except InferenceServerException as error:
            raise refusal_of(error, model) from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise unreachable() from None  # the server cancelled the call, not we
        finally:
            self._waiting[model].discard(limit)
        outputs = from_tensors(result)
        if not outputs and "attempt" not in values:
            # Triton 2.51 caches the failure of a request whose process died, as an answer without outputs.
            values = {**values, "attempt": secrets.randbelow(2**31)}
            return await self.infer(model, values, seconds, priority)
        return outputs

    def hurry(self, model: str, seconds: float) -> None:
        """Give the calls in flight to ``model`` at most ``seconds`` more."""
        latest = asyncio.get_running_loop().time() + seconds
        for limit in self._waiting[model]:
            if (when := limit.when()) is not None and when > latest and not limit.expired():
                limit.reschedule(latest)

    async def reload(self, model: str) -> None:
        """Unload and load ``model``: loading alone leaves an unchanged model, and its dead process, as they are."""
        try:
            await self._client.unload_model(model, headers=self._admin, client_timeout=LOAD_SECONDS)
            await self._client.load_model(model, headers=self._admin, client_timeout=LOAD_SECONDS)
        except InferenceServerException as error:
            hint = " (BERT_SERVE_ADMIN_KEY is missing or wrong)" if "restricted" in str(error) else ""
            raise Refusal(503, f"{error.message()}{hint}") from None

    async def close(self) -> None:
        await self._client.close()


def to_tensors(values: Mapping[str, str | int]) -> list[InferInput]:
    """Make a batch of one: [1, 1] for every value."""
    tensors = []
    for name, value in values.items():
        is_text = isinstance(value, str)
        array = np.array([[value.encode("utf8")]], dtype=object) if is_text else np.array([[value]], dtype=np.int32)
        tensor = InferInput(name, [1, 1], "BYTES" if is_text else "INT32")
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def from_tensors(result: InferResult | None) -> dict[str, Any]:
    assert result is not None
    named = {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}
    return {name: to_plain(array[0]) for name, array in named.items() if array is not None}


def to_plain(row: np.ndarray) -> Any:
    """Turn one row into JSON's types; fp32 gets the fewest digits that identify it."""
    if row.dtype == object:
        values = [value.decode("utf8", "replace") for value in row]
    elif row.dtype == np.float32:
        if not np.isfinite(row).all():
            raise Refusal(502, "the model returned a number that is not finite")
        values = [float(str(value)) for value in row]
    else:
        values = row.tolist()
    return values[0] if len(values) == 1 else values


def unreachable() -> Unreachable:
    return Unreachable(503, "the model server is not reachable, try again shortly", retry_after=1)


def refusal_of(error: InferenceServerException, model: str) -> Refusal:
    """Say of a gRPC error what a client may know. The rest goes to the log: it can hold paths and tracebacks."""
    message, code = error.message() or "", (error.status() or "").removeprefix("StatusCode.")
    if code == "INVALID_ARGUMENT":  # first: it may quote the client's text, whatever that says
        return Refusal(422, message)
    if dead := DEAD_STUB.search(message) or NOT_LOADED.search(message):
        return ModelDown(dead[1])
    if UNNAMED_STUB.search(message):
        return ModelDown(model)
    if code == "NOT_FOUND":
        return ModelAbsent(404, f"this server has no model {model}")
    if code == "DEADLINE_EXCEEDED":
        return Refusal(504, "no answer in time, try a shorter text or later")
    if code == "UNAVAILABLE" and FULL_QUEUE.search(message):
        return Refusal(503, "the model server is busy, try again shortly", retry_after=1)
    if code == "UNAVAILABLE" and NO_CONNECTION.search(message):
        return unreachable()
    LOG.warning("%s: %s %s", model, code, " | ".join(message.splitlines())[:1000])
    return Refusal(503 if code == "UNAVAILABLE" else 502, f"{model} failed")
