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
    """

    def __init__(self, known_S: torch.Tensor | Sequence[int], device: torch.device | None = None) -> None:
        self._known_S = known_S
        self._device = device

    @cached_property
    def tensor_S(self) -> torch.Tensor:
        """int64 (S), on the rows' device."""
        if isinstance(self._known_S, torch.Tensor):
            return self._known_S
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
