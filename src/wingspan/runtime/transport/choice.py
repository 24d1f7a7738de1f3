"""Which transport a run uses: from the user's choice and where its ranks are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wingspan.errors import InputError, RunError
from wingspan.runtime.transport import futex
from wingspan.runtime.transport.shared_memory import SharedMemoryError
from wingspan.runtime.transport.shm import SharedMemoryTransport, one_host_per_node
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.running import TransportKind

_LOG = logging.getLogger(__name__)


@contextmanager
def chosen(kind: TransportKind, joined: Transport, device: torch.device) -> Iterator[Transport]:
    """Collective: the transport of that kind over a group that is joined already, which stays open.

    Where nobody asked for shared memory by name and it cannot be had, rows go without, and rank 0 says so.

    Raises:
        InputError: shared memory is wanted and not possible here.
        RunError: it is wanted, and a limit or the system does not let the ranks have it.
    """
    inner = _in_shared_memory(kind, joined) if _wants_shared_memory(kind, joined, device) else None
    try:
        yield inner or joined
    finally:
        if inner is not None:
            inner.close()


def _in_shared_memory(kind: TransportKind, joined: Transport) -> Transport | None:
    try:
        return SharedMemoryTransport(joined)
    except SharedMemoryError as error:
        if kind == TransportKind.SHM:
            raise RunError(f"{error}; use the torch transport") from None
        if joined.world.rank == 0:
            _LOG.warning("rows move over sockets, slower than shared memory: %s", error)
    return None


def _wants_shared_memory(kind: TransportKind, joined: Transport, device: torch.device) -> bool:
    if kind == TransportKind.SHM:
        if device.type != "cpu":
            raise InputError(f"`transport` shm moves rows of the CPU; use `transport` torch on {device.type}")
        return True
    if kind != TransportKind.AUTO or device.type != "cpu" or joined.world.ranks_per_node == 1:
        return False
    return futex.available() and one_host_per_node(joined)
