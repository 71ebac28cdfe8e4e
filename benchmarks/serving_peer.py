"""The peers of benchmarks/serving.py inside Triton: BERT as ONNX Runtime's and OpenVINO's users serve it.

The benchmark writes ``peer.json`` beside this file's copy: the runtime, and to which length requests are padded
(a number, "longest" of the batch, or "exact": each request alone at its own length).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def build_session(model: str, runtime: str) -> Any:
    """Return a function of padded ids, types and mask [B, L] int64 -> start and end logits [B, L]; one thread."""
    if runtime == "openvino":
        import openvino  # type: ignore[import-not-found]  # optional

        core = openvino.Core()
        options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
        return lambda *arrays: list(request.infer(arrays).values())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda *arrays: session.run(None, dict(zip(("ids", "types", "mask"), arrays, strict=True)))


def padded(rows: list[NDArray], length: int) -> NDArray[np.int64]:
    """Lay rows into a table [B, length] of zeros."""
    table = np.zeros((len(rows), length), np.int64)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # the server's

        self.utils = pb_utils
        folder = Path(args["model_repository"], args["model_version"])
        settings = json.loads((folder / "peer.json").read_text(encoding="utf8"))
        self.padding, self.run = settings["padding"], build_session(settings["model"], settings["runtime"])

    def execute(self, requests: list[Any]) -> list[Any]:
        rows = [[self._input(request, k) for request in requests] for k in range(2)]
        if self.padding == "exact":
            found = [self._logits([ids], [types]) for ids, types in zip(*rows, strict=True)]
            pairs = [(start[0], end[0]) for start, end in found]
        else:
            pairs = list(zip(*self._logits(*rows), strict=True))
        responses = []
        for ids, logits in zip(rows[0], pairs, strict=True):
            arrays = [np.ascontiguousarray(each[: len(ids)])[None] for each in logits]
            tensors = [self.utils.Tensor(f"output__{k}", array) for k, array in enumerate(arrays)]
            responses.append(self.utils.InferenceResponse(tensors))
        return responses

    def _input(self, request: Any, number: int) -> NDArray:
        return self.utils.get_input_tensor_by_name(request, f"input__{number}").as_numpy()[0]

    def _logits(self, ids: list[NDArray], types: list[NDArray]) -> list[NDArray]:
        length = self.padding if isinstance(self.padding, int) else max(map(len, ids))
        mask = padded([np.ones_like(each) for each in ids], length)
        return self.run(padded(ids, length), padded(types, length), mask)
