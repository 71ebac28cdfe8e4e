"""The engine of several tasks inside Triton: token ids and a task's name in, its logits and labels back.

Requests for all tasks share one pass of the encoder. At each call, but at most once a second, the engine looks into the
folder of adapter files beside its versions; a task that it does not know makes it look at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # the server's

from bert.errors import UsageError
from bert.serve import engine_model
from bert.serve.engine_model import parameter, version_folder
from bert.serve.multitask import MultiTaskEngine
from bert.serve.requests import Request, pack


@dataclass(frozen=True)
class TaskRequest:
    """A request, and the task of each of its sequences; "" asks for the list of tasks."""

    request: Request
    names: list[str]


class TritonPythonModel(engine_model.TritonPythonModel):
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"
        threads = int(parameter(args, "threads", "1"))
        self.engine = MultiTaskEngine.load(version_folder(args), threads, device, pb_utils.Logger.log_warn)

    def execute(self, requests: list[Any]) -> list[Any]:
        asked = {name for request in requests for name in _names(request)}
        self.engine.look(at_once=not asked <= {"", *self.engine.tasks})
        return super().execute(requests)

    def _read(self, request: Any) -> TaskRequest:
        taken, names = super()._read(request), _names(request)
        names = names or [""] * len(taken.lengths)
        if len(names) != len(taken.lengths):
            raise UsageError(f"task: {len(names)} names, expected one for each of {len(taken.lengths)} sequences")
        for name in filter(None, names):
            self.engine.check(name)
        return TaskRequest(taken, names)

    def _run(self, packed: list[TaskRequest]) -> list[list[Any]]:
        names = [name for each in packed for name in each.names]
        (logits,) = self.engine(*pack([each.request for each in packed]), names)
        responses, begin = [], 0
        for each in packed:
            rows = logits[begin : begin + len(each.names)]
            begin += len(each.names)
            width = max(self.engine.width(name) for name in each.names)
            facts = np.array([[self.engine.facts(name).encode()] for name in each.names], object)
            responses.append(
                [pb_utils.Tensor("output__0", np.ascontiguousarray(rows[:, :width])), pb_utils.Tensor("facts", facts)]
            )
        return responses


def _names(request: Any) -> list[str]:
    tensor = pb_utils.get_input_tensor_by_name(request, "task")
    return [] if tensor is None else [name.decode(errors="replace") for name in tensor.as_numpy().reshape(-1)]
