"""Ranks that nobody supervises end soon after one of them did, whatever they are doing, and say which."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress

import psutil
import pytest

from tests.runtime.forked import unsupervised
from wingspan.errors import LostPeerError
from wingspan.runtime.launch import peer_monitor, reception
from wingspan.runtime.transport.transport import Transport

SIZE = 3


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_monitor, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(peer_monitor, "_NAMING_SECONDS", 20.0)


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
    def bind_only(host: str) -> socket.socket:
        bound = socket.socket()
        bound.bind((host, 0))
        return bound

    monkeypatch.setattr(reception, "listen", bind_only)
    monkeypatch.setattr(reception._Reception, "peers", lambda self: {})
    codes, said = unsupervised(lambda transport: None, SIZE, tmp_path)
    assert codes[1:] == [1] * (SIZE - 1)
    assert "rank 1: no connection with rank 0 on 127.0.0.1: " in said[1]


def test_strangers_that_come_during_the_start_are_sent_away(tmp_path, monkeypatch):
    """They come first and say nothing, too little, too much, or a rank without the token; the others meet all along."""
    listen = reception.listen
    strangers = []

    def listen_with_strangers(host: str) -> socket.socket:
        listener = listen(host)
        listener.listen(300)
        for number in range(200):
            stranger = socket.create_connection(listener.getsockname()[:2])
            stranger.setblocking(False)
            words = [b"", b"\0\0\0\1", b"x", bytes(32) + b"\0\0\0\1", bytes(100_000)][number % 5]
            with suppress(OSError):
                stranger.send(words)
            strangers.append(stranger)
            if number % 7 == 0:
                stranger.close()
        return listener

    monkeypatch.setattr(reception, "listen", listen_with_strangers)

    def work(transport: Transport) -> None:
        descriptors = len(os.listdir("/proc/self/fd")) - len(strangers)
        (tmp_path / f"descriptors{transport.world.rank}").write_text(str(descriptors))
        time.sleep(0.2)

    assert unsupervised(work, SIZE, tmp_path) == ([0] * SIZE, [""] * SIZE)
    # Nobody of them is still held: rank 0 has a connection more for every other rank, no more.
    assert int((tmp_path / "descriptors0").read_text()) < 60


def test_nobody_can_come_in_during_the_run(tmp_path, monkeypatch):
    listen = reception.listen

    def listen_and_tell(host: str) -> socket.socket:
        listener = listen(host)
        (tmp_path / "port").write_text(str(listener.getsockname()[1]))
        return listener

    monkeypatch.setattr(reception, "listen", listen_and_tell)

    def work(transport: Transport) -> None:
        if transport.world.rank == 0:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", int((tmp_path / "port").read_text())))

    assert unsupervised(work, SIZE, tmp_path) == ([0] * SIZE, [""] * SIZE)


def test_ranks_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(reception, "CONNECT_SECONDS", 0.3)
    with (
        reception.listen("127.0.0.1") as listener,
        pytest.raises(TimeoutError, match="rank 1, 2 did not connect"),
    ):
        reception._Reception(listener, reception._Place("127.0.0.1", 1, b"t" * 32), 3).peers()


def test_a_rank_that_says_its_greeting_bit_by_bit_is_let_in():
    place = reception._Place("127.0.0.1", 1, b"t" * 32)
    with reception.listen("127.0.0.1") as listener, socket.create_connection(listener.getsockname()) as slow:

        def speak() -> None:
            for byte in place.greeting(1):
                slow.send(bytes([byte]))
                time.sleep(0.002)

        speaker = threading.Thread(target=speak)
        speaker.start()
        peers = reception._Reception(listener, place, 2).peers()
        speaker.join()
    assert list(peers) == [1]
    peers[1].close()


def test_more_silent_strangers_than_descriptors_cannot_keep_the_ranks_out():
    place = reception._Place("127.0.0.1", 1, b"t" * 32)
    with reception.listen("127.0.0.1") as listener, ExitStack() as stack:
        listener.listen(600)
        for _ in range(500):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        rank = stack.enter_context(socket.create_connection(listener.getsockname()))
        rank.sendall(place.greeting(1))
        before = len(os.listdir("/proc/self/fd"))
        peers = reception._Reception(listener, place, 2).peers()
        assert len(os.listdir("/proc/self/fd")) - before <= 1
        peers[1].close()


def test_where_rank_0_listens():
    """At loopback, at the interface of an address of this machine, and at all where the address is nobody's here."""
    with reception.listen("127.0.0.1") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    # A documentation address (RFC 5737), and a name that this machine alone takes for itself.
    for elsewhere in ("192.0.2.1", "localhost", "no-such-host.invalid"):
        with reception.listen(elsewhere) as listener:
            assert listener.getsockname()[0] in ("::", "0.0.0.0")
    addresses = [
        a.address for nic in psutil.net_if_addrs().values() for a in nic if a.family == socket.AF_INET
    ]
    for address in addresses:
        if not address.startswith("127."):
            with reception.listen(address) as listener:
                assert listener.getsockname()[0] == address
