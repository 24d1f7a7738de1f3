"""Sequences as the model takes them: those of one forward are right-aligned, their newest tokens in the last column.

Shapes: P sequences of a batch, N new columns of a forward, C columns in all, T = P x N tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from wingspan.runtime.generation.caches import Caches
from wingspan.runtime.generation.slots import SlotCaches
from wingspan.runtime.model.step import TokenRows


@dataclass(frozen=True)
class Columns:
    """What one forward takes: the last N of C columns of its sequences."""

    ids_PN: torch.Tensor
    positions_PN: torch.Tensor
    mask_PC: torch.Tensor | None
    """0 where a column is padding; None where none is."""
    valid_PN: torch.Tensor | None
    """Which columns are tokens, on the host; None: all."""

    @property
    def tokens(self) -> TokenRows | None:
        """`Step.tokens`."""
        if self.valid_PN is None:
            return None
        at_M = self.valid_PN.flatten().nonzero().flatten()
        return TokenRows(at_M.to(self.ids_PN.device), self.valid_PN.numel())

    def rows(self, part: slice) -> Columns:
        """Those of some sequences; of none, one token of padding, so that the rank takes part."""
        if part.start >= part.stop:
            return columns_of([], self.ids_PN.device)
        return Columns(
            self.ids_PN[part],
            self.positions_PN[part],
            None if self.mask_PC is None else self.mask_PC[part],
            None if self.valid_PN is None else self.valid_PN[part],
        )


def columns_of(
    new: Sequence[Sequence[int]], device: torch.device, cached_P: Sequence[int] | None = None
) -> Columns:
    """The columns of some sequences' new tokens, padded on the left.

    Args:
        new: the new token ids of each; without any sequence one token of padding, so that the rank takes part.
        device: where the model is.
        cached_P: tokens of each that are in the cache; then all have equally many new ones. None: none are.
    """
    if not new:
        nothing = torch.zeros((1, 1), dtype=torch.int64, device=device)
        return Columns(nothing, nothing, None, torch.zeros((1, 1), dtype=torch.bool))
    new_P = torch.tensor([len(ids) for ids in new])
    before_P = torch.tensor(cached_P) if cached_P is not None else torch.zeros_like(new_P)
    widest = int(new_P.max())
    columns = int(before_P.max()) + widest
    padding_P1 = (columns - before_P - new_P)[:, None]
    ids_PN = torch.tensor([[0] * (widest - len(ids)) + list(ids) for ids in new])
    positions_PN = (torch.arange(columns - widest, columns) - padding_P1).clamp(min=0)
    mask_PC = torch.arange(columns) >= padding_P1
    valid_PN = mask_PC[:, columns - widest :]
    return Columns(
        ids_PN.to(device),
        positions_PN.to(device),
        None if bool(mask_PC.all()) else mask_PC.long().to(device),
        None if bool(valid_PN.all()) else valid_PN,
    )


class _Sequences:
    """Sequences that go through the model together."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        """The request of each row."""
        self.cached_P = [0] * len(self.numbers)
        """Tokens of each row that are in the cache; at least so many columns as the longest has."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def columns(self) -> int:
        """How many of the cache's columns are needed."""
        return max(self.cached_P, default=0)

    def _arrange(self, rows: Sequence[int]) -> None:
        self.numbers = [self.numbers[row] for row in rows]
        self.cached_P = [self.cached_P[row] for row in rows]


class Batch(_Sequences):
    """Sequences that began together, and their caches. Rows leave between forwards."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self.caches = Caches()

    def keep(self, numbers: Collection[int]) -> None:
        """Drop the rows of all other requests."""
        rows = [row for row, number in enumerate(self.numbers) if number in numbers]
        if len(rows) < len(self):
            self._arrange(rows)
            self.caches.keep(rows)


class SlotBatch(_Sequences):
    """All sequences of a rank that decode together: rows join, and one that leaves makes way for the last.

    Args:
        most_rows: that there will ever be at a time.
    """

    def __init__(self, most_rows: int) -> None:
        super().__init__([])
        self.caches = SlotCaches(most_rows)

    def keep(self, numbers: Collection[int]) -> None:
        """Drop the rows of all other requests, and the columns that only they filled."""
        kept = [row for row, number in enumerate(self.numbers) if number in numbers]
        if len(kept) == len(self):
            return
        stay, move = [row for row in kept if row < len(kept)], [row for row in kept if row >= len(kept)]
        free = sorted(set(range(len(kept))) - set(stay))
        moves = list(zip(free, move, strict=True))
        rows = list(range(len(kept)))
        for target, source in moves:
            rows[target] = source
        self._arrange(rows)
        self.caches.keep(len(rows), moves, self.columns)

    def join(self, other: Batch) -> None:
        """Take in the rows of sequences that began together, behind those held."""
        self.caches.join(other.caches, len(other), other.columns)
        self.numbers += other.numbers
        self.cached_P += other.cached_P
