"""A transport that moves rows in its own way, and leaves everything else to another one.

Shapes: R ranks, C counts, N rows, B bytes per row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.transport import Transport
from wingspan.runtime.transport.work_handle import WorkHandle


class OverAnother(ABC):
    """Moves rows in its own way; all else goes by another transport among the same ranks.

    Args:
        world: this rank's place among them.
        outer: the other transport; it stays open when this one closes.
    """

    holds_host = True

    def __init__(self, world: World, outer: Transport) -> None:
        self.world = world
        self.outer = outer

    @abstractmethod
    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,
    ) -> WorkHandle:
        """See `Transport`."""

    def exchange_counts(self, send_RC: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        send_RC = send_RC.contiguous()
        received_RC = torch.empty_like(send_RC)
        ones = [1] * self.world.size
        self.exchange_rows(received_RC, send_RC, ones, ones).wait()
        return received_RC

    def share(self, value_X: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        return self.outer.share(value_X)

    def gather(self, value: object) -> list[object] | None:
        """See `Transport`."""
        return self.outer.gather(value)

    def broadcast(self, value: object) -> object:
        """See `Transport`."""
        return self.outer.broadcast(value)

    def split(self, color: int) -> Transport:
        """See `Transport`. In the parts rows go as in the other."""
        return self.outer.split(color)
