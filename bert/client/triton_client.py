"""Calls to a model on Triton over gRPC, as arrays.

async with TritonClient("127.0.0.1:8001", "bert") as triton:
    outputs = await triton.infer({"input__0": ids, "input__1": types, "input__2": mask})
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError

CHANNEL = [("grpc.enable_http_proxy", 0), *((f"grpc.max_{way}_message_length", -1) for way in ("send", "receive"))]


class Failed(Exception):
    """The model did not answer; one line says why. ``busy``: trying again later may help."""

    def __init__(self, line: str, busy: bool = False) -> None:
        super().__init__(line)
        self.busy = busy


class TritonClient:
    """One model of one server. Entering it raises UsageError unless both are there."""

    def __init__(self, address: str, model: str, version: str = "", what: str = "--grpc", seconds: float = 60) -> None:
        try:
            import tritonclient.grpc.aio as grpc  # imported here: the gateway's clients do not need it
        except ImportError as error:
            raise UsageError("tritonclient is not installed: run `bash triton/setup.sh`") from error
        self.address, self.model, self.version, self.what, self.seconds = address, model, version, what, seconds
        self._grpc = grpc
        self.names: list[str] = []  # of the model's inputs

    async def __aenter__(self) -> Self:
        self._client = self._grpc.InferenceServerClient(self.address.removeprefix("grpc://"), channel_args=CHANNEL)
        try:
            metadata = await self._client.get_model_metadata(self.model, self.version, client_timeout=10)
        except Exception as error:
            await self._client.close()
            raise UsageError(f"{self.what} {self.address}: {self._absence(error)}") from error
        assert metadata is not None
        self.names = [each.name for each in metadata.inputs]  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def infer(self, arrays: dict[str, NDArray]) -> dict[str, NDArray]:
        """Return the outputs by name; raises :class:`Failed`."""
        from tritonclient.utils import InferenceServerException

        try:
            result = await self._client.infer(
                self.model, [self._tensor(*each) for each in arrays.items()], self.version, client_timeout=self.seconds
            )
        except InferenceServerException as error:
            code = (error.status() or "").removeprefix("StatusCode.")
            line = (error.message() or code).strip().splitlines()[0]
            if code == "DEADLINE_EXCEEDED":
                line = f"no answer within {self.seconds:g} s"
            raise Failed(line, code == "UNAVAILABLE") from error
        assert result is not None
        named = {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}
        return {name: array for name, array in named.items() if array is not None}

    def _tensor(self, name: str, array: NDArray) -> Any:
        from tritonclient.utils import np_to_triton_dtype

        tensor = self._grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        return tensor.set_data_from_numpy(array)

    def _absence(self, error: Exception) -> str:
        """Say what is missing: the server, or its model."""
        status = getattr(error, "status", lambda: None)()
        if status == "StatusCode.UNAVAILABLE" and "is not ready" not in str(error):
            return "no server answers there; start one with `bash triton/serve.sh`"
        if status == "StatusCode.DEADLINE_EXCEEDED":
            return "no answer within 10 s"
        return f"it has no model {self.model}{self.version and ' version ' + self.version} that is ready"


def text_tensors(values: dict[str, Any]) -> dict[str, NDArray]:
    """Make a batch of one object: [1, 1] for each value, text or a whole number."""
    return {
        name: np.array([[value.encode()]], object) if isinstance(value, str) else np.array([[value]], np.int32)
        for name, value in values.items()
    }
