"""Rows by MPI: mpi4py's non-blocking collectives, for machines whose fast network speaks MPI.

mpi4py is imported when a rank joins, because importing it initialises MPI.

Shapes: R ranks, C counts, N rows, B bytes per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from wingspan.errors import InputError
from wingspan.runtime.ranks.world import World, within
from wingspan.runtime.transport.transport import Transport, as_bytes
from wingspan.runtime.transport.work_handle import WorkHandle


class MpiTransport:
    """A communicator's ranks; CPU tensors. Rows travel as bytes, whatever their type."""

    holds_host = True

    def __init__(self, world: World, communicator: Any) -> None:
        self.world = world
        self._communicator = communicator

    def exchange_counts(self, send_RC: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        send_RC = send_RC.contiguous()
        received_RC = torch.empty_like(send_RC)
        self._communicator.Alltoall(send_RC.numpy(), received_RC.numpy())
        return received_RC

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,  # noqa: ARG002 - MPI has ways of its own
    ) -> WorkHandle:
        """See `Transport`."""
        sent, received = _RowBuffer(sent_NB, sent_R), _RowBuffer(received_NB, received_R)
        request = self._communicator.Ialltoallv(sent.message, received.message)
        return _Request(request, sent, received)

    def share(self, value_X: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        value = value_X.cpu().contiguous()
        shared_RX = torch.empty((self.world.size, *value.shape), dtype=value.dtype)
        self._communicator.Allgather(
            value.reshape(-1).view(torch.uint8).numpy(), shared_RX.reshape(-1).view(torch.uint8).numpy()
        )
        return shared_RX

    def gather(self, value: object) -> list[object] | None:
        """See `Transport`."""
        gathered: list[object] | None = self._communicator.gather(value, root=0)
        return gathered

    def broadcast(self, value: object) -> object:
        """See `Transport`."""
        return self._communicator.bcast(value, root=0)

    def split(self, color: int) -> Transport:
        """See `Transport`."""
        colors = self._communicator.allgather(color)
        members = [rank for rank, other in enumerate(colors) if other == color]
        return MpiTransport(within(self.world, members), self._communicator.Split(color, self.world.rank))

    def close(self) -> None:
        """Leave MPI's group; MPI itself ends with the process's work."""
        self._communicator.Free()


class _RowBuffer:
    """A buffer as MPI sees it: counts in rows, so that 2 GiB of bytes do not overflow MPI's 32-bit counts."""

    def __init__(self, rows_NB: torch.Tensor, count_R: Sequence[int]) -> None:
        from mpi4py import MPI

        self._bytes = as_bytes(rows_NB).numpy().reshape(-1)
        row_bytes = self._bytes.size // len(rows_NB) if len(rows_NB) else 1
        self._type = MPI.BYTE.Create_contiguous(row_bytes).Commit()
        counts = np.asarray(count_R, dtype=np.int32)
        self.message = [self._bytes, (counts, counts.cumsum() - counts), self._type]

    def free(self) -> None:
        """Give MPI's description back."""
        self._type.Free()


class _Request:
    """A collective under way; keeps its buffers alive."""

    def __init__(self, request: Any, sent: _RowBuffer, received: _RowBuffer) -> None:
        self._request = request
        self._rows = (sent, received)

    def wait(self) -> None:
        self._request.Wait()
        for rows in self._rows:
            rows.free()


def join_mpi(world: World) -> MpiTransport:
    """Become one of the ranks that mpirun started.

    Raises:
        InputError: mpi4py is missing, or belongs to another MPI than mpirun.
    """
    try:
        import mpi4py
    except ImportError:
        raise InputError(
            "`transport` mpi needs mpi4py and an MPI: apt-get install -y openmpi-bin libopenmpi-dev, then "
            "pip install 'wingspan[mpi]'"
        ) from None
    # A failed rank must not wait for its peers at exit: mpirun ends them when it leaves without finalising.
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    if MPI.COMM_WORLD.Get_size() != world.size:
        raise InputError(
            f"mpirun started {world.size} ranks, but mpi4py sees {MPI.COMM_WORLD.Get_size()}: it was built for "
            "another MPI; reinstall it with `pip install --no-binary mpi4py --force-reinstall mpi4py`"
        )
    return MpiTransport(world, MPI.COMM_WORLD.Dup())


def leave_mpi() -> None:
    """End MPI after all went well."""
    from mpi4py import MPI

    MPI.Finalize()
