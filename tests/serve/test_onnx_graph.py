"""The hand-built graph against the model that it was built from."""

import numpy as np
import pytest
from serve.conftest import LENGTHS, eager, stream_of  # pyright: ignore[reportMissingImports]

from bert.errors import UsageError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from bert.model import layers
from bert.serve import onnx_graph
from bert.serve.onnx_graph import StreamGraph, build_onnx

ATTENTIONS = ("loop", "padded")
TASKS = [("qa", "mean"), ("classify", "mean"), ("embed", "mean"), ("embed", "cls")]


def run(graph, ids, types, offsets):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    longest = np.zeros(int(np.diff(offsets).max()), np.int32)
    named = {"input__0": ids, "input__1": types, "cu_seqlens": offsets.astype(np.int32), "longest": longest}
    return session.run(None, named)


def largest_difference(got, expected):
    assert [values.shape for values in got] == [values.shape for values in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("task", "pooling"), TASKS)
def test_it_equals_the_model(open_model, task, pooling, attention):
    served = open_model(task, pooling)
    graph = build_onnx(task, served.model, attention)
    for lengths in LENGTHS:
        stream = stream_of(lengths, served.start.model_config.vocab_size)
        assert largest_difference(run(graph, *stream), eager(served, *stream)) < 1e-5, lengths


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("act", list(onnx_graph.ACTIVATIONS))
def test_every_activation(open_model, act, attention):
    served = open_model("qa", hidden_act=act)
    stream = stream_of([5, 31, 2], served.start.model_config.vocab_size)
    assert largest_difference(run(build_onnx("qa", served.model, attention), *stream), eager(served, *stream)) < 1e-5


@pytest.mark.parametrize("act", sorted(set(layers.ACTIVATIONS) - set(onnx_graph.ACTIVATIONS)))
def test_an_activation_without_operator_is_one_line(open_model, act):
    with pytest.raises(UsageError, match=f"^hidden_act '{act}': cannot be exported to ONNX$"):
        build_onnx("qa", open_model("qa", hidden_act=act).model)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("task", "pooling"), TASKS)
def test_half_precision(open_model, task, pooling, attention):
    served = open_model(task, pooling)
    graph = build_onnx(task, served.model, attention, np.float16)
    kinds = {tensor.data_type for tensor in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds and onnx.TensorProto.FLOAT16 in kinds
    for lengths in LENGTHS:
        stream = stream_of(lengths, served.start.model_config.vocab_size)
        expected = eager(served, *stream)
        scale = max(float(np.abs(values).max()) for values in expected)
        assert largest_difference(run(graph, *stream), expected) < 1e-2 * scale, lengths


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_last_layer_of_first_tokens_alone(open_model, attention):
    """The rows of the first tokens, out of a last layer that was computed for them alone, or for all tokens."""
    served = open_model("embed")
    stream = stream_of([5, 31, 1, 64], served.start.model_config.vocab_size)
    found = []
    for first_only in (True, False):
        graph = StreamGraph(served.model.bert, attention, np.float32, first_only)
        graph.nodes.append(onnx.helper.make_node("Identity", [graph.hidden], ["hidden"]))
        kind = onnx.TensorProto.INT32
        inputs = [onnx.helper.make_tensor_value_info(name, kind, [None]) for name in onnx_graph.INPUTS]
        hidden = onnx.helper.make_tensor_value_info("hidden", onnx.TensorProto.FLOAT, [None, 32])
        made = onnx.helper.make_graph(graph.nodes, "test", inputs, [hidden], list(graph.constants.values()))
        opsets = [onnx.helper.make_opsetid("", onnx_graph.OPSET), onnx.helper.make_opsetid(onnx_graph.CONTRIB, 1)]
        found += run(onnx.helper.make_model(made, opset_imports=opsets, ir_version=10), *stream)
    first, every = found
    assert first.shape == (4, 32) and every.shape == (101, 32)
    np.testing.assert_allclose(first, every[stream[2][:-1]], atol=2e-6)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("task", "pooling"), TASKS)
def test_the_graph_is_valid(open_model, task, pooling, attention):
    graph = build_onnx(task, open_model(task, pooling).model, attention)
    onnx.checker.check_model(graph)
    assert [each.name for each in graph.graph.input] == ["input__0", "input__1", "cu_seqlens", "longest"]
    assert [each.name for each in graph.graph.output] == [f"output__{k}" for k in range(2 if task == "qa" else 1)]


def test_the_padded_graph_has_standard_operators_only(open_model):
    def domains(nodes):
        for node in nodes:
            yield node.domain
            for attribute in node.attribute:
                yield from domains(attribute.g.node)

    model = open_model("qa").model
    assert set(domains(build_onnx("qa", model, "padded").graph.node)) == {""}
    assert set(domains(build_onnx("qa", model, "loop").graph.node)) == {"", "com.microsoft"}
    standard = build_onnx("qa", model, "padded")
    onnx.checker.check_model(standard, full_check=True)  # with shape inference, as TensorRT's builder does
    assert len(standard.graph.initializer) == len({tensor.name for tensor in standard.graph.initializer})


def test_rows_that_pad_the_vocabulary_are_left_out(open_model):
    served = open_model("qa")
    pieces = served.start.model_config.vocab_size
    assert served.model.bert.embeddings.word_embeddings.weight.shape[0] > pieces
    (words,) = [each for each in build_onnx("qa", served.model).graph.initializer if each.name == "words"]
    assert list(words.dims) == [pieces, 32]
