"""Loading weights: other spellings, padded vocabularies, heads, and the refusal to load a part in silence."""

import pytest
import torch
from torch import Tensor

from bert.checkpoint import load_weights
from bert.errors import UsageError
from bert.model.bert import (
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)

WHAT = "--init_checkpoint some.pt"
WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
BIAS = "cls.predictions.bias"
HEAD = ["classifier.*"]


@pytest.fixture
def source(tiny_config) -> dict[str, Tensor]:
    """The state dict of a pre-trained model in today's spelling, every tensor drawn at random."""
    torch.manual_seed(1)
    state = BertForPreTraining(tiny_config).state_dict()
    random = {name: torch.randn(tensor.shape) for name, tensor in state.items()}
    random[WORDS][tiny_config.vocab_size :] = 0
    random[BIAS][tiny_config.vocab_size :] = 0
    random[DECODER] = random[WORDS]
    return random


@pytest.fixture
def model(tiny_config) -> BertForPreTraining:
    torch.manual_seed(2)
    return BertForPreTraining(tiny_config)


def assert_loaded(model: torch.nn.Module, expected: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def edited(source: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    """Rename; the old spelling must occur."""
    assert any(old in name for name in source)
    return {name.replace(old, new): tensor for name, tensor in source.items()}


def untouched(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- whole checkpoints in every spelling ---------------------------------------------------------------------------


def test_every_tensor_is_loaded_and_counted(model, source):
    report = load_weights(model, source, WHAT)
    assert_loaded(model, source)
    assert sorted(report.matched) == sorted(source)
    assert report.missing == report.unexpected == []
    # 5 of the embeddings, 16 of each of 3 layers, 2 of the pooler, 8 of the heads
    assert str(report) == "63 tensors loaded"
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_the_dictionary_of_a_training_run_is_accepted(model, source):
    load_weights(model, {"model": source, "optimizer": {"state": {}}, "epoch": 3}, WHAT)
    assert_loaded(model, source)


def old_layer_norm(source: dict[str, Tensor]) -> dict[str, Tensor]:
    return edited(edited(source, "LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.bias", "LayerNorm.beta")


def fused_dense(source: dict[str, Tensor]) -> dict[str, Tensor]:
    for module in ("intermediate", "pooler", "transform"):
        source = edited(source, f"{module}.dense.", f"{module}.dense_act.")
    return source


def wrapped(source: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in source.items()}


def compiled(source: dict[str, Tensor]) -> dict[str, Tensor]:
    return edited(wrapped(source), "encoder.layer.1.", "encoder.layer.1._orig_mod.")


def untied(source: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in source.items() if name != DECODER}


def hugging_face(source: dict[str, Tensor]) -> dict[str, Tensor]:
    positions = {"bert.embeddings.position_ids": torch.arange(64)[None]}
    return {**source, **positions, "cls.predictions.decoder.bias": source[BIAS].clone()}


def one_bias(source: dict[str, Tensor]) -> dict[str, Tensor]:
    return edited(source, BIAS, "cls.predictions.decoder.bias")


def doubles(source: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in source.items()}


SPELLINGS = [old_layer_norm, fused_dense, wrapped, compiled, untied, hugging_face, one_bias, doubles]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_other_spellings_load_the_same(model, source, spell):
    report = load_weights(model, spell(source), WHAT)
    assert_loaded(model, source)
    assert len(report.matched) == 63
    assert report.missing == report.unexpected == []


def test_an_encoder_without_prefix_loads_into_a_model_with_one_and_back(tiny_config, source):
    encoder = {name.removeprefix("bert."): t for name, t in source.items() if name.startswith("bert.")}
    classifier = BertForSequenceClassification(tiny_config, num_labels=3)
    report = load_weights(classifier, old_layer_norm(encoder), WHAT, HEAD)
    assert_loaded(classifier.bert, encoder)
    assert report.missing == ["classifier.weight", "classifier.bias"]
    bare = BertModel(tiny_config)
    report = load_weights(bare, source, WHAT)
    assert_loaded(bare, encoder)
    assert sorted(report.unexpected) == sorted(name for name in source if name.startswith("cls."))


# --- heads ---------------------------------------------------------------------------------------------------------


def test_a_head_may_be_missing_only_if_allowed(tiny_config, source):
    model = BertForSequenceClassification(tiny_config)
    before = untouched(model)
    with pytest.raises(UsageError) as raised:
        load_weights(model, source, WHAT)
    assert str(raised.value) == (f"{WHAT}: 2 tensors of the model are not in it (classifier.weight, classifier.bias)")
    assert_loaded(model, before)  # nothing was copied before the error
    report = load_weights(model, source, WHAT, HEAD)
    assert torch.equal(model.classifier.weight, before["classifier.weight"])
    assert torch.equal(model.bert.pooler.dense.weight, source["bert.pooler.dense.weight"])
    assert str(report).startswith(
        "55 tensors loaded; left as initialised: classifier.weight, classifier.bias; not used:"
    )
    assert str(report).endswith("and 4 more")  # 8 tensors of the pre-training heads


def test_an_allowed_head_that_is_there_is_loaded(tiny_config, source):
    model = BertForQuestionAnswering(tiny_config)
    head = {"qa_outputs.weight": torch.ones(2, 32), "qa_outputs.bias": torch.tensor([1.0, 2.0])}
    report = load_weights(model, source | head, WHAT, ["qa_outputs.*"])
    assert report.missing == []
    assert model.qa_outputs.bias.tolist() == [1, 2]


def test_a_tied_pair_that_is_missing_is_reported_as_such(tiny_config, source):
    model = BertForPreTraining(tiny_config)
    encoder = {name: t for name, t in source.items() if name.startswith("bert.")}
    report = load_weights(model, encoder, WHAT, ["cls.*"])
    assert DECODER in report.matched
    assert sorted(report.missing) == sorted(n for n in source if n.startswith("cls.") and n != DECODER)
    del encoder[WORDS]
    with pytest.raises(UsageError, match=f"{WORDS}, {DECODER}"):
        load_weights(model, encoder, WHAT, ["cls.[!p]*", "cls.predictions.[!d]*"])


# --- encoder tensors that do not match -----------------------------------------------------------------------------


def test_a_missing_encoder_tensor_is_an_error_with_names_and_count(model, source):
    partial = {name: t for name, t in source.items() if "layer.2." not in name}
    with pytest.raises(UsageError) as raised:
        load_weights(model, partial, WHAT, ["cls.*"])
    assert str(raised.value).startswith(f"{WHAT}: 16 tensors of the model are not in it (bert.encoder.layer.2.")
    assert str(raised.value).endswith("and 12 more)")


def test_an_encoder_tensor_without_a_place_is_an_error(model, source):
    deeper = source | {"bert.encoder.layer.3.output.dense.bias": torch.zeros(32)}
    with pytest.raises(UsageError, match=r"1 of its encoder tensors are not in the model \(bert\.encoder\.layer\.3\."):
        load_weights(model, deeper, WHAT)


def test_an_unknown_spelling_is_an_error_and_not_a_random_encoder(model, source):
    with pytest.raises(UsageError, match=r"not in it.*of its encoder tensors"):
        load_weights(model, edited(source, "attention.self.query", "attention.q_proj"), WHAT)


def test_another_width_is_an_error_with_both_shapes(model, source):
    name = "bert.encoder.layer.0.output.dense.weight"
    with pytest.raises(UsageError, match=rf"{WHAT}: {name} has the shape \[32, 48\]; expected \[32, 64\]"):
        load_weights(model, source | {name: torch.zeros(32, 48)}, WHAT)


def test_tied_tensors_that_differ_are_an_error(model, source):
    with pytest.raises(UsageError, match=f"{WORDS} and {DECODER} differ"):
        load_weights(model, source | {DECODER: source[WORDS] + 1}, WHAT)


def test_two_spellings_of_one_tensor_are_an_error(model, source):
    twice = source | {"bert.embeddings.LayerNorm.gamma": torch.ones(32)}
    with pytest.raises(UsageError, match=r"two tensors mean bert\.embeddings\.LayerNorm\.weight"):
        load_weights(model, twice, WHAT)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"epoch": 3}, {"model": None}, {"state_dict": {}}])
def test_no_state_dict_at_all(model, content):
    with pytest.raises(UsageError, match=r"--init_checkpoint some\.pt: expected a state dict"):
        load_weights(model, content, WHAT)


# --- vocabulary rows: 101 pieces, padded to 104 --------------------------------------------------------------------


def with_rows(source: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Cut or extend the three vocabulary tables; added rows hold ones."""
    result = dict(source)
    for name in (WORDS, BIAS):
        table = source[name][:rows]
        result[name] = torch.cat([table, torch.ones(rows - len(table), *table.shape[1:])])
    result[DECODER] = result[WORDS]
    return result


def test_an_unpadded_vocabulary_is_filled_with_zeros(model, source):
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    load_weights(model, with_rows(source, 101), WHAT)
    assert model.state_dict()[WORDS].shape == (104, 32)
    assert_loaded(model, source)  # whose padding rows are zero


def test_a_padded_vocabulary_is_cut_for_a_model_without_padding(model, source):
    for module, name in ((model.bert.embeddings.word_embeddings, "weight"), (model.cls.predictions, "bias")):
        setattr(module, name, torch.nn.Parameter(torch.zeros_like(getattr(module, name)[:101])))
    model.cls.predictions.decoder.weight = model.bert.embeddings.word_embeddings.weight
    load_weights(model, source, WHAT)
    assert_loaded(model, source | {name: source[name][:101] for name in (WORDS, DECODER, BIAS)})


@pytest.mark.parametrize("rows", [100, 105, 128])
def test_another_vocabulary_is_an_error_with_both_sizes(model, source, rows):
    with pytest.raises(UsageError) as raised:
        load_weights(model, with_rows(source, rows), WHAT)
    assert f"has the shape [{rows}, 32]; expected [101, 32] (vocab_size 101) or, padded, [104, 32]" in str(raised.value)


def test_a_model_on_half_precision_keeps_its_type(tiny_config, source):
    model = BertForPreTraining(tiny_config).bfloat16()
    load_weights(model, source, WHAT)
    assert model.bert.pooler.dense.weight.dtype == torch.bfloat16
    assert torch.equal(model.bert.pooler.dense.weight, source["bert.pooler.dense.weight"].bfloat16())
