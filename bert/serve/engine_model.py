"""The engine inside Triton: token ids in, the model's outputs back; what runs when the server calls.

Triton hands over every request that waits, up to its budget of tokens. They become one stream without padding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # the server's

from bert.errors import UsageError
from bert.serve.engine import load_engine
from bert.serve.requests import Request, pack, unpack


def version_folder(args: dict[str, Any]) -> Path:
    """Return the folder of the version that the server loads."""
    return Path(args["model_repository"], args["model_version"])


def parameter(args: dict[str, Any], name: str, default: str) -> str:
    """Return a parameter of config.pbtxt."""
    return json.loads(args["model_config"])["parameters"].get(name, {}).get("string_value", default)


def refusal(error: Exception) -> Any:
    """Return the response to a request that is wrong."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"
        self.engine = load_engine(version_folder(args), int(parameter(args, "threads", "1")), device)

    def execute(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        taken: dict[int, Request] = {}
        for number, request in enumerate(requests):
            try:
                taken[number] = self._read(request)
            except UsageError as error:
                responses[number] = refusal(error)
        if taken:
            for number, tensors in zip(taken, self._run(list(taken.values())), strict=True):
                responses[number] = pb_utils.InferenceResponse(tensors)
        return responses

    def _run(self, packed: list[Request]) -> list[list[Any]]:
        """Return the output tensors of each request."""
        outputs = unpack(packed, self.engine(*pack(packed)), self.engine.settings["per_token"])
        return [[pb_utils.Tensor(f"output__{k}", array) for k, array in enumerate(arrays)] for arrays in outputs]

    def _read(self, request: Any) -> Request:
        tensors = [pb_utils.get_input_tensor_by_name(request, f"input__{k}") for k in range(3)]
        arrays = [tensor and tensor.as_numpy() for tensor in tensors]
        return Request.of(arrays, self.engine.settings)
