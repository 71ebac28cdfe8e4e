"""Which store an attempt uses, and when it is refused."""

import socket
from datetime import timedelta

import pytest

from bert.elastic import open_store, restart_count
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


@pytest.mark.parametrize(("environ_", "count"), [({}, 0), ({"TORCHELASTIC_RESTART_COUNT": "2"}, 2)])
def test_restart_count(environ_, count):
    assert restart_count(environ_) == count
