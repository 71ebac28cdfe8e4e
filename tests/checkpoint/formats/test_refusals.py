"""Errors name what is wrong with a checkpoint, and nothing dangerous is read from it."""

import json
import re
import struct

import numpy as np
import pytest
import torch
from random_models import random_model, weights_of

from bert.checkpoint.formats import FORMATS, match_config, read_checkpoint, write_checkpoint
from bert.checkpoint.formats.tf_bundle import Bundle, write_bundle
from bert.errors import UsageError

WHAT = "--checkpoint it"


def refusal(path, config, format=None) -> str:
    with pytest.raises(UsageError) as raised:
        match_config(read_checkpoint(path, format), config, None, WHAT)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def written(weights, tmp_path):
    """Return a function format -> (the checkpoint written in it, its largest file)."""

    def write(format: str):
        path = tmp_path / "made"
        write_checkpoint(path, format, weights)
        files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "vocab.txt"]
        return path, max(files, key=lambda file: file.stat().st_size)

    return write


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("part", [0, 0.1, 0.9])
def test_a_truncated_file(written, config, format, part):
    path, file = written(format)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size) // 4 * 4])
    message = refusal(path, config)
    # Truncated raw numbers may still be a whole table of fewer rows: then the shape is wrong.
    assert "made" in message or (format == "oneflow" and message.startswith(f"{WHAT}: bert.embeddings.word_embedding"))


@pytest.mark.parametrize("format", ["tf", "native", "nvidia", "2018"])
def test_a_flipped_bit_where_the_format_has_checksums(written, config, format):
    path, file = written(format)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert re.search("made.*damaged", refusal(path, config))


@pytest.mark.parametrize("format", FORMATS)
def test_another_models_configuration(written, config, format):
    path, _ = written(format)
    config.intermediate_size = 48
    assert re.fullmatch(
        rf"{WHAT}: bert\.encoder\.layer\.0\.intermediate\.dense\.weight has the shape \[64, 32\]; "
        r"expected \[48, 32\]; \d more have wrong shapes",
        refusal(path, config),
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_configuration_of_another_depth(written, config, format):
    path, _ = written(format)
    config.num_hidden_layers = 3
    assert "16 tensors of the model are not in it (bert.encoder.layer.2." in refusal(path, config)
    config.num_hidden_layers = 1
    assert "16 of its encoder tensors are not in the model (bert.encoder.layer.1." in refusal(path, config)


def test_only_allowed_tensors_may_be_missing(weights, config, tmp_path):
    for name in [name for name in weights.tensors if "pooler" in name or "seq_relationship" in name]:
        del weights.tensors[name]
    write_checkpoint(tmp_path / "made", "tf", weights)
    state = read_checkpoint(tmp_path / "made")
    with pytest.raises(UsageError, match=r"not in it \(bert\.pooler\.dense\.weight, bert\.pooler\.dense\.bias\)"):
        match_config(state, config, None, WHAT)
    found, report = match_config(state, config, None, WHAT, ["bert.pooler.*"])
    assert report.missing == ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    assert report.matched == list(weights.tensors)
    assert "left as initialised: bert.pooler.dense.weight, bert.pooler.dense.bias" in str(report)
    assert found.tensors["bert.pooler.dense.weight"].std() == pytest.approx(0.02, rel=0.1)
    again, _ = match_config(state, config, None, WHAT, ["bert.pooler.*"])
    assert torch.equal(found.tensors["bert.pooler.dense.weight"], again.tensors["bert.pooler.dense.weight"])


def test_half_a_head_is_an_error(weights, config, tmp_path):
    del weights.tensors["qa_outputs.bias"]
    write_checkpoint(tmp_path / "made", "native", weights)
    assert "not in it (qa_outputs.bias)" in refusal(tmp_path / "made", config)


def test_slots_and_counters_are_skipped_and_counted(weights, config, tmp_path):
    write_checkpoint(tmp_path / "plain", "tf", weights)
    plain = Bundle(tmp_path / "plain")
    arrays = {name: plain.read(name) for name in plain.entries}
    slots = {f"{name}/{slot}": array for name, array in arrays.items() for slot in ("adam_m", "adam_v")}
    write_bundle(tmp_path / "made", {**arrays, **slots, "global_step": np.int64(7)})
    found, report = match_config(read_checkpoint(tmp_path / "made"), config, None, WHAT)
    assert len(report.skipped) == 2 * len(arrays) + 1
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in weights.tensors.items())
    assert str(report) == f"{len(arrays)} tensors loaded; skipped: {len(slots) + 1} of an optimizer"


def test_a_strange_variable_of_the_encoder_is_an_error_and_another_is_reported(weights, config, tmp_path):
    write_checkpoint(tmp_path / "plain", "tf", weights)
    plain = Bundle(tmp_path / "plain")
    arrays = {name: plain.read(name) for name in plain.entries}
    write_bundle(tmp_path / "made", {**arrays, "cls/other/output_weights": np.zeros((2, 2), np.float32)})
    _, report = match_config(read_checkpoint(tmp_path / "made"), config, None, WHAT)
    assert report.unexpected == ["cls.other.output_weights"]
    write_bundle(tmp_path / "odd", {**arrays, "bert/encoder/layer_0/adapter/kernel": np.zeros((2, 2), np.float32)})
    message = refusal(tmp_path / "odd", config)
    assert "1 of its encoder tensors are not in the model (bert.encoder.layer_0.adapter.kernel)" in message


def test_a_checkpoint_of_an_optimizer_alone(weights, config, tmp_path):
    moments = {f"{name}/adam_m": np.zeros(3, np.float32) for name in ("bert/pooler/dense/bias", "output_bias")}
    write_bundle(tmp_path / "tf", moments)
    assert refusal(tmp_path / "tf", config) == f"{WHAT}: expected a state dict, or one under 'model'"
    torch.save({"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}}, tmp_path / "opt.pt")
    assert "not tensors: optimizer" in refusal(tmp_path / "opt.pt", config)


class Planted:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("folder", [False, True], ids=["file", "Hugging Face's folder"])
def test_code_in_a_pickle_is_not_run(config, tmp_path, folder):
    path = tmp_path / "model"
    path.mkdir()
    torch.save({"model": {"x": Planted(tmp_path / "ran")}}, path / "pytorch_model.bin")
    message = refusal(path if folder else path / "pytorch_model.bin", config)
    assert re.search(r"pytorch_model\.bin: holds a \S*open besides tensors", message)
    assert not (tmp_path / "ran").exists()


def safetensors_file(header: dict, data: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


BIAS = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
WRONG_HEADERS = {
    "longer than the file": {"x": {**BIAS, "shape": [1000], "data_offsets": [0, 4000]}},
    "another shape than its bytes": {"x": {**BIAS, "shape": [5]}},
    "overlapping": {"x": BIAS, "y": BIAS},
    "backwards": {"x": {**BIAS, "data_offsets": [16, 0]}},
    "no such type": {"x": {**BIAS, "dtype": "F31"}},
    "a hole": {"x": {**BIAS, "shape": [2], "data_offsets": [8, 16]}},
}


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_a_wrong_safetensors_header(config, tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(safetensors_file(header, bytes(16)))
    assert "model.safetensors: damaged, or not a file of safetensors" in refusal(tmp_path, config)


def test_a_safetensors_header_of_an_absurd_length(config, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert "model.safetensors: damaged, or not a file of safetensors" in refusal(tmp_path, config)


def test_numbers_that_are_not_finite(weights, config, tmp_path):
    weights.tensors["bert.pooler.dense.bias"][3] = float("nan")
    write_checkpoint(tmp_path / "made", "hf", weights)
    assert f"{WHAT}: bert.pooler.dense.bias: not finite" in refusal(tmp_path / "made", config)


def test_two_variables_of_one_meaning(config, tmp_path):
    heads = weights_of(random_model(config, ["qa_outputs"]))
    write_checkpoint(tmp_path / "made", "oneflow", heads)
    (tmp_path / "made" / "cls-squad-output_bias").mkdir()
    np.zeros(2, "<f4").tofile(tmp_path / "made" / "cls-squad-output_bias" / "out")
    assert "two tensors mean qa_outputs.bias" in refusal(tmp_path / "made", config)


def test_a_path_that_is_not_a_checkpoint(config, tmp_path):
    assert refusal(tmp_path / "none.pt", config) == (
        f"{tmp_path}/none.pt: No such file or directory, nor {tmp_path}/none.pt.index"
    )
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", config).startswith(f"{tmp_path}/empty: a folder without a checkpoint; expected")


def test_the_wrong_format_is_named(written, config):
    path, _ = written("hf")
    assert refusal(path, config, "oneflow") == (
        f"{path}: expected a checkpoint in the format oneflow, this looks like hf"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "roberta"}, "model_type roberta; expected bert"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type relative_key; expected absolute"),
        ({"is_decoder": True}, "is_decoder True; expected False"),
    ],
)
def test_a_folder_of_another_model(written, config, values, message):
    path, _ = written("hf")
    found = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**found, **values}))
    assert refusal(path, config) == f"{path}/config.json: {message}"


@pytest.mark.parametrize("format", ["hf", "oneflow"])
def test_an_existing_folder_is_not_overwritten(weights, tmp_path, format):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="--output .*/made: "):
        write_checkpoint(tmp_path / "made", format, weights)
    assert [path.name for path in tmp_path.rglob("*.txt") if path.parent.name == "made"] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "vocab.txt"]


def test_an_existing_checkpoint_of_tensorflow_is_not_overwritten(weights, tmp_path):
    write_checkpoint(tmp_path / "made", "tf", weights)
    before = {path: path.read_bytes() for path in tmp_path.glob("made*")}
    with pytest.raises(UsageError, match=r"made\.index exists"):
        write_checkpoint(tmp_path / "made", "tf", weights)
    assert {path: path.read_bytes() for path in tmp_path.glob("made*")} == before
