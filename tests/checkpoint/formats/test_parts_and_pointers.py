"""Weights in several files, as transformers writes them, and the ways in which a checkpoint of TensorFlow is named."""

import json
import re

import pytest
import torch
import transformers
from random_models import random_model, weights_of
from safetensors.torch import load_file, save_file

from bert.checkpoint.formats import read_checkpoint, recognise, write_checkpoint
from bert.checkpoint.open_model import ModelDescription, find_model_config
from bert.errors import UsageError


def refusal(path) -> str:
    with pytest.raises(UsageError) as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def shards(config, tokenizer, tmp_path):
    """A folder with the weights in one file, and another of transformers' with the same in several."""
    write_checkpoint(tmp_path / "one", "hf", weights_of(random_model(config, ("cls.predictions",)), tokenizer))
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    (tmp_path / "one" / "vocab.txt").rename(tmp_path / "many" / "vocab.txt")
    return {**model.state_dict()}, tmp_path / "many"


def index_of(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())


def test_shards_of_transformers_are_read(shards):
    expected, folder = shards
    files = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(files) > 3 and not (folder / "model.safetensors").exists()
    saved = index_of(folder)["weight_map"]  # without the tied decoder
    for path in (folder, folder / "model.safetensors.index.json", files[1]):
        assert recognise(path) == "hf"
        found = read_checkpoint(path)
        assert_equal(found["model"], {name: expected[name] for name in saved})
        assert found["model_config"]["hidden_size"] == 32 and "tokenizer" in found
    # The older format, which transformers 5 no longer writes: the same index over files of torch.save.
    for file in files:
        torch.save(
            load_file(file), folder / file.name.replace("model-", "pytorch_model-").replace("safetensors", "bin")
        )
        file.unlink()
    places = {name: f"pytorch_{file.replace('safetensors', 'bin')}" for name, file in saved.items()}
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_equal(read_checkpoint(folder)["model"], found["model"])


def test_damaged_shards_are_one_line(shards, tmp_path):
    _, folder = shards
    index, places = folder / "model.safetensors.index.json", index_of(folder)["weight_map"]
    name, file = max(places.items(), key=lambda item: item[1])
    for wrong in ("../one/model.safetensors", str(tmp_path / "one" / "model.safetensors"), "..", "", "config.json"):
        index.write_text(json.dumps({"weight_map": {**places, name: wrong}}))
        assert refusal(folder) == (
            f"{index}: names the file {wrong!r}, expected one such as model-00001-of-00002.safetensors"
        )
    for content in ("{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}'):
        index.write_text(content)
        assert refusal(folder) == f"{index}: expected a weight_map from the names of tensors to files"
    index.write_text("[")
    assert refusal(folder).startswith(f"the index of the weights {index}: not a JSON file")
    index.write_text(json.dumps({"weight_map": places}))
    tensors = load_file(folder / file)
    save_file({"other": torch.zeros(1), **{key: each for key, each in tensors.items() if key != name}}, folder / file)
    assert refusal(folder) == f"{folder / file}: {name}: missing, {index.name} says it is there"
    (folder / file).write_bytes(b"short")
    assert refusal(folder).startswith(f"{folder / file}: damaged, or not a file of safetensors")
    (folder / file).unlink()
    assert refusal(folder) == f"{index}: {file} is missing"


def test_a_moved_checkpoint_and_each_of_its_files(weights, tmp_path):
    folder = tmp_path / "moved"
    write_checkpoint(folder / "model.ckpt-7", "tf", weights)
    (folder / "model.ckpt-7.meta").touch()
    pointer = folder / "checkpoint"
    pointer.write_text('model_checkpoint_path: "/their/machine/model.ckpt-7"\nall_model_checkpoint_paths: "x"\n')
    expected = read_checkpoint(folder / "model.ckpt-7")["model"]
    for name in ("", "checkpoint", *(f"model.ckpt-7.{part}" for part in ("index", "meta", "data-00000-of-00001"))):
        assert recognise(folder / name) == "tf"
        assert_equal(read_checkpoint(folder / name)["model"], expected)
    pointer.write_text('model_checkpoint_path: "/their/machine/model.ckpt-9"\n')  # the only one is still the only one
    assert_equal(read_checkpoint(folder)["model"], expected)


def test_the_recorded_checkpoint_among_several(weights, tmp_path):
    for step in (7, 9):
        weights.tensors["bert.pooler.dense.bias"].fill_(step)
        write_checkpoint(tmp_path / f"model.ckpt-{step}", "tf", weights)
    for path in ("model.ckpt-7", "/their/machine/model.ckpt-7", str(tmp_path / "model.ckpt-7")):
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
        assert read_checkpoint(tmp_path)["model"]["bert.pooler.dense.bias"][0] == 7
    several = f"{tmp_path}: 2 checkpoints of TensorFlow, expected the path of one: model.ckpt-7, model.ckpt-9"
    for text in ('model_checkpoint_path: "/their/machine/model.ckpt-8"\n', "", None):
        (tmp_path / "checkpoint").write_text(text) if text is not None else (tmp_path / "checkpoint").unlink()
        assert refusal(tmp_path) == several
    (tmp_path / "model.ckpt-7.index").unlink()
    message = refusal(tmp_path / "model.ckpt-7.data-00000-of-00001")
    assert re.fullmatch(f"{tmp_path}/model.ckpt-7.index: No such file or directory", message)


def test_a_configuration_beside_weights_that_cannot_be_used(tmp_path, weights):
    write_checkpoint(tmp_path / "hf", "hf", weights)
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**weights.config.to_dict(), "hidden_size": "32"}))
    with pytest.raises(
        UsageError, match='^the configuration of --init_checkpoint x: hidden_size "32": expected a whole'
    ):
        find_model_config(ModelDescription(), read_checkpoint(tmp_path / "hf"), None, "--init_checkpoint x")
