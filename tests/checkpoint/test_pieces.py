"""Checkpoints in pieces: whole or not there, pruned together, and loaded as one."""

import threading

import pytest
import torch

from bert.checkpoint import CheckpointWriter, Pieces, find_damage, find_latest, load
from bert.errors import UsageError


def states(step: int) -> list[dict]:
    """What two ranks save: rank 0 has parameter 1, rank 1 has parameters 0 and 2."""
    groups = [{"lr": 0.1, "params": [0, 1, 2]}]
    moments = {index: {"exp_avg": torch.full((2,), 10.0 * step + index)} for index in range(3)}
    shares = [{1: moments[1]}, {0: moments[0], 2: moments[2]}]
    return [
        {"model": {"w": torch.ones(2) * step}, "optimizer": {"state": share, "param_groups": groups, "shards": 2}}
        for share in shares
    ]


def writers(folder, run: int = 7, keep: int = 2, patience: float = 20.0) -> list[CheckpointWriter]:
    return [CheckpointWriter(folder, keep, Pieces(rank, 2, run, patience)) for rank in range(2)]


def save(pair: list[CheckpointWriter], step: int) -> None:
    for writer, state in zip(pair, states(step), strict=True):
        writer.save(step, state)


def names(folder) -> set[str]:
    return {path.name for path in folder.glob("*.pt")}


def test_pieces_are_loaded_as_one_pruned_together_and_replaced_together(tmp_path):
    pair = writers(tmp_path)
    for step in (1, 2, 3, 3):  # the last one again, as after a skipped step
        save(pair, step)
    for writer in pair:
        writer.close()
    mine = [f"ckpt_{step}.00000007-{save}.{rank}-of-2.pt" for step, save in ((2, 2), (3, 4)) for rank in (0, 1)]
    assert names(tmp_path) == {"ckpt_2.pt", "ckpt_3.pt", *mine}
    assert len(list(tmp_path.glob("*.json"))) == 6
    state = load(tmp_path / "ckpt_3.pt")
    assert state["optimizer"].keys() == {"state", "param_groups"}
    assert list(state["optimizer"]["state"]) == [0, 1, 2]
    assert [each["exp_avg"][0].item() for each in state["optimizer"]["state"].values()] == [30.0, 31.0, 32.0]
    notices: list[str] = []
    assert find_latest(tmp_path, notices.append) == tmp_path / "ckpt_3.pt"
    assert notices == []


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_checkpoint_with_a_bad_piece_is_named_and_the_one_before_it_used(tmp_path, damage):
    pair = writers(tmp_path)
    for step in (1, 2):
        save(pair, step)
    for writer in pair:
        writer.close()
    piece = tmp_path / "ckpt_2.00000007-2.1-of-2.pt"
    piece.unlink() if damage == "missing" else piece.write_bytes(piece.read_bytes()[:-1])
    notices: list[str] = []
    assert find_latest(tmp_path, notices.append) == tmp_path / "ckpt_1.pt"
    assert f"has a piece {piece.name} that" in notices[0]


def test_a_checkpoint_counts_once_all_pieces_are_there(tmp_path):
    first, second = writers(tmp_path)
    first.save(5, states(5)[0])
    thread = threading.Event()
    thread.wait(0.3)  # time enough to be wrong in
    assert (tmp_path / "ckpt_5.00000007-1.0-of-2.pt").exists() and not (tmp_path / "ckpt_5.pt").exists()
    second.save(5, states(5)[1])
    for writer in (second, first):
        writer.close()
    assert find_damage(tmp_path / "ckpt_5.pt") is None


def test_a_piece_of_another_attempt_is_never_used_and_is_cleaned_up(tmp_path):
    killed = writers(tmp_path, run=1)[1]
    killed.save(5, states(5)[1])
    killed.close()
    first = CheckpointWriter(tmp_path, 2, Pieces(0, 2, 2, patience=0.1))
    assert names(tmp_path) == set()
    first.save(5, states(5)[0])
    with pytest.raises(UsageError, match="1-of-2.pt of another rank did not appear"):
        first.close()
    assert "ckpt_5.pt" not in names(tmp_path)
