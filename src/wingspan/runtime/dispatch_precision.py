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
from wingspan.runtime.dispatch import Dispatcher, Handle, Received, Traffic


class Precision(StrEnum):
    """How hidden states travel to the experts."""

    SAME = "same"
    """As the model computes them, both ways."""
    BFLOAT16 = "bfloat16"
    FLOAT8 = "float8"
    """FP8 with one scale per 128 values to the experts, BF16 back."""


@dataclass(frozen=True)
class PrecisionHandle(Handle):
    """The inner dispatcher's memory, and what the rows were before."""

    inner: Any
    dtype: torch.dtype
    row_bytes: int
    back_row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes to the experts."""
        traffic: Traffic = self.inner.traffic
        return traffic

    @property
    def back_traffic(self) -> Traffic:
        """Bytes from the experts: as many rows, of another size."""
        there = self.traffic
        return Traffic(self._back(there.received_R), self._back(there.sent_R))

    def _back(self, bytes_R: list[int]) -> list[int]:
        return [size // self.row_bytes * self.back_row_bytes for size in bytes_R]


class PrecisionDispatcher:
    """A dispatcher whose rows travel in fewer bytes; what the experts get and give keeps its type."""

    def __init__(self, inner: Dispatcher[Any], precision: Precision) -> None:
        self._inner = inner
        self._precision = precision

    def dispatch(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> tuple[Received, PrecisionHandle]:
        """See `Dispatcher.dispatch`."""
        if torch.is_grad_enabled() and x_TD.requires_grad:
            raise RunError("rows of lower precision carry no gradient; train with --precision same")
        dtype, width = x_TD.dtype, x_TD.shape[1]
        packed = self._precision == Precision.FLOAT8
        sent = float8.encode(x_TD) if packed else x_TD.to(torch.bfloat16)
        received, inner = self._inner.dispatch(sent, experts_TK, weights_TK)
        rows_ND = float8.decode(received.rows_ND, width, dtype) if packed else received.rows_ND.to(dtype)
        back_row_bytes = width * torch.bfloat16.itemsize
        handle = PrecisionHandle(inner, dtype, sent.shape[1] * sent.element_size(), back_row_bytes)
        return Received(rows_ND, received.counts_S), handle

    def combine(self, y_ND: torch.Tensor, handle: PrecisionHandle) -> torch.Tensor:
        """See `Dispatcher.combine`."""
        return self._inner.combine(y_ND.to(torch.bfloat16), handle.inner).to(handle.dtype)


def back_traffic(handle: Handle) -> Traffic:
    """Bytes of the combine that belongs to a dispatch."""
    if isinstance(handle, PrecisionHandle):
        return handle.back_traffic
    return Traffic(handle.traffic.received_R, handle.traffic.sent_R)
