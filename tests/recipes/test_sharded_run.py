"""Pre-training with a sharded optimizer: bit for bit as without, saved in pieces, resumed with and without it."""

import pytest
import torch
from conftest import pretraining_flags, run

from bert.checkpoint import load


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.slow
def test_sharded_and_whole_runs_are_equal_and_resume_each_other(corpus, tmp_path):
    """Two steps sharded, one whole, one sharded, against four whole ones, all in one start of two ranks."""
    changes = [
        ("whole", {"keep_checkpoints": 1}),
        ("mixed", {"steps_this_run": 2, "shard_optimizer": True}),
        ("mixed", {"steps_this_run": 1, "resume_from_checkpoint": True}),
        ("mixed", {"steps_this_run": 1, "resume_from_checkpoint": True, "shard_optimizer": True}),
    ]
    words = []
    for folder, more in changes:
        flags = pretraining_flags(corpus, tmp_path / folder, gradient_accumulation_steps=1, max_steps=4, **more)
        words += ["+", "run_pretraining.py", *flags]
    run(words[2:], processes=2)
    pieces = {path.name.split(".")[0] for path in (tmp_path / "mixed").glob("ckpt_*-of-2.pt")}
    assert pieces == {"ckpt_2", "ckpt_4"}
    whole, mixed = (load(tmp_path / folder / "ckpt_4.pt") for folder in ("whole", "mixed"))
    for part in ("model", "optimizer", "training"):
        assert equal(whole[part], mixed[part]), part
