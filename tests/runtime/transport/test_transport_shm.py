"""Shared memory carries what any transport carries, notices a dead peer, and leaves nothing behind."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import mmap
import os
import re
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runtime.forked import on_ranks
from wingspan.errors import InputError, LostPeerError, RunError
from wingspan.runtime.transport import shared_memory, shm
from wingspan.runtime.transport.choice import TransportKind, chosen
from wingspan.runtime.transport.shared_memory import Peer, SharedMemory
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.running import transport_kind

CPU = torch.device("cpu")
KINDS = ((torch.float32, 5), (torch.bfloat16, 64), (torch.uint8, 33), (torch.int64, 1))


def exchange(transport: Transport, step: int, dtype: torch.dtype, width: int) -> torch.Tensor:
    """One step of a random uneven exchange; what arrives is determined by the step alone."""
    world = transport.world
    rng = np.random.default_rng(step)
    rows_RR = rng.integers(0, 5, (world.size, world.size)) * (rng.random((world.size, world.size)) < 0.6)
    sent_R, received_R = rows_RR[world.rank].tolist(), rows_RR[:, world.rank].tolist()
    arrived = transport.exchange_counts(torch.tensor(rows_RR[world.rank])[:, None])
    assert arrived.flatten().tolist() == received_R
    sent = torch.tensor(rng.normal(size=(int(rows_RR.max()) + 1, width)) + world.rank).to(dtype)
    sent = sent[torch.arange(sum(sent_R)) % len(sent)]
    received = torch.empty((sum(received_R), width), dtype=dtype)
    transport.exchange_rows(received, sent, received_R, sent_R).wait()
    return received


@pytest.mark.parametrize(("size", "ranks_per_node"), [(4, 4), (6, 2), (3, 3)])
def test_equals_gloo_at_every_step(size, ranks_per_node, tmp_path):
    def work(gloo: Transport) -> list[int]:
        shared = SharedMemoryTransport(gloo)
        wrong = []
        for step in range(60):
            dtype, width = KINDS[step % len(KINDS)]
            if not torch.equal(exchange(shared, step, dtype, width), exchange(gloo, step, dtype, width)):
                wrong.append(step)
        return wrong

    assert on_ranks(work, size, tmp_path, ranks_per_node) == [[]] * size


def test_transfers_may_overlap_and_buffers_be_reused(tmp_path):
    """Three under way at once, waited for in another order, their sent rows overwritten meanwhile."""

    def work(gloo: Transport) -> bool:
        transport = SharedMemoryTransport(gloo)
        size, rank = gloo.world.size, gloo.world.rank
        ones = [1] * size
        received = [torch.empty((size, 8)) for _ in range(3)]
        sent = torch.empty((size, 8))
        pending = []
        for n in range(3):
            sent.fill_(10.0 * n + rank)
            pending.append(transport.exchange_rows(received[n], sent, ones, ones))
        for n in (2, 0, 1):
            pending[n].wait()
        return all(
            torch.equal(received[n], (10.0 * n + torch.arange(size))[:, None].expand(size, 8))
            for n in range(3)
        )

    assert on_ranks(work, 3, tmp_path) == [True] * 3


def test_a_steady_state_takes_no_more_memory(tmp_path):
    """Blocks are used again: a thousand exchanges touch as many pages as a few."""

    def work(gloo: Transport) -> tuple[int, int]:
        transport = SharedMemoryTransport(gloo)
        ones = [4] * gloo.world.size
        rows, received = torch.ones((8, 1024)), torch.empty((8, 1024))
        pages = []
        for step in range(1000):
            transport.exchange_rows(received, rows, ones, ones).wait()
            if step in (20, 999):
                pages.append(_resident_shared_bytes())
        return pages[0], pages[1]

    for early, late in on_ranks(work, 2, tmp_path):
        assert late - early < 1 << 20


def _resident_shared_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssShmem:")[1].split()[0]) * 1024


def test_a_killed_rank_ends_the_others_and_is_named(tmp_path):
    def work(gloo: Transport) -> None:
        transport = SharedMemoryTransport(gloo)
        for step in range(1000):
            if step == 50 and gloo.world.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            exchange(transport, step, torch.float32, 16)

    start = time.monotonic()
    with pytest.raises(RunError, match="rank 1 was killed by signal SIGKILL"):
        on_ranks(work, 4, tmp_path)
    assert time.monotonic() - start < 10


def test_a_peer_that_ended_is_named_without_a_launcher():
    """What torchrun's ranks see, whom nobody ends: the one that waits says whom for, soon."""
    fd = SharedMemory.create(2)
    pid = os.fork()
    if pid == 0:
        time.sleep(0.3)
        os._exit(0)
    peers = [Peer(4, os.getpid()), Peer(5, pid)]
    memory = SharedMemory(fd, peers, 0)
    start = time.monotonic()
    with pytest.raises(LostPeerError, match="rank 4 lost contact with its peers: rank 5 ended"):
        memory.offset_of(1, 1)
    assert time.monotonic() - start < 5
    memory.close()
    os.close(fd)
    os.waitpid(pid, 0)


def test_what_a_rank_published_before_it_ended_counts():
    fd = SharedMemory.create(2)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        child = SharedMemory(fd, [Peer(0, parent), Peer(1, os.getpid())], 1)
        offset = child.allocate(64)
        child.words[offset // 8] = 77
        child.publish(offset)
        os._exit(0)
    memory = SharedMemory(fd, [Peer(0, parent), Peer(1, pid)], 0)
    time.sleep(0.3)
    assert memory.words[memory.offset_of(1, 1) // 8] == 77
    with pytest.raises(LostPeerError, match="rank 1 ended"):
        memory.offset_of(1, 2)
    os.waitpid(pid, 0)
    os.close(fd)
    with pytest.raises(LostPeerError, match="rank 1 ended before"):
        SharedMemory(SharedMemory.create(2), [Peer(0, parent), Peer(1, pid)], 0)


def test_more_than_the_arena_is_refused_with_the_way_out():
    fd = SharedMemory.create(1)
    memory = SharedMemory(fd, [Peer(0, os.getpid())], 0)
    with pytest.raises(RunError, match=r"rank 0: .* GB at once do not fit .* `transport` torch"):
        memory.allocate(1 << 50)
    memory.close()
    os.close(fd)


def test_blocks_that_the_rank_itself_still_needs_are_not_waited_for():
    """Nobody else could give them back: it says so instead."""
    fd = SharedMemory.create(1)
    memory = SharedMemory(fd, [Peer(0, os.getpid())], 0)
    half_bytes = len(memory.region) // 2
    number = memory.publish(memory.allocate(half_bytes))
    with pytest.raises(RunError, match="do not fit"):
        memory.allocate(half_bytes)
    memory.finish(number)
    memory.discard(memory.allocate(half_bytes))
    memory.publish(memory.allocate(half_bytes))
    memory.close()
    os.close(fd)


def test_no_name_and_no_descriptor_is_left(tmp_path):
    before = set(os.listdir("/dev/shm"))

    def work(gloo: Transport) -> tuple[int, int]:
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with chosen(TransportKind.SHM, gloo, CPU) as transport:
                exchange(transport, 1, torch.float32, 4)
        return open_before, len(os.listdir("/proc/self/fd"))

    for early, late in on_ranks(work, 3, tmp_path):
        assert early == late
    assert set(os.listdir("/dev/shm")) == before


def test_auto_takes_shared_memory_only_inside_nodes(tmp_path):
    def work(gloo: Transport) -> str:
        with chosen(TransportKind.AUTO, gloo, CPU) as transport:
            return type(transport).__name__

    assert on_ranks(work, 2, tmp_path, 2) == ["SharedMemoryTransport"] * 2
    assert on_ranks(work, 2, tmp_path, 1) == ["TorchTransport"] * 2


def test_one_node_on_several_machines_is_refused(tmp_path, monkeypatch):
    """Each rank reads another machine's identity."""

    def work(gloo: Transport) -> list[str]:
        identity = tmp_path / f"boot{gloo.world.rank}"
        identity.write_text(str(gloo.world.rank))
        monkeypatch.setattr(shm, "_BOOT_ID", identity)
        with chosen(TransportKind.AUTO, gloo, CPU) as transport:
            said = [type(transport).__name__]
        with pytest.raises(InputError, match="several machines; set `ranks_per_node`"):
            SharedMemoryTransport(gloo)
        return said

    assert on_ranks(work, 2, tmp_path) == [["TorchTransport"]] * 2


def test_unknown_names_are_told():
    with pytest.raises(InputError, match="`transport` rdma: use one of auto, torch, shm, mpi"):
        transport_kind("rdma")


def no_room_to_map(rank: int) -> None:
    """As `ulimit -v`, for one rank."""
    if rank == 1:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))


def no_large_files(rank: int) -> None:
    """As `ulimit -f`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))


def no_descriptors(rank: int) -> None:
    """As `ulimit -n`, for a rank with more peers than descriptors."""
    if rank == 3:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, 4096))


def forbidden_calls(rank: int) -> None:
    """As a container's filter of system calls."""

    def refused(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if rank == 2:
        os.pidfd_open = refused


def a_copy_of_the_machine(rank: int) -> None:
    """As machines that were copied while they ran: all that a rank knows of its host is equal, its memory is not."""
    if rank == 0:
        real = shm.handle_of
        shm.handle_of = lambda fd: replace(real(fd), name="/memfd:wingspan-there (deleted)")


LIMITS = [
    (
        a_copy_of_the_machine,
        "rank 0: that of rank 0 is not found here: another machine that looks like the same one",
    ),
    (
        no_room_to_map,
        r"rank 1: .* GB of shared memory cannot be mapped: Cannot allocate memory \(ulimit -v\)",
    ),
    (no_large_files, r"rank [02]: .* GB of shared memory cannot be made: File too large \(ulimit -f\)"),
    (no_descriptors, "rank 3: .*Too many open files"),
    (forbidden_calls, "rank 2: rank . cannot be watched: Operation not permitted"),
]


@pytest.mark.parametrize("per_node", [2, 4])
@pytest.mark.parametrize(("limit", "says"), LIMITS)
def test_where_memory_cannot_be_shared_auto_goes_another_way_and_says_so(limit, says, per_node, tmp_path):
    """On all ranks, whoever has the limit; nothing stays open."""

    def work(gloo: Transport) -> tuple[str, list[str], int]:
        notes = logging.handlers.BufferingHandler(10)
        logging.getLogger("wingspan").addHandler(notes)
        if per_node < gloo.world.size:
            gloo.split(gloo.world.node)  # gloo's own threads and descriptors come before
        before = len(os.listdir("/proc/self/fd"))
        limit(gloo.world.rank)
        with chosen(TransportKind.AUTO, gloo, CPU) as transport:
            exchange(transport, 1, torch.float32, 4)
            left = len(os.listdir("/proc/self/fd")) - before if per_node == gloo.world.size else 0
            return type(transport).__name__, [record.getMessage() for record in notes.buffer], left

    if per_node == 2 and limit is no_descriptors:
        pytest.skip("a group of gloo's for each node needs descriptors too")
    found = on_ranks(work, 4, tmp_path, per_node)
    assert [name for name, _, _ in found] == ["TorchTransport"] * 4
    assert max(left for _, _, left in found) <= 0
    assert [len(notes) for _, notes, _ in found] == [1, 0, 0, 0]
    assert re.fullmatch(f"rows move over sockets, slower than shared memory: {says}", found[0][1][0])


@pytest.mark.parametrize(("limit", "says"), LIMITS)
def test_shared_memory_by_name_that_cannot_be_had_is_one_line(limit, says, tmp_path):
    def work(gloo: Transport) -> None:
        limit(gloo.world.rank)
        with chosen(TransportKind.SHM, gloo, CPU):
            pass

    with pytest.raises(RunError, match=f"^{says}; use the torch transport$"):
        on_ranks(work, 4, tmp_path)


def test_the_memory_is_a_part_of_what_this_process_may_use(monkeypatch):
    monkeypatch.setattr(shared_memory, "usable_memory_bytes", lambda: 64 << 20)
    fd = SharedMemory.create(4)
    assert 32 << 20 <= os.fstat(fd).st_size < 33 << 20
    os.close(fd)


def test_more_descriptors_than_select_knows(tmp_path):
    """A rank that waits looks for the other's end at a descriptor above 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("no more than 1,024 descriptors here")

    def work(gloo: Transport) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        with chosen(TransportKind.SHM, gloo, CPU) as transport:
            assert max(transport.inside.memory._processes) > 1024
            if gloo.world.rank == 1:
                time.sleep(1.5)  # longer than a rank sleeps before it looks
            exchange(transport, 1, torch.float32, 4)
        for fd in held:
            os.close(fd)

    on_ranks(work, 2, tmp_path)
