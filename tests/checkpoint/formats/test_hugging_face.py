"""transformers reads what is written here, and the reverse: every layer, head and piece is the same."""

import json

import pytest
import torch
import transformers
from random_models import random_model, weights_of

from bert.checkpoint.formats import build_model, match_config, read_checkpoint, write_checkpoint
from bert.checkpoint.open_model import ModelDescription, find_model_config, find_tokenizer
from bert.errors import UsageError
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer

POOLER = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}  # transformers leaves it out where unused
LIMIT = 1e-6  # RMS of a layer of random weights, in fp32
TEXTS = ["The river walks under seven stones.", "sing, [MASK] on the bright table", "ÄÖ xyz 水 [SEP] walking"]


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.fixture
def inputs(config):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(config.vocab_size, (3, 20), generator=draw)
    types = (torch.arange(20) > 8).long().expand(3, 20)
    mask = torch.arange(20) < torch.tensor([[20], [13], [5]])
    return ids, types, mask.long()


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh", "relu", "swish"])
def test_auto_model_has_the_same_layers(config, tokenizer, tmp_path, inputs, hidden_act):
    config.hidden_act = hidden_act
    model = random_model(config, ())
    write_checkpoint(tmp_path / "hf", "hf", weights_of(model, tokenizer))
    theirs, loading = transformers.AutoModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    with torch.no_grad():
        layers, pooled = model.bert(*inputs)
        found = theirs.eval()(inputs[0], inputs[2], inputs[1], output_hidden_states=True)
    real = inputs[2].bool()
    for ours, other in zip(layers, found.hidden_states[1:], strict=True):
        assert rms(ours[real], other[real]) < LIMIT
    assert rms(pooled, found.pooler_output) < LIMIT


HEADS = [
    (("cls.predictions", "cls.seq_relationship"), "BertForPreTraining"),
    (("cls.predictions",), "BertForMaskedLM"),
    (("cls.seq_relationship",), "BertForNextSentencePrediction"),
    (("qa_outputs",), "BertForQuestionAnswering"),
    (("classifier",), "BertForSequenceClassification"),
]


def our_outputs(model, inputs) -> list[torch.Tensor]:
    """Return the outputs of the heads, in transformers' order."""
    layers, pooled = model.bert(*inputs)
    cls, outputs = getattr(model, "cls", None), []
    if hasattr(cls, "predictions"):
        outputs.append(cls.predictions(layers[-1])[inputs[2].bool()])
    if hasattr(cls, "seq_relationship"):
        outputs.append(cls.seq_relationship(pooled))
    if hasattr(model, "qa_outputs"):
        outputs += [logits[inputs[2].bool()] for logits in model.qa_outputs(layers[-1]).unbind(-1)]
    if hasattr(model, "classifier"):
        outputs.append(model.classifier(pooled))
    return outputs


def their_outputs(model, inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        outputs = model.eval()(inputs[0], inputs[2], inputs[1]).to_tuple()
    return [output[inputs[2].bool()] if output.shape[:2] == inputs[0].shape else output for output in outputs]


@pytest.mark.parametrize(("heads", "architecture"), HEADS, ids=[row[1] for row in HEADS])
def test_heads_there_and_back(config, tokenizer, tmp_path, inputs, heads, architecture):
    model = random_model(config, heads, num_labels=3)
    write_checkpoint(tmp_path / "hf", "hf", weights_of(model, tokenizer))
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == [architecture]
    theirs, loading = getattr(transformers, architecture).from_pretrained(tmp_path / "hf", output_loading_info=True)
    poolerless = architecture in ("BertForMaskedLM", "BertForQuestionAnswering")
    assert not loading["missing_keys"]
    assert set(loading["unexpected_keys"]) == (POOLER if poolerless else set())
    with torch.no_grad():
        ours = our_outputs(model, inputs)
    for mine, other in zip(ours, their_outputs(theirs, inputs), strict=True):
        assert rms(mine, other) < 1e-5  # logits of width 32 with weights of 0.3 are larger than a layer's outputs

    theirs.save_pretrained(tmp_path / "again")
    state = read_checkpoint(tmp_path / "again")
    found, report = match_config(state, config, None, "it", ["bert.pooler.*"] * poolerless)
    expected = weights_of(model).tensors
    assert found.tensors.keys() == expected.keys() and set(report.missing) == (POOLER if poolerless else set())
    assert all(torch.equal(found.tensors[name], expected[name]) for name in report.matched)


@pytest.mark.parametrize("lower", [True, False])
def test_the_tokenizer_cuts_alike(config, vocab_file, tmp_path, lower):
    ours = BertTokenizer(vocab_file, lower)
    write_checkpoint(tmp_path / "hf", "hf", weights_of(random_model(config, ()), ours))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in TEXTS[:2]:
        expected = [ours.cls_id, *ours.encode_batch([text])[0], ours.sep_id]
        assert theirs(text)["input_ids"] == expected
    pair = theirs(TEXTS[0], TEXTS[1])
    a, b = (len(ids) for ids in ours.encode_batch(TEXTS[:2]))
    assert pair["token_type_ids"] == [0] * (a + 2) + [1] * (b + 1)
    assert theirs.mask_token_id == ours.mask_id and theirs.pad_token_id == ours.pad_id
    assert theirs.model_max_length == config.max_position_embeddings
    again = BertTokenizer.from_state_dict(read_checkpoint(tmp_path / "hf")["tokenizer"])
    assert again.state_dict() == ours.state_dict()


def test_what_transformers_saves_of_a_tokenizer_is_read(config, vocab_file, tmp_path):
    ours = BertTokenizer(vocab_file, do_lower_case=False)
    write_checkpoint(tmp_path / "hf", "hf", weights_of(random_model(config, ()), ours))
    transformers.AutoTokenizer.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "again")
    transformers.AutoModel.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "again")
    again = BertTokenizer.from_state_dict(read_checkpoint(tmp_path / "again")["tokenizer"])
    assert again.fingerprint == ours.fingerprint
    assert again.encode_batch(TEXTS) == ours.encode_batch(TEXTS)
    assert not again.do_lower_case


def test_an_old_folder_with_pytorch_model_bin(config, tokenizer, tmp_path):
    """Layout of 2019: bert_config.json, a pickle with position_ids, a decoder, and the bias under both names."""
    model = random_model(config, ("cls.predictions", "cls.seq_relationship"))
    state = dict(model.state_dict())
    state["bert.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "bert_config.json").write_text(json.dumps({**config.to_dict(), "hidden_act": "gelu_pytorch_tanh"}))
    read = read_checkpoint(tmp_path)
    assert BertConfig.from_dict(read["model_config"]).hidden_act == "gelu_tanh"
    assert read["tokenizer"]["vocab"] == list(tokenizer.vocab)  # from vocab.txt in the same folder
    found, report = match_config(read, config, None, "it")
    expected = weights_of(model).tensors
    assert report.unexpected == [] and found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())


def test_the_same_model_is_built_again(config, tokenizer, tmp_path, inputs):
    model = random_model(config)
    write_checkpoint(tmp_path / "hf", "hf", weights_of(model, tokenizer))
    weights, _ = match_config(read_checkpoint(tmp_path / "hf"), config, None, "it")
    again = build_model(weights.tensors, config).eval()
    again.load_state_dict(weights.tensors, strict=False)
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(our_outputs(model, inputs), our_outputs(again, inputs), strict=True)
        )


def test_another_kind_of_tokenizer_is_refused_unless_the_text_is_cut_already(config, vocab_file, tmp_path):
    folder = tmp_path / "hf"
    write_checkpoint(folder, "hf", weights_of(random_model(config, ()), BertTokenizer(vocab_file)))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    state = read_checkpoint(folder)
    with pytest.raises(UsageError, match="BertJapaneseTokenizer; expected BertTokenizer.*--pretokenized"):
        find_tokenizer(ModelDescription(), state, "it")
    with pytest.raises(UsageError, match="BertJapaneseTokenizer; expected BertTokenizer.*--pretokenized"):
        find_tokenizer(ModelDescription(vocab_file=str(folder / "vocab.txt")), state, "it")
    cut = ModelDescription(vocab_file=str(folder), pretokenized=True, do_lower_case=False)
    tokenizer = find_tokenizer(cut, state, "it")
    assert tokenizer is not None and tokenizer.tokenize("song,") == ["[UNK]"] and tokenizer.vocab_size == 73


def test_a_checkpoint_from_before_a_setting_was_named_states_it(vocab_file):
    names = ("vocab", "do_lower_case", "max_input_chars_per_word", "strip_accents", "never_split", "pretokenized")
    state = BertTokenizer(vocab_file).state_dict()
    older = {"tokenizer": {name: state[name] for name in names}}
    tokenizer = find_tokenizer(ModelDescription(), older, "it")
    assert tokenizer is not None and tokenizer.identity == BertTokenizer(vocab_file).identity
    with pytest.raises(UsageError, match="--tokenize_chinese_chars false, but it has tokenize_chinese_chars true"):
        find_tokenizer(ModelDescription(tokenize_chinese_chars=False), older, "it")


def test_rows_that_only_the_embedding_table_has_get_ids(config, vocab_file, tmp_path):
    """transformers accepts more rows than pieces, as after resize_token_embeddings to a round number."""
    config.vocab_size = 128
    model = random_model(config, ())
    folder = tmp_path / "hf"
    write_checkpoint(folder, "hf", weights_of(model))
    transformers.BertTokenizer(str(vocab_file)).save_pretrained(folder)
    state = read_checkpoint(folder)
    tokenizer = find_tokenizer(ModelDescription(), state, "it")
    assert tokenizer is not None and (tokenizer.vocab_size, len(tokenizer.used_ids)) == (128, 73)
    assert tokenizer.difference(BertTokenizer(vocab_file).identity) is None
    assert find_model_config(ModelDescription(), state, tokenizer, "it").vocab_size == 128


@pytest.mark.parametrize("act", [["gelu"], 3, {"name": "gelu"}])
def test_an_activation_that_is_no_name_is_one_line(config, tokenizer, tmp_path, act):
    write_checkpoint(tmp_path / "hf", "hf", weights_of(random_model(config, ()), tokenizer))
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": act}))
    state = read_checkpoint(tmp_path / "hf")
    with pytest.raises(UsageError, match="hidden_act .*expected"):
        find_model_config(ModelDescription(), state, None, "it")
