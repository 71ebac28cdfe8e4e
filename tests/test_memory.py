"""Free heap pages below a block that is still in use go back to the system."""

import os
import sys

import pytest
import torch

from bert.memory import build_release


def resident() -> int:
    """Return this process's resident memory, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_holes_in_the_heap_are_released():
    blocks = [torch.ones(25_000) for _ in range(4000)]  # 100 kB each, so from the heap: 400 MB in all
    top = torch.ones(25_000)  # above them: without a release the heap cannot shrink
    del blocks
    before = resident()
    build_release(torch.device("cpu"))()
    assert before - resident() > 300e6
    assert top.sum() == 25_000


def test_nothing_is_done_for_a_gpu():
    assert build_release(torch.device("cuda"))() is None
