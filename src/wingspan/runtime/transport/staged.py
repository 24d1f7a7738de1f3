"""Rows of a GPU by a transport of the CPU: through pinned memory, in the order of the caller's stream.

For ranks that share a GPU, which NCCL refuses, and where its network is another's. On the communication stream the
copies of one exchange run on the GPU's copy engines beside the experts' products.

Shapes: R ranks, C counts, N rows, B bytes per row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wingspan.runtime.transport.over_another import OverAnother
from wingspan.runtime.transport.transport import Transport
from wingspan.runtime.transport.work_handle import WorkHandle


class StagedTransport(OverAnother):
    """See the file's head.

    Args:
        host: moves the rows once they are in the CPU's memory; it stays open when this one closes.
        device: where the rows are.
    """

    def __init__(self, host: Transport, device: torch.device) -> None:
        super().__init__(host.world, host)
        self._device = device

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,
    ) -> WorkHandle:
        """See `Transport`. Holds the host until what is sent has left the device."""
        sent = self._staging(sent_NB)
        sent.copy_(sent_NB, non_blocking=True)
        self._finish_stream()
        received = self._staging(received_NB)
        pending = self.outer.exchange_rows(received, sent, received_R, sent_R, bulk=bulk)
        return _Landing(pending, received_NB, received, sent)

    def split(self, color: int) -> Transport:
        """See `Transport`."""
        return StagedTransport(self.outer.split(color), self._device)

    def close(self) -> None:
        """See `Transport`; `host` stays open."""

    def _staging(self, like_NB: torch.Tensor) -> torch.Tensor:
        """Memory of the CPU that copy engines reach; torch keeps it, and gives it out again once copies are over."""
        return torch.empty(like_NB.shape, dtype=like_NB.dtype, pin_memory=self._device.type == "cuda")

    def _finish_stream(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()


class _Landing:
    """Rows that come into staging, and go on to the device."""

    def __init__(
        self, pending: WorkHandle, received_NB: torch.Tensor, staging_NB: torch.Tensor, sent_NB: torch.Tensor
    ) -> None:
        self._pending = pending
        self._received_NB = received_NB
        self._staging_NB = staging_NB
        # Kept until it has left.
        self._sent_NB = sent_NB

    def wait(self) -> None:
        """Only the copy to the device may still be under way: what is asked of this stream next comes after it."""
        self._pending.wait()
        self._received_NB.copy_(self._staging_NB, non_blocking=True)
