"""The published multi-task checkpoint, a bare state dict, there and back; made by a generator of its own."""

import sys
from pathlib import Path

import pytest
import torch

from bert.checkpoint.formats import match_config, read_checkpoint, recognise, write_checkpoint
from bert.model.config import BertConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "model"))
from published_pals import VARIANTS, random_state

SIZES = {"vocab_size": 41, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 16, "type_vocab_size": 2}


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "plain"])
def test_there_and_back_is_bitwise(tmp_path, variant):
    """With 41 word pieces, which this suite pads to 48 rows."""
    keys = SIZES | VARIANTS[variant][0]
    keys |= {key: size for key, size in (("hidden_size_aug", 12), ("extra_dim", 5)) if key in keys}
    state = random_state(keys, [2, 3, 1])
    torch.save(state, tmp_path / "best_model.pth")
    assert recognise(tmp_path / "best_model.pth") == "pals"
    read = read_checkpoint(tmp_path / "best_model.pth")
    weights, report = match_config(read, BertConfig.from_dict(keys), None, "it")
    assert (report.missing, report.unexpected) == ([], [])
    assert write_checkpoint(tmp_path / "again.pth", "pals", weights) == []
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    shared = [name for name in state if ".mult_aug_dense" in name or ".aug_dense" in name]
    assert len({again[name].data_ptr() for name in shared}) == len({state[name].data_ptr() for name in shared})
