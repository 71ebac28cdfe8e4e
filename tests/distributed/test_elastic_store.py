"""Which store an attempt uses, and when it is refused."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from bert.distributed.elastic import open_store, restart_count
from bert.errors import UsageError


@pytest.fixture
def environ() -> dict[str, str]:
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


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


def refusals(environ, ranks: list[int], size: int, seconds: float) -> list[str]:
    """Return what each of ``ranks``, which start together, says."""

    def join(rank: int) -> str:
        with pytest.raises(UsageError) as raised:
            open_store(environ, rank, size, timedelta(seconds=seconds))
        return str(raised.value)

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(join, ranks))


def test_ranks_that_do_not_come_are_named_by_all_that_came(environ):
    where = f"MASTER_ADDR 127.0.0.1, MASTER_PORT {environ['MASTER_PORT']}"
    assert refusals(environ, [0, 2], 4, 0.5) == [f"{where}: ranks 1, 3 of 4 did not come within 0.5 s (--timeout)"] * 2
    environ["MASTER_PORT"] = free_port()
    (alone,) = refusals(environ, [0], 20, 0.3)
    assert "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 11 more of 20" in alone
    agent = open_store(environ, 0, 1, timedelta(seconds=5))  # noqa: F841  # stands for torchrun's
    (alone,) = refusals({**environ, "TORCHELASTIC_USE_AGENT_STORE": "True"}, [1], 3, 0.3)
    assert ": ranks 0, 2 of 3 did not come" in alone


def test_an_address_where_no_rank_0_is(environ):
    (refused,) = refusals(environ, [1], 2, 0.3)
    assert refused == (
        f"MASTER_ADDR 127.0.0.1, MASTER_PORT {environ['MASTER_PORT']}: rank 1 found no rank 0 there within 0.3 s "
        "(--timeout) (Connection refused)"
    )
    (unknown,) = refusals({**environ, "MASTER_ADDR": "no.such.host.invalid"}, [1], 2, 0.3)
    assert unknown.startswith("MASTER_ADDR no.such.host.invalid, ") and "rank 1 found no rank 0 there" in unknown


def test_a_port_where_another_program_listens(environ):
    with socket.socket() as silent:  # it accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        other = {**environ, "MASTER_PORT": str(silent.getsockname()[1])}
        (taken,) = refusals(other, [0], 2, 30)
        assert "rank 0 cannot listen there: address already in use" in taken
        (caller,) = refusals(other, [1], 2, 0.1)
        assert "rank 1 found another program there, expected rank 0" in caller


def test_all_ranks_wait_for_each_other(environ):
    stores = []  # rank 0 serves it for as long as it keeps it

    def join(rank: int) -> float:
        time.sleep(0.3 * rank)
        stores.append(open_store(environ, rank, 3, timedelta(seconds=20)))
        return time.monotonic()

    with ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        assert all(ended - began >= 0.6 for ended in pool.map(join, range(3)))


@pytest.mark.parametrize(("environ_", "count"), [({}, 0), ({"TORCHELASTIC_RESTART_COUNT": "2"}, 2)])
def test_restart_count(environ_, count):
    assert restart_count(environ_) == count
