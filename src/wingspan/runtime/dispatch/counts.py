"""Rows of each slot: a tensor where the rows are, numbers on the host, and neither before somebody asks for it.

Shapes: S local slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import overload

import torch


class Counts(Sequence[int]):
    """How many rows each slot got, as whoever counted them knows it.

    It reads as a sequence of numbers. Of a GPU's tensor these wait for the GPU; experts that take `tensor_S` do not.

    Args:
        known_S: int64 (S), or the numbers.
        device: of the tensor, where numbers are known.
        arriving_RS: where numbers are known, the same on the device, by source; there may be more slots.
    """

    def __init__(
        self,
        known_S: torch.Tensor | Sequence[int],
        device: torch.device | None = None,
        *,
        arriving_RS: torch.Tensor | None = None,
    ) -> None:
        self._known_S = known_S
        self._device = device
        self._arriving_RS = arriving_RS

    @cached_property
    def tensor_S(self) -> torch.Tensor:
        """int64 (S), on the rows' device."""
        if isinstance(self._known_S, torch.Tensor):
            return self._known_S
        if self._arriving_RS is not None:
            return self._arriving_RS.sum(0)[: len(self)]
        return torch.tensor(self._known_S, dtype=torch.int64, device=self._device)

    @cached_property
    def host_S(self) -> Sequence[int]:
        """The numbers."""
        known_S = self._known_S
        return known_S.tolist() if isinstance(known_S, torch.Tensor) else known_S

    def __len__(self) -> int:
        return len(self._known_S)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self.host_S[index]


def counted(number_P: torch.Tensor, numbers: int) -> torch.Tensor:
    """How often each of the first `numbers` numbers occurs: int64. `bincount` would read a GPU's result back."""
    one_P = torch.ones((), dtype=torch.int64, device=number_P.device).expand_as(number_P)
    return torch.zeros(numbers, dtype=torch.int64, device=number_P.device).scatter_add_(0, number_P, one_P)
