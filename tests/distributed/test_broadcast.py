"""What rank 0 reads reaches all ranks: values, dtypes, shapes, sharing, and its errors."""

import math

import torch
from ranks import run_ranks

import bert.distributed.broadcast as piece
from bert.distributed import World, read_once
from bert.errors import UsageError


def state() -> dict:
    tied = torch.arange(6.0).reshape(2, 3)
    return {
        "model": {"a": tied, "tied": tied, "half": torch.tensor([1.5, -2.0]).bfloat16(), "column": tied.t()},
        "optimizer": {"state": {0: {"step": torch.tensor(7)}, 5: {}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "plain": [None, True, 2**60, math.inf, "é", b"\x00\xff", torch.zeros(0), torch.tensor([True, False])],
    }


def receive(world: World) -> tuple:
    def refuse() -> None:
        raise UsageError("ckpt_7.pt is damaged")

    piece.PIECE = 16  # bytes: tensors travel in several pieces
    found = read_once(world, state)
    try:
        read_once(world, refuse)
        error = ""
    except UsageError as raised:
        error = str(raised)
    shared = found["model"]["a"].data_ptr() == found["model"]["tied"].data_ptr()
    return found, shared, error


def test_a_state_arrives_whole_and_an_error_ends_all(tmp_path):
    for found, shared, error in run_ranks(2, receive, tmp_path):
        assert shared and error == "ckpt_7.pt is damaged"
        assert same(found, state())


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b
