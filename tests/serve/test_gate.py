"""The parity gate: what it must catch. Each fault gives outputs of the right shapes."""

import copy
import shutil

import numpy as np
import pytest
import torch
from serve.conftest import stream_of  # pyright: ignore[reportMissingImports]

from bert.errors import UsageError
from bert.serve import gate
from bert.serve.engine import Engine, load_engine
from bert.serve.export import write_model
from bert.serve.gate import cases, check_parity, reference
from bert.serve.repository import ExportConfig, export
from bert.serve.requests import Request
from bert.serve.tasks import ServedConfig

onnx_graph = pytest.importorskip("bert.serve.onnx_graph")
onnxruntime = pytest.importorskip("onnxruntime")

TASKS = ("qa", "classify", "embed")


@pytest.fixture
def engine_of(tmp_path):
    """Return a function (served) -> the engine of what is exported."""

    def make(served, kind="onnx"):
        folder = tmp_path / "engine"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_model(served, kind, "fp32", folder, "cpu", batch_tokens=100)
        return load_engine(folder)

    return make


def wrong_cases(served, engine):
    """The names of the cases that the engine fails, after a look at what a naive check would see: the shapes."""
    ids, types, offsets = stream_of([5, 9], served.start.model_config.vocab_size)
    for got, expected in zip(engine(ids, types, offsets), reference(served, ids, types, offsets), strict=True):
        assert got.shape == expected.shape
    return [parity.case for parity in check_parity(served, engine) if not parity.holds]


EVERY = ["one sequence", "equal lengths", "3 beside 64", "many", "padding in the request", "many short"]
BESIDE = EVERY[1:]  # more than one sequence


@pytest.mark.parametrize("task", TASKS)
def test_a_right_engine_passes(open_model, engine_of, task):
    served = open_model(task)
    assert wrong_cases(served, engine_of(served)) == []
    assert [each.case for each in check_parity(served, engine_of(served))] == EVERY


@pytest.mark.parametrize("task", TASKS)
def test_swapped_inputs(open_model, engine_of, task):
    """Ids as segment ids and segment ids as ids, within their ranges."""
    served = open_model(task)
    right = engine_of(served)
    swapped = Engine(lambda ids, types, cu, longest: right.run(types, ids % 2, cu, longest), right.settings)
    assert wrong_cases(served, swapped) == EVERY


@pytest.mark.parametrize("task", TASKS)
def test_segments_that_are_ignored(open_model, engine_of, task):
    served = open_model(task)
    right = engine_of(served)
    without = Engine(lambda ids, types, cu, longest: right.run(ids, 0 * types, cu, longest), right.settings)
    assert wrong_cases(served, without) == EVERY


@pytest.mark.parametrize("task", TASKS)
def test_positions_off_by_one(open_model, engine_of, task):
    served = open_model(task)
    changed = copy.deepcopy(served)
    positions = changed.model.bert.embeddings.position_embeddings.weight
    positions.copy_(positions.roll(-1, 0))
    assert wrong_cases(served, engine_of(changed)) == EVERY


class Together(onnx_graph.StreamGraph):
    """All sequences are one to the attention."""

    def _attend_in_turn(self, *arguments):
        kept = self.starts, self.ends, self.number
        every = self.op("Reshape", self.op("Size", self.ids), self.integers(1))
        self.starts, self.ends, self.number = self.integers(0), every, self.integer(1)
        attended = super()._attend_in_turn(*arguments)
        self.starts, self.ends, self.number = kept
        return attended


class PaddingIsReal(onnx_graph.StreamGraph):
    """The padded attention without its mask."""

    def __init__(self, bert, attention, *more):
        super().__init__(bert, "padded", *more)

    def _padding(self):
        return self.weight("zero", np.zeros(1))


class FirstTokenToTheLeft(onnx_graph.StreamGraph):
    """The wrong side of a bucket's bound: a first token counts to the sequence before; sequence 0 keeps its own."""

    def _locate_tokens(self):
        super()._locate_tokens()
        begun = self.op("Less", self.starts, self.op("Unsqueeze", self.tokens, self.integers(1)))
        begun = self.op("Cast", begun, to=onnx_graph.TensorProto.INT64)
        count = self.op("ReduceSum", begun, self.integers(1), keepdims=0)
        self.sequence = self.op("Max", self.op("Sub", count, self.integer(1)), self.integer(0))
        self.position = self.op("Sub", self.tokens, self.op("Gather", self.starts, self.sequence))


@pytest.mark.parametrize("task", ["qa", "embed"])
def test_sequences_that_see_each_other(open_model, engine_of, monkeypatch, task):
    served = open_model(task)
    monkeypatch.setattr(onnx_graph, "StreamGraph", Together)
    assert wrong_cases(served, engine_of(served)) == BESIDE


@pytest.mark.parametrize("task", TASKS)
def test_padding_that_is_attended_to(open_model, engine_of, monkeypatch, task):
    served = open_model(task)
    monkeypatch.setattr(onnx_graph, "StreamGraph", PaddingIsReal)
    assert wrong_cases(served, engine_of(served)) == EVERY[2:]  # of unequal lengths


@pytest.mark.parametrize("task", ["qa", "embed"])
def test_first_tokens_in_the_sequence_before(open_model, engine_of, monkeypatch, task):
    served = open_model(task)
    monkeypatch.setattr(onnx_graph, "StreamGraph", FirstTokenToTheLeft)
    assert wrong_cases(served, engine_of(served)) == BESIDE


@pytest.mark.parametrize("task", TASKS)
def test_every_bias(open_model, engine_of, monkeypatch, task):
    """But that of the key: it adds the same to all scores of a query, and the softmax takes that out again."""
    served = open_model(task, num_hidden_layers=2)
    monkeypatch.setattr(gate, "cases", lambda longest: {"one sequence": [17]})
    names = [name for name, _ in served.model.named_parameters() if name.endswith("bias")]
    names = [name for name in names if task == "classify" or "pooler" not in name]
    assert len(names) == 1 + 2 * 8 + {"qa": 1, "classify": 2, "embed": 0}[task]
    for name in names:
        changed = copy.deepcopy(served)
        changed.model.get_parameter(name).zero_()
        assert wrong_cases(served, engine_of(changed)) == ([] if ".key." in name else ["one sequence"]), name


@pytest.mark.parametrize("shift", [0.0, 1e-7])
def test_a_case_whose_only_output_is_near_zero(open_model, engine_of, shift):
    """A regression has one output for a sequence, and that of the case of one sequence is made to be zero."""
    served = open_model("classify", labels=1)
    draw = np.random.default_rng(1)  # as the gate draws
    ids = draw.integers(0, served.start.model_config.vocab_size, 17).astype(np.int32)
    types = draw.integers(0, 2, 17).astype(np.int32)
    ((value,),) = reference(served, ids, types, np.array([0, 17]))
    served.model.classifier.bias.sub_(torch.from_numpy(value) - shift)
    assert all(parity.holds for parity in check_parity(served, engine_of(served)))


def test_an_engine_that_stops(open_model, engine_of):
    served = open_model("qa")
    right = engine_of(served)

    def run(ids, types, cu, longest):
        if len(cu) == 5:
            raise RuntimeError("a traceback\nindex out of range\n")
        return right.run(ids, types, cu, longest)

    parities = check_parity(served, Engine(run, {**right.settings, "batch_tokens": 10_000}))
    (wrong,) = [parity for parity in parities if not parity.holds]
    assert str(wrong) == "equal lengths: the engine stopped with RuntimeError: index out of range"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers(open_model, engine_of, task, value):
    served = open_model(task)
    right = engine_of(served)

    def run(ids, types, cu, longest):
        outputs = right.run(ids, types, cu, longest)
        if len(cu) == 5:  # one value of the case of equal lengths
            outputs[0][-1] = value
        return outputs

    settings = {**right.settings, "batch_tokens": 10_000}
    assert wrong_cases(served, Engine(run, settings)) == ["equal lengths"]


def test_a_mask_that_is_ignored(open_model, engine_of, monkeypatch):
    served = open_model("qa")

    class Unmasked(Request):
        @classmethod
        def of(cls, arrays, settings):
            return Request.of((*arrays[:2], None), settings)

    monkeypatch.setattr(gate, "Request", Unmasked)
    monkeypatch.setattr(gate, "cases", lambda longest: {"many": cases(longest - 5)["many"]})  # room for the padding
    assert wrong_cases(served, engine_of(served)) == ["padding in the request"]


def test_the_reference_leaves_the_model_as_it_was(open_model):
    served = open_model("qa")
    before = served.model.bert.attention
    reference(served, *stream_of([3, 4], 50))
    assert served.model.bert.attention == before


# --- the historic error: an exporter that is silently wrong

# torch.onnx.export replaces torch.bucketize by torch's own decomposition: a binary search with as many steps as the
# bounds of the example need, which are two for three sequences. With more, tokens fall into the wrong sequence.
MORE_THAN_THREE = ["equal lengths", "many", "padding in the request", "many short"]


@pytest.fixture
def naive_buckets(monkeypatch):
    """torch.bucketize as torch.onnx.export computes it."""
    monkeypatch.setattr(torch, "bucketize", torch._refs.bucketize)


@pytest.mark.filterwarnings("ignore")
def test_a_naive_export_of_buckets(open_model, engine_of, naive_buckets):
    served = open_model("qa")
    right = engine_of(served, "torchscript")
    engine = Engine(right.run, {**right.settings, "batch_tokens": 10_000})
    assert wrong_cases(served, engine) == MORE_THAN_THREE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_naive_export_to_onnx(open_model, tmp_path, engine_of):
    """The same by torch.onnx.export itself, where its package is installed."""
    pytest.importorskip("onnxscript")
    from bert.serve.export import _example, _stream

    served = open_model("qa")
    sizes = [torch.export.Dim(name, min=least) for name, least in (("T", 2), ("bounds", 3), ("M", 2))]
    shapes = [{0: sizes[k]} for k in (0, 0, 1, 2)]
    with torch.no_grad():
        program = torch.onnx.export(
            _stream(served, "fp32", "cpu"), _example("cpu"), dynamo=True, dynamic_shapes=(*shapes,), verbose=False
        )
    program.save(tmp_path / "naive.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "naive.onnx", providers=["CPUExecutionProvider"])

    def run(ids, types, cu, longest):
        arrays = (ids, types, cu, np.empty(longest, np.int32))
        names = [each.name for each in session.get_inputs()]
        return session.run(None, dict(zip(names, arrays, strict=True)))

    engine = Engine(run, {**engine_of(served).settings, "batch_tokens": 10_000})
    assert wrong_cases(served, engine) == MORE_THAN_THREE


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_written_of_a_wrong_model(write_model, tmp_path, naive_buckets):
    """An export that is refused leaves the repository as it was, and nothing beside it."""
    repository = tmp_path / "models"
    served = ServedConfig(str(write_model("qa")), "qa", max_seq_length=64, max_query_length=16)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError) as error:
        export(ExportConfig(str(repository), "torchscript", served=served), notice=lambda line: None)
    message = "--format torchscript --precision fp32: the exported model differs from the trained one (equal lengths: "
    assert str(error.value).startswith(message) and str(error.value).endswith("; nothing was written")
    assert sorted({*tmp_path.iterdir()} - {repository}) == before
    assert not repository.exists() or not list(repository.iterdir())
