"""Ranks start by fork, and when one ends badly all end quickly, with the cause named and nobody left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
import torch

from tests.runtime.ranks import on_ranks
from wingspan.errors import InputError, RunError
from wingspan.runtime.ranks.launch import run_ranks
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")


def fail(work: Callable[[Transport], None], size: int = 4) -> tuple[Exception, float]:
    """The error that `run_ranks` raises, and after how many seconds; no child may outlive it."""
    start = time.monotonic()
    with pytest.raises((InputError, RunError)) as caught:
        run_ranks(work, size, size, CPU)
    seconds = time.monotonic() - start
    assert psutil.Process().children(recursive=True) == []
    return caught.value, seconds


def keep_exchanging(transport: Transport) -> None:
    """What a step does again and again; ends only by an error."""
    rows = torch.ones(transport.world.size * 50, 64)
    counts = [50] * transport.world.size
    while True:
        transport.exchange_counts(torch.ones(transport.world.size, 1, dtype=torch.int64))
        transport.exchange_rows(torch.empty_like(rows), rows, counts, counts).wait()


def test_every_rank_has_its_place(tmp_path):
    def work(transport: Transport) -> tuple[int, int, int, int]:
        world = transport.world
        return world.rank, world.size, world.node, os.getppid()

    assert on_ranks(work, 4, tmp_path, ranks_per_node=2) == [
        (rank, 4, rank // 2, os.getpid()) for rank in range(4)
    ]


def test_a_killed_rank_is_named_and_all_others_end():
    def work(transport: Transport) -> None:
        if transport.world.rank == 2:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        keep_exchanging(transport)

    error, seconds = fail(work)
    assert isinstance(error, RunError)
    assert "rank 2 was killed by signal SIGKILL" in str(error)
    assert seconds < 10


def test_a_rank_killed_while_the_others_are_busy_is_noticed():
    """The others are not in an exchange then; the parent ends them."""

    def work(transport: Transport) -> None:
        if transport.world.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    error, seconds = fail(work)
    assert "rank 0 was killed" in str(error)
    assert seconds < 10


def test_an_exception_names_its_rank_not_those_that_lost_a_peer():
    def work(transport: Transport) -> None:
        if transport.world.rank == 1:
            raise ZeroDivisionError("no reason")
        keep_exchanging(transport)

    error, seconds = fail(work)
    assert "rank 1" in str(error)
    assert "ZeroDivisionError: no reason" in str(error)
    assert seconds < 10


def test_bad_input_found_by_a_rank_keeps_its_exit_code():
    def work(transport: Transport) -> None:
        if transport.world.rank == 3:
            raise InputError("file x: damaged")
        keep_exchanging(transport)

    error, _ = fail(work)
    assert isinstance(error, InputError)
    assert str(error) == "file x: damaged"


def test_ranks_end_with_their_parent(tmp_path):
    """Even where the parent is killed and can end nobody."""
    parent = os.fork()
    if parent == 0:

        def work(transport: Transport) -> None:
            (tmp_path / f"pid{transport.world.rank}").write_text(str(os.getpid()))
            time.sleep(60)

        run_ranks(work, 2, 2, CPU)
        os._exit(0)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("pid*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    pids = [int(file.read_text()) for file in tmp_path.glob("pid*")]
    assert len(pids) == 2
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)
