"""Ranks start by fork, and when one ends badly all end quickly, with the cause named and nobody left behind."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import signal
import time
from collections.abc import Callable

import psutil
import pytest
import torch
import torch.distributed as dist

from tests.runtime.forked import on_ranks
from wingspan.errors import InputError, RunError
from wingspan.runtime.launch import supervision
from wingspan.runtime.launch.start import run_ranks
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


def test_what_is_left_to_a_rank_is_done_when_the_group_has_ended(tmp_path):
    """So that no other rank waits for it in the end of NCCL or MPI."""

    def work(transport: Transport) -> Callable[[], None] | None:
        said = tmp_path / str(transport.world.rank)
        said.write_text("working")
        return None if transport.world.rank else lambda: said.write_text(str(dist.is_initialized()))

    run_ranks(work, 2, 2, CPU)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["False", "working"]


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


@pytest.mark.parametrize("error", [InputError, ZeroDivisionError])
def test_a_very_long_error_is_told_in_part(error):
    """Longer than a pipe holds: nobody waits for anybody."""

    def work(transport: Transport) -> None:
        raise error("long " * 100_000)

    raised, seconds = fail(work)
    assert str(raised).endswith("characters more)")
    assert 2000 < len(str(raised)) < 2100
    assert seconds < 10


def test_words_that_nobody_shortened_are_read_while_the_rank_speaks(monkeypatch):
    """Also where the system gives pipes less room than an error takes."""
    monkeypatch.setattr(supervision, "_LONGEST_TEXT", 50_000)
    pipe = os.pipe

    def small_pipe() -> tuple[int, int]:
        ends = pipe()
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    monkeypatch.setattr(os, "pipe", small_pipe)

    def work(transport: Transport) -> None:
        raise InputError("x" * 40_000)

    assert str(fail(work)[0]) == "x" * 40_000


def test_a_rank_that_leaves_a_process_behind_is_still_seen_to_end(tmp_path):
    """That process holds the pipe of the rank's last words open."""

    def work(transport: Transport) -> None:
        if transport.world.rank == 1:
            if not (child := os.fork()):
                time.sleep(60)
                os._exit(0)
            (tmp_path / "child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    start = time.monotonic()
    try:
        with pytest.raises(RunError, match="rank 1 was killed by signal SIGKILL"):
            run_ranks(work, 2, 2, CPU)
        assert time.monotonic() - start < 10
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("call", "number", "says"),
    [
        ("fork", errno.EAGAIN, "Resource temporarily unavailable; start fewer ranks, or .* (ulimit -u)"),
        ("fork", errno.ENOMEM, "Cannot allocate memory; start fewer ranks"),
        ("pipe", errno.EMFILE, "Too many open files; start fewer ranks, or .* (ulimit -n)"),
    ],
)
def test_a_start_that_fails_half_way_ends_those_that_started(call, number, says, monkeypatch):
    works, calls = getattr(os, call), itertools.count()

    def runs_out() -> object:
        if next(calls) == 3:
            raise OSError(number, os.strerror(number))
        return works()

    monkeypatch.setattr(os, call, runs_out)
    open_before = len(os.listdir("/proc/self/fd"))
    error, seconds = fail(lambda _: time.sleep(60), size=6)
    assert re.fullmatch(
        f"rank 3 could not be started: {says.replace('(', '[(]').replace(')', '[)]')}.*", str(error)
    )
    assert seconds < 5
    assert len(os.listdir("/proc/self/fd")) == open_before


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
