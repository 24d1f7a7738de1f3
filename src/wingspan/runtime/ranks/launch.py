"""Start the ranks of one machine by forking, watch them, and end all when one fails.

The parent imports torch and transformers once before it forks: seconds per rank become milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from wingspan.errors import InputError, LostPeerError, RunError, WingspanError
from wingspan.runtime.ranks.device import take_share
from wingspan.runtime.ranks.lifeline import Lifeline
from wingspan.runtime.ranks.nodes import Nodes, enter, listen_on
from wingspan.runtime.ranks.world import World, export
from wingspan.runtime.transport.mpi import join_mpi, leave_mpi
from wingspan.runtime.transport.transport import LocalTransport, TorchTransport, Transport
from wingspan.writing import json_text

_PEERS_WAIT = timedelta(minutes=10)
"""Longest a rank waits in a collective for a live but slow peer; a dead one is noticed at once."""

_GATHER_CAUSES_SECONDS = 1.0
_GRACE_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1

Work = Callable[[Transport], None]


@dataclass(frozen=True)
class _Failure:
    """Why a rank ended; the lowest `order` is the likeliest first cause (a lost peer is a consequence)."""

    rank: int
    order: int
    text: str
    exit_code: int


def run_ranks(
    work: Work, size: int, ranks_per_node: int, device: torch.device, nodes: Nodes | None = None
) -> None:
    """Fork `size` ranks, run `work` in each over its own transport, and wait for them.

    Args:
        work: what each rank does.
        size: number of ranks.
        ranks_per_node: how many of them count as one node.
        device: where their tensors live.
        nodes: network namespaces that the ranks enter, node by node; None: all stay in this one.

    Raises:
        WingspanError: a rank raised it, or died; all others have been ended by then.
    """
    listener = socket.create_server(("127.0.0.1", 0)) if nodes is None else listen_on(nodes.members[0])
    sys.stdout.flush()
    sys.stderr.flush()
    children: dict[int, tuple[int, int]] = {}
    for rank in range(size):
        world = World(rank, size, ranks_per_node, local_rank=rank)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _child(work, world, listener, device, write_end, nodes)
        os.close(write_end)
        children[pid] = (rank, read_end)
    listener.close()
    _supervise(children)


def join_ranks(work: Work, world: World, device: torch.device) -> None:
    """Run `work` as the rank that a launcher (torchrun, mpirun, Slurm) made of this process."""
    address, port = _meeting_point()
    export(world, address, port)
    take_share(world, device)
    with _plain_errors(world):
        try:
            dist.init_process_group(_backend(device), timeout=_PEERS_WAIT)
        except dist.DistNetworkError as error:
            if "EADDRINUSE" in str(error) or "in use" in str(error):
                raise InputError(
                    f"port {port} on {address} is in use; set MASTER_PORT to a free one"
                ) from None
            raise
        transport = TorchTransport(world, device)
        lifeline = Lifeline(transport, address)
    with lifeline, _plain_errors(world):
        _work_and_leave(work, transport)


def _meeting_point() -> tuple[str, int]:
    """Where rank 0 listens, as torch.distributed's launchers say it."""
    text = os.environ.get("MASTER_PORT", "29500")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InputError(f"environment: MASTER_PORT={text!r} is not a port; use a number from 1 to 65535")
    return os.environ.get("MASTER_ADDR", "127.0.0.1"), int(text)


def join_mpi_ranks(work: Work, world: World) -> None:
    """Run `work` as the rank that mpirun made of this process, over MPI."""
    take_share(world, torch.device("cpu"))
    _work_and_leave(work, join_mpi(world))
    leave_mpi()


def _child(
    work: Work,
    world: World,
    listener: socket.socket,
    device: torch.device,
    errors: int,
    nodes: Nodes | None,
) -> NoReturn:
    """The whole life of a forked rank; never returns into the parent's code."""
    code = 1
    try:
        _die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        take_share(world, device)
        with _plain_errors(world):
            interface = "lo" if nodes is None else _enter_node(nodes, world)
            _work_and_leave(work, _connect(world, listener, device, interface))
        code = 0
    except WingspanError as error:
        lost = isinstance(error, LostPeerError)
        message = {"order": 2 if lost else 0, "text": str(error), "exit_code": error.exit_code}
        os.write(errors, json_text(message).encode())
    except BaseException as error:
        if os.environ.get("WINGSPAN_DEBUG"):
            traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        os.write(errors, json_text({"order": 1, "text": text[:2000], "exit_code": 1}).encode())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: the parent's exit handlers are not ours to run.
        os._exit(code)


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
    # The parent bound the port before the fork, so no other process can take it in between.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, world.size, is_master=is_master, master_listen_fd=fd if is_master else None
    )
    dist.init_process_group(
        _backend(device), store=store, rank=world.rank, world_size=world.size, timeout=_PEERS_WAIT
    )
    return TorchTransport(world, device)


def _work_and_leave(work: Work, transport: Transport) -> None:
    work(transport)
    transport.close()


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
            first_line = text.strip().splitlines()[0]
            raise LostPeerError(
                f"rank {self._world.rank} lost contact with its peers: {first_line}"
            ) from error


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _supervise(children: dict[int, tuple[int, int]]) -> None:
    failures: list[_Failure] = []
    alive = set(children)
    deadline: float | None = None
    try:
        while alive:
            pid, status = os.waitpid(-1, os.WNOHANG if deadline else 0)
            if pid == 0:
                if deadline and time.monotonic() > deadline:
                    break
                time.sleep(0.02)
                continue
            if pid not in alive:
                continue
            alive.discard(pid)
            failure = _failure(*children[pid], status)
            if failure:
                failures.append(failure)
                deadline = deadline or time.monotonic() + _GATHER_CAUSES_SECONDS
    finally:
        _end(alive)
        for _, errors in children.values():
            os.close(errors)
    if failures:
        first = min(failures, key=lambda f: f.order)
        raise _error(first)


def _failure(rank: int, errors: int, status: int) -> _Failure | None:
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    if code < 0:
        name = signal.Signals(-code).name
        return _Failure(rank, 0, f"rank {rank} was killed by signal {name}; the other ranks were ended", 1)
    os.set_blocking(errors, False)
    try:
        message = json.loads(os.read(errors, 65536))
    except (BlockingIOError, ValueError):
        return _Failure(rank, 1, f"rank {rank} ended with exit code {code} and no word", 1)
    text = message["text"] if message["order"] == 0 else f"rank {rank} failed: {message['text']}"
    return _Failure(rank, message["order"], text, message["exit_code"])


def _error(failure: _Failure) -> WingspanError:
    return InputError(failure.text) if failure.exit_code == 2 else RunError(failure.text)


def _end(alive: set[int]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + _GRACE_SECONDS
        while alive and time.monotonic() < deadline:
            for pid in list(alive):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    alive.discard(pid)
            time.sleep(0.01)
