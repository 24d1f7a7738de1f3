"""Smaller rows over the links: dispatch in BF16 or FP8 and combine in BF16, around any dispatcher. Inference only.

Shapes: T tokens, K experts per token, D hidden size, N rows received.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from wingspan.errors import RunError
from wingspan.runtime import float8
from wingspan.runtime.dispatch import Coming, Dispatcher, Received, Route, Traffic


class Precision(StrEnum):
    """How hidden states travel to the experts."""

    SAME = "same"
    """As the model computes them, both ways."""
    BFLOAT16 = "bfloat16"
    FLOAT8 = "float8"
    """FP8 with one scale per 128 values to the experts, BF16 back."""


@dataclass(frozen=True)
class PrecisionRoute:
    """The inner dispatcher's route, and what the rows were before."""

    inner: Any
    width: int
    dtype: torch.dtype
    row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes to the experts."""
        traffic: Traffic = self.inner.traffic
        return traffic

    @property
    def back_traffic(self) -> Traffic:
        """Bytes from the experts: as many rows, in BF16."""
        return Traffic(self._back(self.traffic.received_R), self._back(self.traffic.sent_R))

    def _back(self, bytes_R: list[int]) -> list[int]:
        return [size // self.row_bytes * self.width * torch.bfloat16.itemsize for size in bytes_R]


class PrecisionDispatcher:
    """A dispatcher whose rows travel in fewer bytes; what the experts get and give keeps its type."""

    def __init__(self, inner: Dispatcher[Any], precision: Precision) -> None:
        self._inner = inner
        self._packs = precision == Precision.FLOAT8

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[PrecisionRoute]:
        """See `Dispatcher.route`; raises `RunError` where a gradient is wanted."""
        if torch.is_grad_enabled() and x_TD.requires_grad:
            raise RunError("rows of lower precision carry no gradient; train with --precision same")
        sent = float8.encode(x_TD) if self._packs else x_TD.to(torch.bfloat16)
        row_bytes = sent.shape[1] * sent.element_size()
        routes = self._inner.route(sent, experts_TK, weights_TK, chunks, lane)
        return [PrecisionRoute(inner, x_TD.shape[1], x_TD.dtype, row_bytes) for inner in routes]

    def send(self, route: PrecisionRoute) -> Coming[Received]:
        """See `Dispatcher.send`."""

        def unpack(received: Received) -> Received:
            rows_ND = received.rows_ND
            if self._packs:
                return Received(float8.decode(rows_ND, route.width, route.dtype), received.counts_S)
            return Received(rows_ND.to(route.dtype), received.counts_S)

        return self._inner.send(route.inner).then(unpack)

    def send_back(self, y_ND: torch.Tensor, route: PrecisionRoute) -> Coming[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        coming = self._inner.send_back(y_ND.to(torch.bfloat16), route.inner)
        return coming.then(lambda y_TD: y_TD.to(route.dtype))


def back_traffic(route: Route) -> Traffic:
    """Bytes of the combine that belongs to a dispatch."""
    if isinstance(route, PrecisionRoute):
        return route.back_traffic
    return Traffic(route.traffic.received_R, route.traffic.sent_R)
