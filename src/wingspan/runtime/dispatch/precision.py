"""Smaller rows over the links: dispatch in BF16 or FP8 and combine in BF16, around any dispatcher. Inference only.

Shapes: T tokens, K experts per token, D hidden size, N rows received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from wingspan.errors import RunError
from wingspan.runtime.dispatch import float8
from wingspan.runtime.dispatch.dispatcher import (
    Capabilities,
    Dispatcher,
    Handle,
    PeerBytes,
    Pending,
    Received,
)
from wingspan.specs.running import RowPrecision as Precision


@dataclass(frozen=True)
class PrecisionRoute:
    """The inner dispatcher's route, and what the rows were before."""

    inner: Any
    dtype: torch.dtype
    width: int
    row_bytes: int


@dataclass(frozen=True)
class PrecisionHandle(Handle):
    """The inner dispatcher's handle, and what the rows were before."""

    route: PrecisionRoute
    inner: Handle

    @property
    def traffic(self) -> PeerBytes:
        """Bytes to the experts."""
        return self.inner.traffic

    @property
    def back_traffic(self) -> PeerBytes:
        """Bytes from the experts: as many rows, of BF16."""
        there = self.traffic
        return PeerBytes(self._back(there.received_R), self._back(there.sent_R))

    def _back(self, bytes_R: Sequence[int]) -> list[int]:
        route = self.route
        return [size // route.row_bytes * route.width * torch.bfloat16.itemsize for size in bytes_R]


class PrecisionDispatcher:
    """A dispatcher whose rows travel in fewer bytes; what the experts get and give keeps its type."""

    def __init__(self, inner: Dispatcher[Any, Any], precision: Precision) -> None:
        self.capabilities: Capabilities = replace(inner.capabilities, training=False)
        self._inner = inner
        self._packed = precision == Precision.FLOAT8

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[PrecisionRoute]:
        """See `Dispatcher.route`."""
        if torch.is_grad_enabled() and x_TD.requires_grad:
            raise RunError(
                "rows of lower precision carry no gradient; train with rows as the model computes them"
            )
        sent = float8.encode(x_TD) if self._packed else x_TD.to(torch.bfloat16)
        row_bytes = sent.shape[1] * sent.element_size()
        inner = self._inner.route(sent, experts_TK, weights_TK, chunks, lane)
        return [PrecisionRoute(route, x_TD.dtype, x_TD.shape[1], row_bytes) for route in inner]

    def send(self, route: PrecisionRoute) -> Pending[Received[PrecisionHandle]]:
        """See `Dispatcher.send`."""
        return self._inner.send(route.inner).then(lambda received: self._unpacked(received, route))

    def _unpacked(self, received: Received[Any], route: PrecisionRoute) -> Received[PrecisionHandle]:
        rows = received.rows_ND
        rows_ND = float8.decode(rows, route.width, route.dtype) if self._packed else rows.to(route.dtype)
        return Received(rows_ND, received.counts_S, PrecisionHandle(route, received.handle))

    def send_back(self, y_ND: torch.Tensor, handle: PrecisionHandle) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        return self._inner.send_back(y_ND.to(torch.bfloat16), handle.inner).then(
            lambda y_TD: y_TD.to(handle.route.dtype)
        )
