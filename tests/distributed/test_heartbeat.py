"""Beats through a real store; silence and lateness without waiting for them."""

import re
import threading

import pytest
import torch.distributed as dist

from bert.distributed import heartbeat
from bert.distributed.heartbeat import Beat, Heartbeat, Progress


class Ended(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def store():
    return dist.TCPStore("127.0.0.1", 0, is_master=True)


@pytest.fixture
def ranks(store, monkeypatch):
    """Return a function size -> that many heartbeats, each of which has beaten and read the others."""

    def end(code: int) -> None:
        raise Ended(code)

    def build(size: int, timeout: float = 10.0) -> list[Heartbeat]:
        beats = [Heartbeat(store, rank, size, timeout, Progress(step=7)).__enter__() for rank in range(size)]
        for each in beats:
            each.exchange()
        return beats

    monkeypatch.setattr(heartbeat.os, "_exit", end)
    return build


def test_a_silent_rank_ends_the_run_with_its_name_and_step(ranks, capsys):
    zero, one, two = ranks(3)
    for _ in range(9):  # of the 10 beats in the timeout
        two.beat()
        zero.exchange()
        zero.check()
    with pytest.raises(Ended, match="1"):
        zero.check()
        two.beat()
        zero.exchange()
        zero.check()
    line = rf"error: rank 1 \(\S+, process {one._own.process}\) has been silent for 10 s; its last step was 7\n"
    assert re.fullmatch(line, capsys.readouterr().err)


def test_rank_0_is_watched_by_the_others(ranks, capsys):
    _, one, two = ranks(3)
    for each in (one, two):
        with pytest.raises(Ended):
            for _ in range(10):
                each.exchange()  # reads the old beat again: no news
                each.check()
    assert capsys.readouterr().err.count("error: rank 0 (") == 2


def test_a_rank_that_has_finished_is_not_waited_for(ranks):
    zero, one = ranks(2)
    one.__exit__(None)
    zero.exchange()
    for _ in range(30):
        zero.check()


def test_a_rank_that_failed_is_waited_for(ranks):
    zero, one = ranks(2)
    one.__exit__(RuntimeError)
    zero.exchange()
    with pytest.raises(Ended):
        for _ in range(10):
            zero.check()


def test_a_run_that_was_stopped_as_a_whole_continues(ranks):
    """However long the stop: silence counts only while the watching rank is awake, and one beat ends it."""
    zero, one = ranks(2)
    for _ in range(5):
        for _ in range(9):
            zero.check()
        one.beat()
        zero.exchange()


def test_of_many_silent_ranks_the_first_are_named(ranks, capsys):
    zero, *_ = ranks(12)
    with pytest.raises(Ended):
        for _ in range(10):
            zero.check()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines[:-1]] == [f"error: rank {rank}" for rank in range(1, 9)]
    assert lines[-1] == "error: ... and 3 more ranks"


def test_a_rank_that_is_alive_but_does_not_join_is_late(ranks):
    zero, *_ = ranks(4)
    barrier = "bert/distributed/world.py:1 barrier"
    zero._own = Beat(9, "a", 1, barrier, idle=9.0)
    zero.beats = {
        1: Beat(9, "b", 2, barrier, idle=9.0),  # waits as well
        2: Beat(9, "c", 3, "bert/data/loader.py:5 __next__", idle=8.0),
        3: Beat(9, "d", 4, "bert/train/trainer.py:5 fit", idle=1.0),  # moves
    }
    assert zero.late_ranks(5.0) == [
        "rank 2 (c, process 3) is late: at bert/data/loader.py:5 __next__ for 8 s; its last step was 7"
    ]
    zero._own = Beat(9, "a", 1, barrier, idle=0.0)  # failed at once: a peer died, so this rank did not wait
    assert zero.late_ranks(5.0) == []


def test_idle_is_the_time_without_a_step_or_a_move(ranks):
    one = ranks(2)[1]
    idle = []
    for step in (7, 7, 7, 8):
        one.progress.step = step
        one.beat()  # from one place
        idle.append(one._own.idle)
    assert idle == [2.0, 3.0, 4.0, 0.0]  # two beats came before


def test_the_place_is_the_innermost_line_of_the_package_or_else_of_all():
    assert re.fullmatch(r"bert/distributed/heartbeat.py:\d+ _place", heartbeat._place(threading.main_thread().ident))
    end = threading.Event()
    outside = threading.Thread(target=end.wait)
    outside.start()
    assert re.fullmatch(r"threading.py:\d+ wait", heartbeat._place(outside.ident))
    end.set()


def test_a_store_that_is_gone_ends_only_the_watching():
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    client = dist.TCPStore("127.0.0.1", store.port, is_master=False)
    with Heartbeat(client, 1, 2, 0.2, Progress()) as one:
        one._store.set("heartbeat/0", one._store.get("heartbeat/1"))
        one.start()
        del store
        assert one._closed.wait(20)


def test_threads_beat_by_themselves_and_end(store):
    with Heartbeat(store, 0, 2, 0.2, Progress()) as zero, Heartbeat(store, 1, 2, 0.2, Progress()) as one:
        zero.start()
        one.start()
        while zero.beats.get(1) is None or zero.beats[1].number < 4:
            pass
    assert not any(thread.is_alive() for each in (zero, one) for thread in each._threads)
