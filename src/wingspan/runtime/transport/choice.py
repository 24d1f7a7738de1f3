"""Which transport a run uses: from the user's choice and where its ranks are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wingspan.errors import InputError
from wingspan.runtime.transport import futex
from wingspan.runtime.transport.shm import SharedMemoryTransport, one_host_per_node
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.running import TransportKind


@contextmanager
def chosen(kind: TransportKind, joined: Transport, device: torch.device) -> Iterator[Transport]:
    """Collective: the transport of that kind over a group that is joined already, which stays open.

    Raises:
        InputError: shared memory is wanted and not possible here.
    """
    if not _wants_shared_memory(kind, joined, device):
        yield joined
        return
    transport = SharedMemoryTransport(joined)
    try:
        yield transport
    finally:
        transport.close()


def _wants_shared_memory(kind: TransportKind, joined: Transport, device: torch.device) -> bool:
    if kind == TransportKind.SHM:
        if device.type != "cpu":
            raise InputError(f"--transport shm moves rows of the CPU; use --transport torch on {device.type}")
        return True
    if kind != TransportKind.AUTO or device.type != "cpu" or joined.world.ranks_per_node == 1:
        return False
    return futex.available() and one_host_per_node(joined)
