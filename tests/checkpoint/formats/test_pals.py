"""The published multi-task checkpoint, a bare state dict, there and back; made by a generator of its own."""

import sys
from pathlib import Path

import pytest
import torch

from bert.checkpoint.formats import match_config, read_checkpoint, recognise, write_checkpoint
from bert.errors import UsageError
from bert.model.config import BertConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "model"))
from published_pals import VARIANTS, random_state

SIZES = {"vocab_size": 41, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 16, "type_vocab_size": 2}


def published(variant: str):
    """Return a configuration, and a checkpoint in the published layout of three tasks."""
    keys = SIZES | VARIANTS[variant.removesuffix("_with_lhuc")][0]
    keys |= {key: size for key, size in (("hidden_size_aug", 12), ("extra_dim", 5)) if key in keys}
    keys |= {"lhuc": True} if "lhuc" in variant else {}
    return BertConfig.from_dict(keys), random_state(keys, [2, 3, 1])


@pytest.mark.parametrize("variant", [*VARIANTS, "pals_with_lhuc", "low_rank_with_lhuc"])
def test_there_and_back_is_bitwise(tmp_path, variant):
    """With 41 word pieces, which this suite pads to 48 rows; some with the prefix that several GPUs save."""
    config, state = published(variant)
    prefix = "module." * ("pals" in variant)
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "best_model.pth")
    assert recognise(tmp_path / "best_model.pth") == "native"  # as for other bare state dicts: one reader
    weights, report = match_config(read_checkpoint(tmp_path / "best_model.pth", "pals"), config, None, "it")
    assert (report.missing, report.unexpected) == ([], [])
    assert write_checkpoint(tmp_path / "again.pth", "pals", weights) == []
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert len({each.data_ptr() for each in again.values()}) == len({each.data_ptr() for each in state.values()})


def test_maps_that_differ_between_layers_are_refused():
    config, state = published("pals")
    name = "bert.encoder.layer.1.multi_layers.2.aug_dense2.bias"
    state[name] = state[name] + 1
    with pytest.raises(UsageError, match="^it: .* differs from .*, which the model shares between layers"):
        match_config({"model": state}, config, None, "it")


def test_the_configuration_must_ask_for_the_adapter_of_the_checkpoint():
    _, state = published("low_rank")
    with pytest.raises(UsageError, match="^it: .*adapters"):
        match_config({"model": state}, published("plain")[0], None, "it")
