"""The models against transformers, an independent implementation, in fp32 without dropout."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from bert.errors import UsageError
from bert.model.attention import ATTENTION, resolve_attention
from bert.model.bert import (
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective


def peer_config(config: BertConfig, **changes) -> transformers.BertConfig:
    return transformers.BertConfig(**{**config.to_dict(), **changes})


def copy_weights(ours: torch.nn.Module, peer: torch.nn.Module) -> None:
    """Load transformers' weights; their vocabulary tables have no padding rows."""
    rows = ours.config.padded_vocab_size - ours.config.vocab_size
    state = {name: value for name, value in peer.state_dict().items() if name != "cls.predictions.decoder.bias"}
    for name in [n for n in state if n.endswith(("word_embeddings.weight", "decoder.weight"))]:
        state[name] = F.pad(state[name], (0, 0, 0, rows))
    if "cls.predictions.bias" in state:
        state["cls.predictions.bias"] = F.pad(state["cls.predictions.bias"], (0, rows))
    # transformers builds its question-answering model without a pooler.
    state |= {name: value for name, value in ours.state_dict().items() if "pooler" in name and name not in state}
    ours.load_state_dict(state)


@pytest.fixture
def padded_batch():
    torch.manual_seed(1)
    mask = (torch.arange(24) < torch.tensor([24, 7, 15, 1])[:, None]).long()
    return torch.randint(101, mask.shape) * mask, torch.randint(2, mask.shape) * mask, mask


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


@pytest.mark.parametrize("act,peer_act", [("gelu", "gelu"), ("gelu_tanh", "gelu_new"), ("relu", "relu")])
def test_every_layer_equals_transformers(tiny_config, padded_batch, act, peer_act):
    tiny_config.hidden_act = act
    peer = transformers.BertModel(peer_config(tiny_config, hidden_act=peer_act)).eval()
    ours = BertModel(tiny_config).eval()
    copy_weights(ours, peer)
    ids, types, mask = padded_batch
    layers, pooled = ours(ids, types, mask)
    expected = peer(ids, token_type_ids=types, attention_mask=mask, output_hidden_states=True)
    real = mask.bool()
    assert len(layers) == 3
    for layer, hidden in zip(layers, expected.hidden_states[1:], strict=True):
        assert rms(layer[real], hidden[real]) <= 1e-6
        assert (layer[real] - hidden[real]).abs().max() <= 1e-5
        assert (layer[~real] == 0).all()
    assert rms(pooled, expected.pooler_output) <= 1e-6


def test_a_mask_with_holes_equals_transformers(tiny_config):
    torch.manual_seed(2)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1]])
    ids = torch.randint(101, mask.shape)
    peer = transformers.BertModel(peer_config(tiny_config)).eval()
    ours = BertModel(tiny_config).eval()
    copy_weights(ours, peer)
    expected = peer(ids, attention_mask=mask).last_hidden_state
    assert rms(ours(ids, None, mask)[0][-1][mask.bool()], expected[mask.bool()]) <= 1e-6


def test_a_row_without_tokens_is_an_error(tiny_config):
    with pytest.raises(ValueError, match="without a real token"):
        BertModel(tiny_config)(torch.ones(2, 3, dtype=torch.long), None, torch.tensor([[1, 1, 0], [0, 0, 0]]))


def test_pretraining_loss_and_gradients_equal_transformers(tiny_config, padded_batch):
    peer = transformers.BertForPreTraining(peer_config(tiny_config))
    ours = BertForPreTraining(tiny_config)
    copy_weights(ours, peer)
    ids, types, mask = padded_batch
    labels = torch.where((torch.rand(mask.shape) < 0.2) & mask.bool(), ids, -100)
    labels[0, 3] = 5
    next_sentence = torch.tensor([0, 1, 1, 0])
    loss = ours(ids, types, mask, labels, next_sentence)
    expected = peer(
        ids, token_type_ids=types, attention_mask=mask, labels=labels, next_sentence_label=next_sentence
    ).loss
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    loss.backward()
    expected.backward()
    peer_gradients = {name: p.grad for name, p in peer.named_parameters()}
    for name, p in ours.named_parameters():
        theirs = peer_gradients[name]
        torch.testing.assert_close(p.grad[: theirs.shape[0]], theirs, rtol=1e-5, atol=1e-5, msg=name)
        assert (p.grad[theirs.shape[0] :] == 0).all()  # padding rows of the vocabulary never train


def test_labels_minus_one_and_minus_hundred_are_both_ignored(tiny_config, padded_batch):
    model = BertForPreTraining(tiny_config)
    ids, types, mask = padded_batch
    labels = torch.where(torch.rand(mask.shape) < 0.2, ids, -1)
    next_sentence = torch.zeros(4, dtype=torch.long)
    minus_one = model(ids, types, mask, labels, next_sentence)
    minus_hundred = model(ids, types, mask, labels.masked_fill(labels == -1, -100), next_sentence)
    assert minus_one == minus_hundred
    nothing_masked = model(ids, types, mask, torch.full_like(ids, -1), next_sentence)
    assert nothing_masked.isfinite()


@pytest.mark.parametrize("backend", [name for name in ATTENTION if name not in ("reference", "varlen")])
def test_attention_backends_agree_with_the_reference(tiny_config, make_batch, backend):
    batch = make_batch([9, 4, 17, 1])
    gradients = []
    for name in ("reference", backend):
        torch.manual_seed(0)
        model = BertForPreTraining(tiny_config, attention=name)
        losses = PreTrainingObjective(model)(batch)
        sum(losses.values()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()} | losses)
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [("cpu", None, "blocked"), ("cuda", (7, 5), "sdpa"), ("cuda", (8, 0), "fused"), ("cuda", (9, 0), "fused")],
)
def test_auto_is_what_the_device_can_run(monkeypatch, device, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_attention("auto", torch.device(device)) == expected


def test_an_unknown_attention_lists_the_known_ones(tiny_config):
    with pytest.raises(UsageError, match="--attention flash9: unknown, expected auto or one of fused, varlen, sdpa"):
        BertModel(tiny_config, attention="flash9")


def test_unpadded_stream_equals_padded_batch(tiny_config, make_batch):
    """The summed stream losses against cross-entropy on the padded logits, in float64."""
    model = BertForPreTraining(tiny_config).double()
    lengths = [12, 5, 9]
    batch = make_batch(lengths)
    ids, types, labels = (torch.zeros(3, 12, dtype=torch.long) for _ in range(3))
    labels -= 1
    stream_labels = torch.full((26,), -1)
    stream_labels[batch.masked_positions] = batch.masked_labels
    parts = zip(
        batch.input_ids.split(lengths), batch.token_type_ids.split(lengths), stream_labels.split(lengths), strict=True
    )
    for row, (tokens, kinds, targets) in enumerate(parts):
        ids[row, : len(tokens)], types[row, : len(tokens)], labels[row, : len(tokens)] = tokens, kinds, targets
    mask = torch.arange(12) < torch.tensor(lengths)[:, None]
    scores, relationship = model(ids, types, mask)
    stream = PreTrainingObjective(model)(batch)
    mlm = F.cross_entropy(scores.flatten(0, 1).float(), labels.flatten(), ignore_index=-1, reduction="sum")
    nsp = F.cross_entropy(relationship.float(), batch.next_sentence_labels, reduction="sum")
    torch.testing.assert_close(stream["mlm_loss"], mlm, rtol=1e-6, atol=0)
    torch.testing.assert_close(stream["nsp_loss"], nsp, rtol=1e-6, atol=0)


def test_masked_only_head_equals_full_head(tiny_config, make_batch):
    model = BertForPreTraining(tiny_config)
    batch = make_batch([12, 5, 9], masked=3)
    results = []
    for dense in (True, False):
        model.zero_grad()
        losses = PreTrainingObjective(model, dense_sequence_output=dense)(batch)
        sum(losses.values()).backward()
        results.append(losses | {n: p.grad.clone() for n, p in model.named_parameters()})
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, rtol=1e-5, atol=1e-6, msg=name)


def test_a_batch_with_no_masked_token_has_no_mlm_loss(tiny_config, make_batch):
    losses = PreTrainingObjective(BertForPreTraining(tiny_config))(make_batch([6, 3], masked=0))
    assert losses["mlm_loss"] == 0
    sum(losses.values()).backward()


def test_evaluate_counts_right_predictions(tiny_config, make_batch):
    objective = PreTrainingObjective(BertForPreTraining(tiny_config))
    batch = make_batch([12, 5, 9], masked=4)
    scores, relationship = objective.logits(batch)
    results = objective.evaluate(batch)
    right = sum(int(row.argmax()) == label for row, label in zip(scores, batch.masked_labels.tolist(), strict=True))
    assert results["mlm_correct"] == right
    assert results["nsp_correct"] == (relationship[:, 1] > relationship[:, 0]).eq(batch.next_sentence_labels).sum()


def test_classifier_equals_transformers(tiny_config, padded_batch):
    peer = transformers.BertForSequenceClassification(peer_config(tiny_config, num_labels=3))
    ours = BertForSequenceClassification(tiny_config, num_labels=3)
    copy_weights(ours, peer)
    ids, types, mask = padded_batch
    labels = torch.tensor([0, 2, 1, 2])
    loss, logits = ours.eval()(ids, types, mask, labels)
    expected = peer.eval()(ids, token_type_ids=types, attention_mask=mask, labels=labels)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_question_answering_equals_transformers_with_clamped_positions(tiny_config, padded_batch):
    peer = transformers.BertForQuestionAnswering(peer_config(tiny_config))
    ours = BertForQuestionAnswering(tiny_config).eval()
    copy_weights(ours, peer.eval())
    ids, types, mask = padded_batch
    mask = torch.ones_like(mask)  # scores of padding differ by design, so compare where there is none
    starts, ends = torch.tensor([0, 3, 99, -7]), torch.tensor([2, 99, 24, 5])
    loss = ours(ids, types, mask, starts, ends)
    expected = peer(ids, token_type_ids=types, attention_mask=mask, start_positions=starts, end_positions=ends)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours(ids, types, mask)[0], expected.start_logits, rtol=1e-5, atol=1e-6)


def test_multiple_choice_equals_transformers(tiny_config):
    torch.manual_seed(3)
    ids = torch.randint(101, (2, 4, 9))
    peer = transformers.BertForMultipleChoice(peer_config(tiny_config)).eval()
    ours = BertForMultipleChoice(tiny_config, num_choices=4).eval()
    copy_weights(ours, peer)
    labels = torch.tensor([3, 0])
    torch.testing.assert_close(ours(ids, labels=labels), peer(ids, labels=labels).loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours(ids), peer(ids).logits, rtol=1e-5, atol=1e-6)


def test_older_parameter_names_load(tiny_config):
    model = BertForPreTraining(tiny_config)
    old = {}
    for name, value in model.state_dict().items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for part in ("intermediate", "pooler", "transform"):
            name = name.replace(f"{part}.dense.", f"{part}.dense_act.")
        old[name] = value + 1
    other = BertForPreTraining(tiny_config)
    other.load_state_dict(old)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name] + 1)


def test_base_model_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = BertModel(BertConfig(vocab_size=30522))
    rows = 30528 - 30522  # padding
    assert sum(p.numel() for p in model.parameters()) == 109_482_240 + rows * 768


def test_initialisation(tiny_config):
    torch.manual_seed(0)
    state = BertForPreTraining(tiny_config).state_dict()
    assert state["bert.encoder.layer.0.intermediate.dense.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert (state["bert.encoder.layer.2.output.LayerNorm.weight"] == 1).all()
    assert (state["bert.embeddings.word_embeddings.weight"][101:] == 0).all()
    for name, value in state.items():
        assert not name.endswith("bias") or (value == 0).all(), name


def test_a_config_with_a_byte_order_mark_and_with_keys_named_as_our_attributes(tmp_path):
    text = '{"vocab_size": 30522, "head_size": 7, "hidden_dropout_prob": 0}'
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "c.json").write_text(text, encoding=encoding)
        config = BertConfig.from_json_file(tmp_path / "c.json")
        assert (config.hidden_dropout_prob, config.head_size) == (0, 768 // 12)
        assert config.to_dict()["head_size"] == 7  # written back


def test_config_round_trip_keeps_unknown_keys(tmp_path):
    path = tmp_path / "bert_config.json"
    path.write_text('{"vocab_size": 30522, "hidden_size": 64, "num_attention_heads": 4, "pals": false}')
    config = BertConfig.from_json_file(path)
    assert config.padded_vocab_size == 30528
    assert config.pals is False  # pyright: ignore[reportAttributeAccessIssue]
    path.write_text(config.to_json_string())
    assert BertConfig.from_json_file(path).to_dict() == config.to_dict()
    assert config.to_json_string().startswith('{\n  "attention_probs_dropout_prob": 0.1,')


@pytest.mark.parametrize(
    "text,message",
    [
        ("{", "not a JSON file"),
        ("[1]", "expected a JSON object"),
        ("{}", "no vocab_size"),
        ('{"vocab_size": 8, "hidden_size": 10, "num_attention_heads": 3}', "hidden_size 10 is not divisible"),
        ('{"vocab_size": 8, "hidden_size": "64"}', 'hidden_size "64": expected a whole number, at least 1'),
        ('{"vocab_size": 8.0}', "vocab_size 8.0: expected a whole"),
        ('{"vocab_size": 8, "num_hidden_layers": 0}', "num_hidden_layers 0: expected a whole"),
        ('{"vocab_size": 8, "num_attention_heads": -12}', "num_attention_heads -12: expected a whole"),
        ('{"vocab_size": 8, "max_position_embeddings": true}', "max_position_embeddings true: expected a whole"),
        ('{"vocab_size": 8, "type_vocab_size": null}', "type_vocab_size null: expected a whole"),
        ('{"vocab_size": 8, "intermediate_size": [32]}', r"intermediate_size \[32\]: expected a whole"),
        (
            '{"vocab_size": 8, "hidden_dropout_prob": 1.5}',
            "hidden_dropout_prob 1.5: expected a number from 0 to",
        ),
        ('{"vocab_size": 8, "attention_probs_dropout_prob": "0.1"}', 'attention_probs_dropout_prob "0.1": expected'),
        ('{"vocab_size": 8, "initializer_range": NaN}', "initializer_range NaN: expected a number, at least 0"),
        ('{"vocab_size": 8, "layer_norm_eps": -1e-12}', "layer_norm_eps -1e-12: expected a number, at least 0"),
        ('{"vocab_size": 8, "hidden_act": 3}', "hidden_act 3: expected a text"),
        ('{"vocab_size": 8, "houlsby": "false"}', 'houlsby "false": expected true or false'),
        (
            '{"vocab_size": 8, "houlsby": true, "hidden_size_aug": "50"}',
            'hidden_size_aug "50": expected a whole',
        ),
    ],
)
def test_a_bad_config_names_the_file(tmp_path, text, message):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"--config_file {path}: .*{message}"):
        BertConfig.from_json_file(path)
