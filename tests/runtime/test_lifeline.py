"""Ranks that nobody supervises end soon after one of them did, whatever they are doing, and say which."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from tests.runtime.ranks import unsupervised
from wingspan.errors import LostPeerError
from wingspan.runtime.ranks import lifeline
from wingspan.runtime.transport.transport import Transport

SIZE = 3


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(lifeline, "_NAMING_SECONDS", 20.0)


def never_returns() -> None:
    time.sleep(60)


def notices() -> None:
    raise LostPeerError("somebody")


@pytest.mark.parametrize("victim", range(SIZE))
@pytest.mark.parametrize(
    ("survivor", "says"),
    [
        (never_returns, "wingspan: rank {rank} lost contact with its peers: rank {victim} ended\n"),
        (notices, "rank {rank} lost contact with its peers: rank {victim} ended"),
    ],
)
def test_the_others_end_and_name_the_one_that_ended(survivor, says, victim, tmp_path):
    """In a call that never returns, and where the transport noticed that somebody is lost."""

    def work(transport: Transport) -> None:
        if transport.world.rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        survivor()

    codes, said = unsupervised(work, SIZE, tmp_path)
    assert codes == [-signal.SIGKILL if rank == victim else 1 for rank in range(SIZE)]
    for rank in set(range(SIZE)) - {victim}:
        assert said[rank] == says.format(rank=rank, victim=victim)


@pytest.mark.parametrize("early", range(SIZE))
def test_a_rank_that_leaves_in_good_order_ends_nobody(early, tmp_path):
    """The others go on for longer than the grace."""

    def work(transport: Transport) -> None:
        time.sleep(0 if transport.world.rank == early else 1.0)

    assert unsupervised(work, SIZE, tmp_path) == ([0] * SIZE, [""] * SIZE)


def test_ranks_that_cannot_reach_rank_0_say_so(tmp_path, monkeypatch):
    def nobody(transport: Transport) -> dict[int, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        transport.broadcast(port)
        return {}

    monkeypatch.setattr(lifeline, "_accept", nobody)
    codes, said = unsupervised(lambda transport: None, SIZE, tmp_path)
    assert codes[1:] == [1] * (SIZE - 1)
    assert "rank 1: no connection with rank 0 on 127.0.0.1: " in said[1]
