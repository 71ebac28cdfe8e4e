"""A checkpoint that TensorFlow wrote is read here and computes the same; one written here is read by TensorFlow.

Needs a Python that has TensorFlow, in the variable TENSORFLOW_PYTHON.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import convert_checkpoint
from bert.checkpoint.formats import HEADS, build_model, read_checkpoint
from bert.checkpoint.formats.tf_bundle import Bundle
from bert.config import parse_args
from bert.model.config import BertConfig

TENSORFLOW_PYTHON = os.environ.get("TENSORFLOW_PYTHON")
LIMIT = 1e-6  # RMS, in fp32

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not TENSORFLOW_PYTHON,
        reason="needs TensorFlow: bash scripts/tensorflow_env.sh DIR; export TENSORFLOW_PYTHON=DIR/bin/python",
    ),
]


def run_tensorflow(*arguments) -> None:
    command = [TENSORFLOW_PYTHON, str(Path(__file__).with_name("tensorflow_side.py")), *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tensorflow")
    run_tensorflow("write", folder)
    return folder


def convert(checkpoint, output, to, **flags) -> None:
    words = {"checkpoint": checkpoint, "output": output, "to": to, **flags}
    argv = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    convert_checkpoint.main(parse_args(convert_checkpoint.Config, argv))


def rms(a, b) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)))))


def test_every_variable_is_read_bitwise(theirs):
    bundle, expected = Bundle(theirs / "bert_model.ckpt"), np.load(theirs / "variables.npz")
    assert len(bundle.entries) == 3 * len(expected.files) + 1
    for name in expected.files:
        assert bundle.read(name).tobytes() == expected[name].tobytes()
    assert bundle.read("global_step") == 1_000_000


def test_layers_and_heads_are_those_of_tensorflow(theirs, tmp_path, capsys):
    convert(theirs / "bert_model.ckpt", tmp_path / "m.pt", "native")
    outputs = np.load(theirs / "outputs.npz")
    skipped = 2 * len(np.load(theirs / "variables.npz").files) + 1
    assert f"skipped: {skipped} of an optimizer" in capsys.readouterr().out
    state = read_checkpoint(tmp_path / "m.pt")
    model = build_model(state["model"], BertConfig.from_dict(state["model_config"])).eval()
    model.load_state_dict(state["model"])
    inputs = [torch.from_numpy(outputs[f"input {name}"]) for name in ("ids", "types", "mask")]
    real = inputs[2].bool().numpy()
    with torch.no_grad():
        layers, pooled = model.bert(*inputs)
        found = {
            "cls.predictions": model.cls.predictions(layers[-1]),
            "cls.seq_relationship": model.cls.seq_relationship(pooled),
            "qa_outputs": model.qa_outputs(layers[-1]),
            "classifier": model.classifier(pooled),
        }
    for number, layer in enumerate(layers):
        assert rms(layer[real], outputs[f"layer {number}"][real]) < LIMIT
    assert rms(pooled, outputs["pooled"]) < LIMIT
    assert set(found) == set(HEADS)
    for name, logits in found.items():
        expected = outputs[name].reshape(logits.shape)
        where = real if logits.shape[:2] == real.shape else slice(None)
        assert rms(logits[where], expected[where]) / rms(expected[where], 0) < LIMIT


def test_transformers_computes_the_same_from_the_converted_folder(theirs, tmp_path):
    convert(theirs / "bert_model.ckpt", tmp_path / "hf", "hf")
    outputs = np.load(theirs / "outputs.npz")
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    ids, types, mask = (torch.from_numpy(outputs[f"input {name}"]) for name in ("ids", "types", "mask"))
    with torch.no_grad():
        found = model(ids, mask, types, output_hidden_states=True)
    real = mask.bool().numpy()
    for number, layer in enumerate(found.hidden_states[1:]):
        assert rms(layer[real], outputs[f"layer {number}"][real]) < LIMIT
    assert rms(found.pooler_output, outputs["pooled"]) < LIMIT


def test_what_is_written_here_tensorflow_reads_bitwise(theirs, tmp_path):
    convert(theirs / "bert_model.ckpt", tmp_path / "m.pt", "native")
    convert(tmp_path / "m.pt", tmp_path / "back" / "bert_model.ckpt", "tf")
    run_tensorflow("read", tmp_path / "back" / "bert_model.ckpt", tmp_path / "read.npz")
    found, expected = np.load(tmp_path / "read.npz"), np.load(theirs / "variables.npz")
    assert sorted(found.files) == sorted(expected.files)
    for name in expected.files:
        assert found[name].dtype == expected[name].dtype
        assert found[name].tobytes() == expected[name].tobytes()
