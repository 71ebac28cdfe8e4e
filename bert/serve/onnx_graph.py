"""A BERT model as an ONNX graph on a token stream, written operator by operator: nothing is traced.

The graph's inputs are those of every engine (see :mod:`bert.serve.engine`): ids [T], types [T], cu_seqlens [S + 1] and
longest [M], whose shape alone counts. Attention comes in two forms. ``loop`` computes one sequence after the other with
ONNX Runtime's fused operator, so that a CPU computes no padding at all; ``padded`` uses standard operators only, on a
table [S, M], for TensorRT and other runtimes.

LayerNormalization follows a plain Add on purpose: on a CPU ONNX Runtime's fusion of the two takes several times longer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bert.errors import UsageError
from bert.model.layers import BertLayer, BertOutput

OPSET = 20  # the first with Gelu
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "linear": ("Identity", {}),
}
INPUTS = ("input__0", "input__1", "cu_seqlens", "longest")
MASKED = -1e4  # added to the scores of padding; fits fp16


class Graph:
    """Nodes and constants of an ONNX graph; an operator is called by name and returns its outputs' names."""

    def __init__(self, dtype: type[np.floating] = np.float32, prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.dtype, self._prefix = dtype, prefix

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Append a node; return the name of its output, or a list of names if ``outputs`` is not 1."""
        names = [f"{self._prefix}{kind}_{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def integers(self, *values: int) -> str:
        """Return the name of a constant vector [n] int64."""
        return self._constant("i" + "_".join(map(str, values)), np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Return the name of a constant scalar, int64."""
        return self._constant(f"s{value}", np.array(value, np.int64))

    def weight(self, name: str, values: NDArray) -> str:
        """Return the name of a constant of the graph's floating-point type."""
        return self._constant(name, np.ascontiguousarray(values, self.dtype))

    def _constant(self, name: str, values: NDArray) -> str:
        name = self._prefix + name
        self.constants.setdefault(name, numpy_helper.from_array(values, name))
        return name


class StreamGraph(Graph):
    """The encoder of ``bert`` (a :class:`bert.model.bert.BertModel`) on the graph's inputs.

    With ``first_only`` the last layer is computed for the first token of each sequence alone, which is all that a
    classifier reads; ``hidden`` is [S, hidden] then, else [T, hidden].
    """

    def __init__(self, bert: Any, attention: str, dtype: type[np.floating], first_only: bool = False) -> None:
        super().__init__(dtype)
        self.bert, self.config, self.attention = bert, bert.config, attention
        if self.config.hidden_act not in ACTIVATIONS:
            raise UsageError(f"hidden_act {self.config.hidden_act!r}: cannot be exported to ONNX")
        self.ids, self.types, self.cu = (self.op("Cast", name, to=TensorProto.INT64) for name in INPUTS[:3])
        self.starts = self.op("Slice", self.cu, self.integers(0), self.integers(-1))
        self.ends = self.op("Slice", self.cu, self.integers(1), self.integers(np.iinfo(np.int64).max))
        self.number = self.op("Size", self.starts)
        self._locate_tokens()
        hidden = self._embed()
        *layers, last = bert.encoder.layer
        for index, layer in enumerate(layers):
            hidden = self._layer(f"layer{index}.", layer, hidden)
        self.hidden = self._layer(f"layer{len(layers)}.", last, hidden, first_only)

    def dense(self, x: str, name: str, linear: nn.Linear, scale: float = 1.0) -> str:
        """x [N, in] -> [N, out], times ``scale``."""
        weight, bias = (values.numpy() * scale for values in (linear.weight, linear.bias))
        return self.op("Add", self.op("MatMul", x, self.weight(f"{name}.w", weight.T)), self.weight(f"{name}.b", bias))

    def _norm(self, x: str, name: str, norm: nn.LayerNorm) -> str:
        weight, bias = self.weight(f"{name}.w", norm.weight.numpy()), self.weight(f"{name}.b", norm.bias.numpy())
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)

    def _locate_tokens(self) -> None:
        """Find each token's sequence and its position there, by comparison with all starts: both [T]."""
        length = self.op("Shape", self.ids)
        self.tokens = self.op("Range", self.integer(0), self.op("Squeeze", length), self.integer(1))
        column = self.op("Unsqueeze", self.tokens, self.integers(1))
        begun = self.op("GreaterOrEqual", column, self.starts)  # [T, S]
        count = self.op("ReduceSum", self.op("Cast", begun, to=TensorProto.INT64), self.integers(1), keepdims=0)
        self.sequence = self.op("Sub", count, self.integer(1))
        self.position = self.op("Sub", self.tokens, self.op("Gather", self.starts, self.sequence))

    def _embed(self) -> str:
        embeddings = self.bert.embeddings
        rows = embeddings.word_embeddings.weight.numpy()[: self.config.vocab_size]
        words = self.op("Gather", self.weight("words", rows), self.ids)
        positions = self.op(
            "Gather", self.weight("positions", embeddings.position_embeddings.weight.numpy()), self.position
        )
        types = self.op("Gather", self.weight("types", embeddings.token_type_embeddings.weight.numpy()), self.types)
        total = self.op("Add", self.op("Add", words, positions), types)
        return self._norm(total, "embeddings.norm", embeddings.LayerNorm)

    def _layer(self, name: str, layer: BertLayer, hidden: str, first_only: bool = False) -> str:
        own = layer.attention.self
        key, value = self.dense(hidden, f"{name}key", own.key), self.dense(hidden, f"{name}value", own.value)
        if first_only:  # the first tokens ask; all tokens are asked
            hidden = self.op("Gather", hidden, self.starts)
        # The scores' factor 1/sqrt(head_size) is multiplied into the query.
        query = self.dense(hidden, f"{name}query", own.query, 1 / math.sqrt(own.head_size))
        context = self._attend(query, key, value, own, first_only)
        hidden = self._output(f"{name}attention", layer.attention.output, context, hidden)
        middle = self.dense(hidden, f"{name}intermediate", layer.intermediate.dense)
        kind, attributes = ACTIVATIONS[self.config.hidden_act]
        middle = self.op(kind, middle, **attributes)
        return self._output(f"{name}output", layer.output, middle, hidden)

    def _output(self, name: str, module: BertOutput, x: str, residual: str) -> str:
        return self._norm(self.op("Add", self.dense(x, name, module.dense), residual), f"{name}.norm", module.LayerNorm)

    def _attend(self, query: str, key: str, value: str, own: Any, first_only: bool) -> str:
        """[N, hidden] × 3 -> [N, hidden]; the query is scaled and has S rows with ``first_only``."""
        if self.attention == "loop":
            return self._attend_in_turn(query, key, value, own.heads, first_only)
        return self._attend_padded(query, key, value, own, first_only)

    def _attend_in_turn(self, query: str, key: str, value: str, heads: int, first_only: bool) -> str:
        body = Graph(self.dtype, f"turn{len(self.nodes)}_")
        turn, go_on, done = (f"turn{len(self.nodes)}_{name}" for name in ("number", "go_on", "done"))
        place = body.op("Reshape", turn, body.integers(1))
        begin, end = (body.op("Gather", bounds, place) for bounds in (self.starts, self.ends))
        following = body.op("Add", place, body.integers(1))
        ranges = ((place, following) if first_only else (begin, end), (begin, end), (begin, end))
        axis = body.integers(0)  # of the tokens; then of a batch of one
        parts = [
            body.op("Unsqueeze", body.op("Slice", x, *bounds, axis), axis)
            for x, bounds in zip((query, key, value), ranges, strict=True)
        ]
        context = body.op("MultiHeadAttention", *parts, domain=CONTRIB, num_heads=heads, scale=1.0)
        grown = body.op("SequenceInsert", done, body.op("Squeeze", context, axis))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        inputs = [
            helper.make_tensor_value_info(turn, TensorProto.INT64, []),
            helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info(done, kind, None),
        ]
        same = body.op("Identity", go_on)
        outputs = [
            helper.make_tensor_value_info(same, TensorProto.BOOL, []),
            helper.make_tensor_sequence_value_info(grown, kind, None),
        ]
        subgraph = helper.make_graph(body.nodes, "attention", inputs, outputs, list(body.constants.values()))
        contexts = self.op("Loop", self.number, "", self.op("SequenceEmpty", dtype=kind), body=subgraph)
        joined = self.op("ConcatFromSequence", contexts, axis=0)
        # The shape of what a loop returns is unknown, and ONNX Runtime fuses products of known shapes only.
        return self.op("Reshape", joined, self.integers(-1, self.config.hidden_size))

    def _attend_padded(self, query: str, key: str, value: str, own: Any, first_only: bool) -> str:
        q = self.op("Unsqueeze", query, self.integers(1)) if first_only else self._table(query)  # [S, 1 or M, hidden]
        heads = self.integers(0, 0, own.heads, own.head_size)  # 0: as it is
        q = self.op("Transpose", self.op("Reshape", q, heads), perm=[0, 2, 1, 3])
        k = self.op("Transpose", self.op("Reshape", self._table(key), heads), perm=[0, 2, 3, 1])
        v = self.op("Transpose", self.op("Reshape", self._table(value), heads), perm=[0, 2, 1, 3])
        scores = self.op("Add", self.op("MatMul", q, k), self._padding())
        context = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)  # [S, heads, 1 or M, head_size]
        rows = self.op(
            "Reshape", self.op("Transpose", context, perm=[0, 2, 1, 3]), self.integers(-1, self.config.hidden_size)
        )
        return rows if first_only else self.op("Gather", rows, self._slots())

    def _slots(self) -> str:
        """Each token's row in a table [S * M], [T]."""
        return self.op("Add", self.op("Mul", self.sequence, self.op("Size", INPUTS[3])), self.position)

    def _table(self, x: str) -> str:
        """[T, hidden] -> [S, M, hidden], zero where there is no token."""
        one, hidden = self.integers(1), self.integers(self.config.hidden_size)
        longest = self.op("Size", INPUTS[3])
        rows = self.op("Reshape", self.op("Mul", self.number, longest), one)
        zeros = self.op("Expand", self.weight("zero", np.zeros(1)), self.op("Concat", rows, hidden, axis=0))
        filled = self.op("ScatterND", zeros, self.op("Unsqueeze", self._slots(), one), x)
        shape = self.op(
            "Concat", self.op("Reshape", self.number, one), self.op("Reshape", longest, one), hidden, axis=0
        )
        return self.op("Reshape", filled, shape)

    def _padding(self) -> str:
        """What is added to the scores: 0 for a token, MASKED for padding, [S, 1, 1, M]."""
        columns = self.op("Range", self.integer(0), self.op("Size", INPUTS[3]), self.integer(1))
        lengths = self.op("Unsqueeze", self.op("Sub", self.ends, self.starts), self.integers(1))
        real = self.op("Unsqueeze", self.op("Less", columns, lengths), self.integers(1, 2))
        return self.op("Where", real, self.weight("zero", np.zeros(1)), self.weight("masked", np.array([MASKED])))


def question_answering(graph: StreamGraph, model: Any) -> list[str]:
    """Start and end logits of every token, each [T]."""
    logits = graph.op(
        "Split", graph.dense(graph.hidden, "answers", model.qa_outputs), outputs=2, axis=-1, num_outputs=2
    )
    return [graph.op("Squeeze", each, graph.integers(-1)) for each in logits]


def classification(graph: StreamGraph, model: Any) -> list[str]:
    """Logits [S, labels]; ``graph.hidden`` are the first tokens alone."""
    pooled = graph.op("Tanh", graph.dense(graph.hidden, "pooler", model.bert.pooler.dense))
    return [graph.dense(pooled, "classifier", model.classifier)]


def embedding(graph: StreamGraph, model: Any) -> list[str]:
    """Vectors [S, hidden] of unit length: the mean over the tokens, or the first token's."""
    vectors = graph.hidden
    if model.pooling == "mean":
        number = graph.op("Range", graph.integer(0), graph.number, graph.integer(1))
        column = graph.op("Unsqueeze", number, graph.integers(1))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtype))
        members = graph.op("Cast", graph.op("Equal", column, graph.sequence), to=kind)  # [S, T]
        vectors = graph.op("MatMul", members, graph.hidden)  # sums; the division cancels in the normalisation
    return [graph.op("LpNormalization", vectors, axis=-1, p=2)]


HEADS = {"qa": question_answering, "classify": classification, "embed": embedding}


def build_onnx(
    task: str, model: Any, attention: str = "loop", dtype: type[np.floating] = np.float32
) -> onnx.ModelProto:
    """Return the graph of a fine-tuned ``model`` in float32 parameters; ``task`` is a key of ``HEADS``."""
    first_only = task == "classify" or (task == "embed" and model.pooling == "cls")
    graph = StreamGraph(model.bert, attention, dtype, first_only)
    outputs = HEADS[task](graph, model)
    rows = "T" if task == "qa" else "S"
    named = []
    for number, name in enumerate(outputs):
        graph.nodes.append(helper.make_node("Cast", [name], [f"output__{number}"], to=TensorProto.FLOAT))
        shape = [rows] if task == "qa" else [rows, None]
        named.append(helper.make_tensor_value_info(f"output__{number}", TensorProto.FLOAT, shape))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, [size])
        for name, size in zip(INPUTS, ("T", "T", "S_plus_1", "M"), strict=True)
    ]
    made = helper.make_graph(graph.nodes, "bert", inputs, named, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)
