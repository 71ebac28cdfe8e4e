"""Each format and number format, written, loaded and compared with the trained model."""

import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from serve.conftest import LENGTHS, eager, stream_of  # pyright: ignore[reportMissingImports]

from bert.errors import UsageError
from bert.serve.engine import load_engine
from bert.serve.export import FORMATS, check_precision, write_model
from bert.serve.gate import BOUNDS

TASKS = [("qa", "mean"), ("classify", "mean"), ("embed", "mean"), ("embed", "cls")]


def marks(kind: str, precision: str, task: str) -> list[pytest.MarkDecorator]:
    """What takes seconds is slow: compiling, and tracing a program but for one."""
    if kind == "aoti":
        return [pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")]
    return [pytest.mark.slow] if kind == "torch_export" and (precision, task) != ("fp32", "qa") else []


COMBINATIONS = [
    pytest.param(kind, precision, task, pooling, marks=marks(kind, precision, task))
    for kind, form in FORMATS.items()
    for precision in (form.precisions if kind != "aoti" else form.precisions[:1])
    for task, pooling in (TASKS if precision == "fp32" and kind != "aoti" else TASKS[:1])  # the heads are fp32's
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("kind", "precision", "task", "pooling"), COMBINATIONS)
def test_every_format_equals_the_model(open_model, tmp_path, kind, precision, task, pooling):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    served = open_model(task, pooling)
    write_model(served, kind, precision, tmp_path, "cpu", batch_tokens=64)
    engine = load_engine(tmp_path)
    streams = [stream_of(lengths, served.start.model_config.vocab_size) for lengths in LENGTHS]
    expected = [eager(served, *stream) for stream in streams]
    bound = BOUNDS[precision] * max(float(np.abs(values).max()) for outputs in expected for values in outputs)
    for stream, outputs in zip(streams, expected, strict=True):  # among them a lone sequence, and a lone token
        for got, wanted in zip(engine(*stream), outputs, strict=True):
            assert got.shape == wanted.shape and got.dtype == np.float32
            assert np.abs(got - wanted).max() <= bound, np.diff(stream[2])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["torchscript", "onnx", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_the_model_stays_as_it_was(open_model, tmp_path, kind):
    """The gate takes it for the reference."""
    served, before = open_model("qa"), open_model("qa")
    write_model(served, kind, "fp16", tmp_path, "cpu", batch_tokens=64)
    assert served.model.bert.attention == before.model.bert.attention
    for (name, now), (_, then) in zip(
        served.model.state_dict().items(), before.model.state_dict().items(), strict=True
    ):
        assert now.dtype == torch.float32 and torch.equal(now, then), name


@pytest.mark.parametrize("kind", ["onnx", pytest.param("torch_export", marks=pytest.mark.slow), "torchscript"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_one_call_equals_many(open_model, tmp_path, kind):
    """All sequences at once, in parts of 40 tokens, and each on its own."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    served = open_model("qa")
    write_model(served, kind, "fp32", tmp_path, "cpu", batch_tokens=40)
    engine = load_engine(tmp_path)
    ids, types, offsets = stream_of([5, 31, 2, 64, 8, 1, 12], served.start.model_config.vocab_size)
    together = engine(ids, types, offsets)
    for begin, end in pairwise(offsets.tolist()):
        alone = engine(ids[begin:end], types[begin:end], np.array([0, end - begin]))
        for one, every in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, every[begin:end], atol=5e-6)


def test_settings_tell_what_the_engine_needs(open_model, tmp_path):
    pytest.importorskip("onnxruntime")
    served = open_model("classify")
    write_model(served, "onnx", "fp16", tmp_path, "cpu", batch_tokens=77)
    assert json.loads((tmp_path / "settings.json").read_text()) == {
        "format": "onnx",
        "precision": "fp16",
        "file": "model.onnx",
        "task": "classify",
        "per_token": False,
        "outputs": 1,
        "vocab_size": served.start.tokenizer.vocab_size,
        "type_vocab_size": 2,
        "max_positions": 64,
        "batch_tokens": 77,
    }


@pytest.mark.parametrize(
    ("kind", "precision", "able"),
    [
        ("onnx", "bf16", "torch_export or aoti or torchscript"),
        ("torch_export", "int8", "onnx"),
        ("aoti", "int8", "onnx"),
        ("torchscript", "int8", "onnx"),
    ],
)
def test_a_number_format_that_a_format_lacks_is_one_line(kind, precision, able):
    expected = f"--precision {precision}: --format {kind} has none, expected --format {able}"
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"):
        check_precision(kind, precision)
