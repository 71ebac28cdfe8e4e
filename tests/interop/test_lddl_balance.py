"""Shards that lddl wrote and data/balance.py balanced load in ``lddl.torch``."""

import json

import pytest
from interop.test_lddl import pytestmark, run_lddl  # noqa: F401  # pyright: ignore[reportMissingImports]

from bert.data.formats.table import find_shards, inspect_shard
from bert.shards.balance import BalanceConfig, balance
from bert.tokenization import SPECIAL_TOKENS


@pytest.mark.parametrize("masking", ["masking", "dynamic"])
@pytest.mark.parametrize("bin_size", [0, 32])
def test_balanced_shards_load_in_lddl(tmp_path, masking, bin_size):
    folder, vocab_file = tmp_path / "lddl", tmp_path / "vocab.txt"
    folder.mkdir()
    vocab_file.write_text("\n".join([*SPECIAL_TOKENS, *(f"w{i}" for i in range(200))]) + "\n")
    run_lddl("write", folder, vocab_file, masking, bin_size)
    balance(BalanceConfig(str(folder), 4, lddl_compatible=True, num_workers=1, disable_progress_bar=True))
    sizes = {path.name: inspect_shard(path).num_samples for path in find_shards(folder)}
    assert json.loads((folder / ".num_samples.json").read_text()) == sizes
    run_lddl("read", folder, vocab_file)
    loaded = json.loads((folder / "sequences.json").read_text())
    bins = {name.rpartition("_")[2] if bin_size else "" for name in sizes}
    # It takes as many of each shard as the smallest of the bin has.
    assert len(loaded) == sum(4 * min(n for name, n in sizes.items() if name.endswith(number)) for number in bins)
