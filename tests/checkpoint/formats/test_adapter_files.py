"""Adapter checkpoints: which base they belong to, several on one base, and what can be merged."""

import dataclasses

import pytest
import torch
from random_models import random_model, weights_of

from bert.checkpoint.adapter_files import (
    assemble,
    identify,
    read_adapter,
    save_adapter,
)
from bert.checkpoint.formats import Weights, build_model, match_config, merge_adapter, read_checkpoint, write_checkpoint
from bert.errors import UsageError
from bert.finetune.adapters import is_trained
from bert.model.bert import BertForMultiTask, BertForSequenceClassification
from bert.model.config import BertConfig
from bert.model.objective import MultiTaskObjective
from bert.sequences import collate, from_rows

KINDS = {
    "pals": {"mult": True, "pals": True, "hidden_size_aug": 12},
    "low_rank": {"mult": True, "hidden_size_aug": 3, "lhuc": True},
    "houlsby": {"houlsby": True, "hidden_size_aug": 4},
    "lhuc": {"lhuc": True},
    "none": {},
}
ROWS = [[2, 9, 8, 3], [2, 5, 3], [2, 7, 6, 5, 4, 3], [2, 30, 3, 31, 3], [2, 11, 3]]


def asking_for(config: BertConfig, kind: str) -> BertConfig:
    return BertConfig.from_dict({**config.to_dict(), **KINDS[kind]})


def tuned(base: Weights, kind: str, labels: int, seed: int) -> BertForSequenceClassification:
    """Return a classifier on ``base`` whose adapters, head and LayerNorms are drawn."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(asking_for(base.config, kind), labels).eval()
    model.load_state_dict({n: t for n, t in base.tensors.items() if n.startswith("bert.")}, strict=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_trained(name):
                parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.3)
    return model


def write_tuned(path, model: BertForSequenceClassification, base: Weights, name: str) -> None:
    trained = {name: tensor for name, tensor in model.named_parameters() if is_trained(name)}
    assert base.tokenizer is not None
    facts = {"task": name, "labels": list("abc")[: model.num_labels], "tokenizer": base.tokenizer.state_dict()}
    save_adapter(path, trained, identify(base.tensors, base.config, "base.pt"), model.config, facts)


@pytest.fixture
def base(config, tokenizer) -> Weights:
    return weights_of(random_model(config, ("classifier",)), tokenizer)


def test_a_base_has_one_identity_in_every_format(base, tmp_path):
    expected = identify(base.tensors, base.config, "x")
    for format in ("native", "hf", "nvidia", "tf"):
        write_checkpoint(tmp_path / format, format, base)
        assert identify(read_checkpoint(tmp_path / format)["model"], base.config, "x") == expected
    base.tensors["classifier.bias"][0] += 1
    assert identify(base.tensors, base.config, "x") == expected
    for name in ("bert.encoder.layer.1.output.dense.bias", "bert.pooler.dense.bias"):
        changed = {**base.tensors, name: base.tensors[name] + 1}
        assert identify(changed, base.config, "x") != expected


def test_many_adapters_of_several_kinds_on_one_base_answer_as_each_alone(base, tmp_path):
    models, tasks = [], []
    for number, kind in enumerate(KINDS):
        model = tuned(base, kind, 1 + number % 3, seed=number)
        write_tuned(tmp_path / f"{kind}.safetensors", model, base, kind)
        models.append(model)
        tasks += read_adapter(tmp_path / f"{kind}.safetensors").tasks(base.config)
    encoder = {name: tensor for name, tensor in base.tensors.items() if name.startswith("bert.")}
    together = assemble(encoder, base.config, tasks)
    assert isinstance(together, BertForMultiTask)
    assert [(task.name, task.num_labels) for task in tasks] == [(k, 1 + i % 3) for i, k in enumerate(KINDS)]
    shared = together.get_parameter("bert.embeddings.word_embeddings.weight")
    assert shared.data_ptr() == base.tensors["bert.embeddings.word_embeddings.weight"].data_ptr()
    labels = {"task": torch.arange(len(KINDS)).numpy()}
    with torch.no_grad():
        mixed = MultiTaskObjective(together).predict(
            collate(from_rows(ROWS, [len(row) for row in ROWS], labels), labels["task"])
        )
        for number, (model, row) in enumerate(zip(models, ROWS, strict=True)):
            alone = model(torch.tensor([row]))[0]
            torch.testing.assert_close(mixed[number, : len(alone)], alone, rtol=0, atol=1e-5)


def test_an_adapter_and_its_base_are_a_whole_checkpoint(base, tmp_path):
    model = tuned(base, "houlsby", 3, seed=1)
    write_tuned(tmp_path / "a.safetensors", model, base, "x")
    config = dataclasses.replace(base.config)
    state = read_adapter(tmp_path / "a.safetensors").applied_to({"model": base.tensors}, config, "--checkpoint b")
    assert state["labels"] == ["a", "b", "c"] and config.adapter == model.config.adapter
    again, _ = match_config(state, config, base.tokenizer, "it")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.tensors[name], tensor), name


def test_wrong_files_are_one_line(base, tokenizer, tmp_path):
    path = tmp_path / "a.safetensors"
    write_tuned(path, tuned(base, "none", 2, seed=1), base, "x")
    other = {**base.tensors, "bert.embeddings.LayerNorm.bias": base.tensors["bert.embeddings.LayerNorm.bias"] + 1}
    adapter = read_adapter(path)
    with pytest.raises(UsageError, match=r"made for base\.pt \(.{12}\), but --init_checkpoint o.pt .* another base"):
        adapter.applied_to({"model": other}, base.config, "--init_checkpoint o.pt")
    pieces = {**tokenizer.state_dict(), "vocab": [*tokenizer.state_dict()["vocab"][:-1], "other"]}
    with pytest.raises(UsageError, match="is not that of"):
        adapter.applied_to({"model": base.tensors, "tokenizer": pieces}, base.config, "--init_checkpoint b.pt")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"--adapter_checkpoint .*a\.safetensors: damaged"):
        read_adapter(path)
    write_checkpoint(tmp_path / "hf", "hf", base)
    with pytest.raises(UsageError, match="expected an adapter checkpoint"):
        read_adapter(tmp_path / "hf" / "model.safetensors")
    with pytest.raises(UsageError, match="No such file"):
        read_adapter(tmp_path / "missing.safetensors")


def test_lhuc_merges_to_the_same_outputs_and_others_do_not(base):
    model = tuned(base, "lhuc", 2, seed=3)
    merged = merge_adapter(Weights(dict(model.state_dict()), model.config))
    assert merged.config.adapter is None and not any("adapters" in name for name in merged.tensors)
    plain = build_model(merged.tensors, merged.config).eval()
    plain.load_state_dict(merged.tensors)
    for row in ROWS:
        pooled = plain.bert(torch.tensor([row]))[1]
        torch.testing.assert_close(plain.classifier(pooled), model(torch.tensor([row])), rtol=0, atol=1e-5)
    for kind in ("pals", "low_rank", "houlsby"):
        other = tuned(base, kind, 2, seed=3)
        with pytest.raises(UsageError, match=f"--merge: {kind} has a non-linearity"):
            merge_adapter(Weights(dict(other.state_dict()), other.config))
