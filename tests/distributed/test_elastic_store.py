"""Which store an attempt uses, and when it is refused."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from bert.distributed.elastic import open_store, restart_count
from bert.errors import UsageError


@pytest.fixture
def environ(monkeypatch) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environ = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return environ


def test_attempts_that_share_torchruns_store_do_not_see_each_others_keys(environ):
    agent = open_store(environ, 0, 1, timedelta(seconds=5))  # stands for torchrun's
    shared = {**environ, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"}
    first, again, second = (
        open_store({**shared, "TORCHELASTIC_RESTART_COUNT": count}, 0, 1, timedelta(seconds=5)) for count in "001"
    )
    first.set("address", "old")
    assert again.get("address") == b"old"
    assert not second.check(["address"])
    agent.set("address", "of another attempt")
    assert again.get("address") == b"old"


def test_restarts_on_several_machines_need_a_store_of_each_attempt(environ):
    shared = {
        **environ, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3", "GROUP_WORLD_SIZE": "2",
    }  # fmt: skip
    with pytest.raises(UsageError, match="--max-restarts 3 .* TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        open_store(shared, 1, 2, timedelta(seconds=5))
    open_store({**shared, "TORCHELASTIC_USE_AGENT_STORE": "False"}, 0, 1, timedelta(seconds=5))


def test_a_rank_that_does_not_come_is_an_error(environ):
    agent = open_store(environ, 0, 1)  # noqa: F841  # stands for torchrun's
    shared = {**environ, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for rank in (0, 1):
        with pytest.raises(dist.DistError):
            open_store(shared, rank, 4, timedelta(seconds=0.5))


def test_all_ranks_wait_for_each_other(environ):
    def join(rank: int) -> float:
        time.sleep(0.3 * rank)
        open_store(environ, rank, 3, timedelta(seconds=20))
        return time.monotonic()

    with ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        assert all(ended - began >= 0.6 for ended in pool.map(join, range(3)))


@pytest.mark.parametrize(("environ_", "count"), [({}, 0), ({"TORCHELASTIC_RESTART_COUNT": "2"}, 2)])
def test_restart_count(environ_, count):
    assert restart_count(environ_) == count
