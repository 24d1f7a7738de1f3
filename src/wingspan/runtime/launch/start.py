"""Start the ranks of one machine by forking, watch them, and end all when one fails.

The parent imports torch and transformers once before it forks: seconds per rank become milliseconds.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
import torch.distributed as dist

from wingspan.errors import LostPeerError, WingspanError
from wingspan.runtime.launch.meeting.place import Place
from wingspan.runtime.launch.meeting.protocol import AloneMeeting, MpiMeeting
from wingspan.runtime.launch.peer_monitor import PeerMonitor
from wingspan.runtime.launch.supervision import Ranks
from wingspan.runtime.ranks.device import check_can_fork, take_share
from wingspan.runtime.ranks.nodes import Nodes, enter, listen_on
from wingspan.runtime.ranks.world import World, export
from wingspan.runtime.transport.mpi import leave_mpi
from wingspan.runtime.transport.transport import PEERS_WAIT, LocalTransport, TorchTransport, Transport
from wingspan.signals import certain_end
from wingspan.streams import flush_streams

Rest = Callable[[], None]
"""What is left for one rank when the group has ended, so that no other waits for it in the end of NCCL or MPI."""

Work = Callable[[Transport], Rest | None]


def run_ranks(
    work: Work, size: int, ranks_per_node: int, device: torch.device, nodes: Nodes | None = None
) -> None:
    """Fork `size` ranks, run `work` in each over its own transport, and wait for them.

    Args:
        work: what each rank does; it may return what is left to it.
        size: number of ranks.
        ranks_per_node: how many of them count as one node.
        device: where their tensors live.
        nodes: network namespaces that the ranks enter, node by node; None: all stay in this one.

    Raises:
        WingspanError: a rank raised it, died, or could not be started; all others have been ended by then.
        BrokenPipeError: a rank printed, and the reader of standard output had left.
    """
    with started_ranks(work, size, ranks_per_node, device, nodes) as ranks:
        ranks.wait()


@contextmanager
def started_ranks(
    work: Work, size: int, ranks_per_node: int, device: torch.device, nodes: Nodes | None = None
) -> Iterator[Ranks]:
    """The ranks of `run_ranks`, while they work; those that still live at the end are ended."""
    check_can_fork(device)
    listener = socket.create_server(("127.0.0.1", 0)) if nodes is None else listen_on(nodes.members[0])
    flush_streams()
    with listener, Ranks() as ranks:
        for rank in range(size):
            world = World(rank, size, ranks_per_node, local_rank=rank)
            ranks.start(rank, partial(_live, work, world, listener, device, nodes))
        listener.close()
        yield ranks


def join_ranks(work: Work, place: Place, device: torch.device) -> None:
    """Run `work` as the rank that a launcher (torchrun, mpirun, Slurm) made of this process.

    Args:
        work: what the rank does; it may return what is left to it.
        place: where it met the others.
        device: where its tensors live.
    """
    world, meeting = place.world, place.meeting
    if isinstance(meeting, MpiMeeting):
        take_share(world, device)
        with certain_end():
            _work_and_leave(work, meeting.transport(world), leave_mpi)
        return
    take_share(world, device)
    if isinstance(meeting, AloneMeeting):
        with certain_end():
            _work_and_leave(work, LocalTransport())
        return
    export(world, meeting.rank_0_address, place.port)
    if place.interface is not None and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", place.interface)
    with certain_end(), _plain_errors(world):
        dist.init_process_group(
            _backend(device),
            store=meeting.store(),
            rank=world.rank,
            world_size=world.size,
            timeout=PEERS_WAIT,
        )
        transport = TorchTransport(world, device)
        peer_monitor = PeerMonitor(transport, meeting.rank_0_address)
    with certain_end(), peer_monitor, _plain_errors(world):
        _work_and_leave(work, transport)


def _live(
    work: Work, world: World, listener: socket.socket, device: torch.device, nodes: Nodes | None
) -> None:
    """What a forked rank does."""
    take_share(world, device)
    with _plain_errors(world):
        interface = "lo" if nodes is None else _enter_node(nodes, world)
        _work_and_leave(work, _connect(world, listener, device, interface))


def _enter_node(nodes: Nodes, world: World) -> str:
    """Move this rank to its node; returns the interface to the others."""
    node = nodes.node_of(world.rank)
    enter(node)
    return node.interface


def _connect(world: World, listener: socket.socket, device: torch.device, interface: str) -> Transport:
    host, port = listener.getsockname()[:2]
    export(world, host, port)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if world.size == 1:
        listener.close()
        return LocalTransport()
    is_master = world.rank == 0
    fd = listener.detach()
    if not is_master:
        os.close(fd)
    # Nobody is done before all have met: one that had nothing to say to the others would be taken for lost.
    os.environ.setdefault("TORCH_DIST_INIT_BARRIER", "1")
    # The parent bound the port before the fork, so no other process can take it in between.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, world.size, is_master=is_master, master_listen_fd=fd if is_master else None
    )
    dist.init_process_group(
        _backend(device), store=store, rank=world.rank, world_size=world.size, timeout=PEERS_WAIT
    )
    return TorchTransport(world, device)


def _work_and_leave(work: Work, transport: Transport, leave: Callable[[], None] = lambda: None) -> None:
    rest = work(transport)
    transport.close()
    leave()
    if rest is not None:
        rest()


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


class _plain_errors:  # noqa: N801 - reads as a statement
    """Turns torch.distributed's errors into one line that names the rank."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, WingspanError):
            return
        text = str(error)
        if isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text or "Connection" in text:
            raise LostPeerError(f"rank {self._world.rank} {_plain(text)}") from error


def _plain(text: str) -> str:
    """What an error of torch.distributed says, in one line; NCCL has its own reason behind all else."""
    lines = text.strip().splitlines()
    reasons = [after.strip() for before, after in pairwise(lines) if before.strip().startswith("Last error")]
    if reasons:
        return f"cannot go on with NCCL: {reasons[-1]}"
    return f"lost contact with its peers: {lines[0]}"
