"""Which transport a run uses: from the user's choice and where its ranks are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch

from wingspan.errors import RunError
from wingspan.runtime.ranks.device import gpu_name
from wingspan.runtime.transport import futex
from wingspan.runtime.transport.shared_memory import SharedMemoryError
from wingspan.runtime.transport.shm import SharedMemoryTransport, one_host_per_node
from wingspan.runtime.transport.staged import StagedTransport
from wingspan.runtime.transport.transport import TorchTransport, Transport
from wingspan.specs.running import TransportKind

_LOG = logging.getLogger(__name__)


@contextmanager
def chosen(kind: TransportKind, joined: Transport, device: torch.device) -> Iterator[Transport]:
    """Collective: the transport of that kind over a group that is joined already, which stays open.

    Where nobody asked for shared memory by name and it cannot be had, rows go without, and rank 0 says so.

    Rows of GPUs go by NCCL where every rank has one of its own, else through the memory of the CPU.

    Raises:
        InputError: shared memory is wanted and not possible here.
        RunError: it is wanted, and a limit or the system does not let the ranks have it.
    """
    staged = _is_staged(kind, joined, device)
    if staged and isinstance(joined, TorchTransport):
        # Its group speaks gloo too, for the memory of the CPU.
        joined = TorchTransport(joined.world, torch.device("cpu"))
    rows_on_host = staged or device.type == "cpu"
    inner = _in_shared_memory(kind, joined) if rows_on_host and _wants_shared_memory(kind, joined) else None
    try:
        host = inner or joined
        yield StagedTransport(host, device) if staged else host
    finally:
        if inner is not None:
            inner.close()


def _is_staged(kind: TransportKind, joined: Transport, device: torch.device) -> bool:
    """Collective: whether rows of GPUs go through the memory of the CPU: as asked, or because ranks share a GPU."""
    if device.type != "cuda" or joined.world.size == 1:
        return False
    if kind in (TransportKind.SHM, TransportKind.MPI):
        return True
    gpus = cast("list[str]", joined.broadcast(joined.gather(gpu_name())))
    if len(set(gpus)) == len(gpus):
        return False
    if joined.world.rank == 0:
        shared = next(gpu for gpu in gpus if gpus.count(gpu) > 1)
        _LOG.warning(
            "%d ranks share %s: their rows go through the memory of the CPU, as NCCL refuses them",
            gpus.count(shared),
            shared,
        )
    return True


def _in_shared_memory(kind: TransportKind, joined: Transport) -> Transport | None:
    try:
        return SharedMemoryTransport(joined)
    except SharedMemoryError as error:
        if kind == TransportKind.SHM:
            raise RunError(f"{error}; use the torch transport") from None
        if joined.world.rank == 0:
            _LOG.warning("rows move over sockets, slower than shared memory: %s", error)
    return None


def _wants_shared_memory(kind: TransportKind, joined: Transport) -> bool:
    if kind == TransportKind.SHM:
        return True
    if kind != TransportKind.AUTO or joined.world.ranks_per_node == 1:
        return False
    return futex.available() and one_host_per_node(joined)
