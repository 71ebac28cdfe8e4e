"""The ONNX graph of a question-answering model on padded batches: the stream's graph between two small ones.

onnx.save(build_padded(served), "model.onnx")       # input__0..2 [B, L] int32 -> output__0, output__1 [B, L]
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from bert.serve.onnx_graph import Graph, build_onnx
from bert.serve.requests import PADDING
from bert.serve.tasks import Served


class Rows(Graph):
    """What turns a padded batch into a stream, and back."""

    def __init__(self) -> None:
        super().__init__(np.float32, "padded_")
        mask = self.op("Cast", "input__2", to=TensorProto.BOOL)
        self.places = self.op("Transpose", self.op("NonZero", mask), perm=[1, 0])  # [T, 2]
        self.shape = self.op("Shape", mask)
        lengths = self.op("ReduceSum", self.op("Cast", mask, to=TensorProto.INT64), self.integers(1), keepdims=0)
        ends = self.op("CumSum", lengths, self.integer(0))
        offsets = self.op("Cast", self.op("Concat", self.integers(0), ends, axis=0), to=TensorProto.INT32)
        first_row = self.op("Gather", "input__0", self.integer(0), axis=0)  # [L]: only its length counts
        ids, types = (self.op("GatherND", name, self.places) for name in ("input__0", "input__1"))
        self.stream = (ids, types, offsets, first_row)

    def pad(self, values: str) -> str:
        """[T] -> [B, L]."""
        empty = self.op("Expand", self.weight("empty", np.array(PADDING)), self.shape)
        return self.op("ScatterND", empty, self.places, values)


def build_padded(served: Served, dtype: type[np.floating] = np.float32, batch: int | None = None) -> onnx.ModelProto:
    """Return the graph, in standard operators; ``batch`` fixes the batch size."""
    model = build_onnx(served.task, served.model, "padded", dtype)
    rows = Rows()
    renamed = dict(zip([each.name for each in model.graph.input], rows.stream, strict=True))
    renamed |= {each.name: f"stream_{each.name}" for each in model.graph.output}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    before, outputs = list(rows.nodes), [each.name for each in model.graph.output]
    for name in outputs:
        rows.op("Identity", rows.pad(renamed[name]))
        rows.nodes[-1].output[:] = [name]
    shape = [batch or "B", "L"]
    made = helper.make_graph(
        [*before, *model.graph.node, *rows.nodes[len(before) :]],
        "bert",
        [helper.make_tensor_value_info(f"input__{k}", TensorProto.INT32, shape) for k in range(3)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [*model.graph.initializer, *rows.constants.values()],
    )
    model.graph.CopyFrom(made)
    return model
