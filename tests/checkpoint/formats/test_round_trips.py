"""Every format there and back, bitwise, with and without heads; and how the formats differ."""

import pytest
import torch
from random_models import HEAD_SETS, random_model, weights_of
from torch import Tensor

from bert.checkpoint.formats import FORMATS, heads_in, match_config, read_checkpoint, recognise, write_checkpoint
from bert.model.config import BertConfig
from bert.model.names import DECODER

CARRIES_CONFIG = {"native", "nvidia", "hf"}
WORDS = "bert.embeddings.word_embeddings.weight"


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def back(path, format: str, config: BertConfig):
    assert recognise(path) == ("native" if format in ("nvidia", "2018") else format)
    return match_config(read_checkpoint(path, format), config, None, "it")


@pytest.mark.parametrize("heads", HEAD_SETS, ids=lambda heads: "+".join(heads) or "encoder")
@pytest.mark.parametrize("format", [name for name in FORMATS if name != "pals"])  # pals has a head for each task
def test_there_and_back_is_bitwise(config, tokenizer, tmp_path, format, heads):
    weights = weights_of(random_model(config, heads), tokenizer)
    left_out = write_checkpoint(tmp_path / "made", format, weights)
    found, report = back(tmp_path / "made", format, config)
    expected = {name: t for name, t in weights.tensors.items() if format != "2018" or name.startswith("bert.")}
    assert_same(found.tensors, expected)
    assert left_out == [name for name in weights.tensors if name not in expected]
    assert (report.missing, report.unexpected, report.skipped) == ([], [], [])
    assert heads_in(found.tensors) == ([] if format == "2018" else list(heads))


@pytest.mark.parametrize("format", ["native", "nvidia", "2018"])
def test_the_name_of_a_file_is_not_among_its_bytes(weights, tmp_path, format):
    for name in ("one.pt", "another.bin"):
        write_checkpoint(tmp_path / name, format, weights)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.bin").read_bytes()


@pytest.mark.parametrize("format", sorted(CARRIES_CONFIG))
def test_configuration_and_tokenizer_are_carried_over(weights, tmp_path, format):
    weights.config.hidden_act = "gelu_tanh"
    write_checkpoint(tmp_path / "made", format, weights)
    state = read_checkpoint(tmp_path / "made")
    found = BertConfig.from_dict(state["model_config"])
    assert {key: vars(found)[key] for key in vars(weights.config) if key != "hidden_act"} == {
        key: value for key, value in vars(weights.config).items() if key != "hidden_act"
    }
    assert found.hidden_act in ("gelu_tanh", "gelu_new")  # two names of one function
    assert state["tokenizer"] == weights.tokenizer.state_dict()


def test_facts_of_a_fine_tuned_model_are_carried_over(config, tokenizer, tmp_path):
    tuned = weights_of(random_model(config, ["classifier"]), tokenizer, task="mnli", labels=["no", "maybe", "yes"])
    write_checkpoint(tmp_path / "a", "native", tuned)
    state = read_checkpoint(tmp_path / "a")
    assert (state["task"], state["labels"]) == ("mnli", ["no", "maybe", "yes"])
    assert match_config(state, config, tokenizer, "it")[0].facts == tuned.facts


@pytest.mark.parametrize("format", ["tf", "oneflow", "hf", "2018"])
def test_word_pieces_have_no_padding_in_other_systems(weights, tmp_path, format):
    """73 pieces in 80 rows: the padding is not written."""
    weights.tensors[WORDS][73:] = 5
    weights.tensors["cls.predictions.bias"][73:] = 5
    write_checkpoint(tmp_path / "made", format, weights)
    found, _ = back(tmp_path / "made", format, weights.config)
    assert torch.equal(found.tensors[WORDS][:73], weights.tensors[WORDS][:73])
    assert not found.tensors[WORDS][73:].any()


@pytest.mark.parametrize("format", ["native", "nvidia"])
def test_padding_stays_where_it_is_stored(weights, tmp_path, format):
    write_checkpoint(tmp_path / "made", format, weights)
    model = torch.load(tmp_path / "made", weights_only=True)["model"]
    assert model[WORDS].shape == model[DECODER].shape == (80, 32)
    assert model[WORDS].data_ptr() == model[DECODER].data_ptr()  # stored once


def test_nvidias_spelling(weights, tmp_path):
    write_checkpoint(tmp_path / "made", "nvidia", weights)
    names = torch.load(tmp_path / "made", weights_only=True)["model"].keys()
    fused = {name.rpartition(".")[0] for name in names if "dense_act" in name}
    layers = {f"bert.encoder.layer.{i}.intermediate.dense_act" for i in (0, 1)}
    assert fused == {*layers, "bert.pooler.dense_act", "cls.predictions.transform.dense_act"}


def test_the_2018_state_dict_is_a_bare_encoder(weights, tmp_path):
    write_checkpoint(tmp_path / "made", "2018", weights)
    state = torch.load(tmp_path / "made", weights_only=True)
    assert "embeddings.LayerNorm.gamma" in state and "encoder.layer.1.output.LayerNorm.beta" in state
    assert all(name.startswith(("embeddings.", "encoder.", "pooler.")) for name in state)


def test_half_precision_stays_half_in_formats_that_have_it(config, tmp_path):
    half = weights_of(random_model(config).half())
    write_checkpoint(tmp_path / "made", "native", half)
    assert_same(back(tmp_path / "made", "native", config)[0].tensors, half.tensors)
    write_checkpoint(tmp_path / "folder", "hf", half)
    assert_same(back(tmp_path / "folder", "hf", config)[0].tensors, half.tensors)


def test_a_chain_through_all_formats_with_the_shape_of_bert_base(tmp_path):
    """BERT-base but for its depth, 30,522 pieces in 30,528 rows: native, TensorFlow, OneFlow, HF, NVIDIA, native."""
    config = BertConfig(30522, num_hidden_layers=2)
    first = weights_of(random_model(config, ("cls.predictions", "cls.seq_relationship")))
    weights = first
    for format in ("native", "tf", "oneflow", "hf", "nvidia", "native"):
        path = tmp_path / f"{format}-{len(list(tmp_path.iterdir()))}"
        write_checkpoint(path, format, weights)
        weights, _ = back(path, format, config)
    assert_same(weights.tensors, first.tensors)
