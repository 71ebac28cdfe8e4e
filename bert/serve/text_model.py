"""A text front inside Triton: texts in, replies out; the engine is called through the server.

Every window of every waiting request is a request of its own to the engine, all at once, so that windows of different
questions share the engine's batches.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # the server's

from bert.errors import UsageError
from bert.serve.engine import SETTINGS
from bert.serve.engine_model import refusal, version_folder
from bert.serve.requests import UNKNOWN_TASK
from bert.serve.text import Input, Values, build_front
from bert.tokenization import BertTokenizer


class EngineError(RuntimeError):
    """The engine did not answer."""


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        settings = json.loads((version_folder(args) / SETTINGS).read_text(encoding="utf8"))
        self.front = build_front(settings, BertTokenizer.from_state_dict(settings["tokenizer"]))
        self.engine, self.outputs = settings["engine"], [f"output__{k}" for k in range(settings["outputs"])]
        self.outputs += ["facts"] if settings["task"] == "multitask" else []
        model_config = json.loads(args["model_config"])
        self.fields = [Field(each["name"], each["data_type"]) for each in model_config["output"]]
        self.names = [each["name"] for each in model_config["input"]]

    async def execute(self, requests: list[Any]) -> list[Any]:
        return await asyncio.gather(*(self._respond(request) for request in requests))

    async def _respond(self, request: Any) -> Any:
        try:
            replies = await asyncio.gather(*(self._reply(values) for values in self._read(request)))
        except UsageError as error:
            return refusal(error)
        except EngineError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.UNAVAILABLE))
        return pb_utils.InferenceResponse([field.tensor(replies) for field in self.fields])

    def _read(self, request: Any) -> list[Values]:
        """Return the inputs of each object of a request, [b, 1] tensors."""
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self.names}
        columns = {name: tensor.as_numpy().reshape(-1).tolist() for name, tensor in tensors.items() if tensor}
        return [dict(zip(columns, map(_plain, row), strict=True)) for row in zip(*columns.values(), strict=True)]

    async def _reply(self, values: Values) -> Values:
        prepared = self.front.prepare(values)
        return self.front.reply(prepared, await asyncio.gather(*map(self._run, prepared.inputs)))

    async def _run(self, one: Input) -> list[Any]:
        """Run one sequence: the engine's outputs for it."""
        inputs = [pb_utils.Tensor(f"input__{k}", values[None]) for k, values in enumerate((one.ids, one.types))]
        if one.task is not None:
            inputs.append(pb_utils.Tensor("task", np.array([[one.task.encode()]], object)))
        request = pb_utils.InferenceRequest(model_name=self.engine, requested_output_names=self.outputs, inputs=inputs)
        response = await request.async_exec()
        if response.has_error():
            error = response.error()
            if error.message().startswith(UNKNOWN_TASK):  # Triton 2.51 hands on the message, but not the code
                raise UsageError(error.message())
            raise EngineError(f"{self.engine}: {error.message()}")
        return [pb_utils.get_output_tensor_by_name(response, name).as_numpy()[0] for name in self.outputs]


def _plain(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"a text that is not UTF-8 (byte {error.start})") from error


class Field(NamedTuple):
    """An output of the model."""

    name: str
    kind: str

    def tensor(self, replies: list[Values]) -> Any:
        """[b, 1], or [b, width] for a vector."""
        values = [reply[self.name] for reply in replies]
        if self.kind == "TYPE_STRING":
            array = np.array([value.encode() for value in values], object)
        else:
            array = np.array(values, pb_utils.triton_string_to_numpy(self.kind))
        return pb_utils.Tensor(self.name, array.reshape(len(values), -1))
