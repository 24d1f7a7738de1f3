"""A rank's sequences as the model takes them: which go together in one forward, and its columns.

Shapes: P sequences of a batch, N columns of a forward, C columns so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from wingspan.runtime.generation.micro_batches import split_rows

_MORE_COLUMNS = 256
"""The mask grows by so many columns at once."""


@dataclass(frozen=True)
class Columns:
    """What one forward takes: the last N of C columns of its sequences."""

    ids_PN: torch.Tensor
    positions_PN: torch.Tensor
    mask_PC: torch.Tensor | None
    """0 where a column is padding; None where none is."""
    valid_T: torch.Tensor | None
    """`Step.valid_T`: which of the P x N columns are tokens; None: all."""


class Batch:
    """Sequences that go through the model together, padded on the left: the newest tokens are in the last column.

    Args:
        rows: token ids of each; without any, one lone row of padding stands for them, so that the rank takes part.
        places: where each stands among its rank's sequences.
        device: where the model is.
    """

    def __init__(self, rows: Sequence[Sequence[int]], places: Sequence[int], device: torch.device) -> None:
        self.places = list(places)
        self._device = device
        lengths = torch.tensor([len(row) for row in rows] or [0])
        self._columns = max(1, int(lengths.max()))
        self._padding_P = self._columns - lengths
        ids_PN = torch.zeros((len(lengths), self._columns), dtype=torch.int64)
        for number, row in enumerate(rows):
            ids_PN[number, self._columns - len(row) :] = torch.tensor(row)
        self._ids_PN = ids_PN.to(device)
        self._valid_PN = torch.arange(self._columns) >= self._padding_P[:, None]
        self._mask_PC = self._padded_mask() if rows and bool(self._padding_P.any()) else None

    def __len__(self) -> int:
        return len(self.places)

    def columns(self, rows: slice) -> Columns:
        """The next forward of these sequences; of a lone row of padding where they are none."""
        if rows.start >= rows.stop:
            lone_1N = torch.zeros((1, self._ids_PN.shape[1]), dtype=torch.int64)
            positions_1N = self._positions(torch.zeros(1))
            return Columns(lone_1N.to(self._device), positions_1N, None, self._on_device(lone_1N.bool()))
        valid_PN = self._valid_PN[rows]
        return Columns(
            self._ids_PN[rows],
            self._positions(self._padding_P[rows]),
            None if self._mask_PC is None else self._mask_PC[rows, : self._columns],
            None if bool(valid_PN.all()) else self._on_device(valid_PN),
        )

    @property
    def tokens(self) -> int:
        """In the next forward."""
        return int(self._valid_PN.sum()) if self.places else 0

    def append(self, tokens_P: torch.Tensor, alive_P: torch.Tensor) -> None:
        """Begin a new column.

        Args:
            tokens_P: of each sequence, on the CPU.
            alive_P: which of them go on; the others' tokens count as padding from now on.
        """
        self._ids_PN = tokens_P[:, None].to(self._device)
        self._valid_PN = alive_P[:, None]
        self._columns += 1
        if self._mask_PC is not None and self._columns > self._mask_PC.shape[1]:
            self._mask_PC = pad(self._mask_PC, (0, _MORE_COLUMNS), value=1)

    def _padded_mask(self) -> torch.Tensor:
        return pad(self._valid_PN.long(), (0, _MORE_COLUMNS), value=1).to(self._device)

    def _positions(self, padding_P: torch.Tensor) -> torch.Tensor:
        """Each token's in its own sequence; 0 in padding."""
        end, new = self._columns, self._ids_PN.shape[1]
        return (torch.arange(end - new, end) - padding_P[:, None]).clamp(min=0).long().to(self._device)

    def _on_device(self, valid_PN: torch.Tensor) -> torch.Tensor:
        return valid_PN.flatten().to(self._device)


def batches_of(
    rows_R: Sequence[Sequence[Sequence[int]]],
    rank: int,
    device: torch.device,
    *,
    padding_is_neutral: bool,
    micro_batches: int = 1,
) -> list[Batch]:
    """The batches of this rank's sequences, the same in every step; as many on every rank, perhaps empty ones.

    Args:
        rows_R: token ids of every rank's sequences.
        rank: this one.
        device: where the model is.
        padding_is_neutral: sequences of different lengths may go together: then it is a single batch.
        micro_batches: else, how many batches the sequences of one length make.
    """
    if padding_is_neutral:
        return [Batch(rows_R[rank], range(len(rows_R[rank])), device)]
    lengths_R = [sorted({len(row) for row in rows}) for rows in rows_R]
    batches = max(1, *(len(lengths) for lengths in lengths_R)) * micro_batches
    mine = rows_R[rank]
    places: list[list[int]] = []
    for length in lengths_R[rank]:
        alike = [n for n, row in enumerate(mine) if len(row) == length]
        places += [alike[part] for part in split_rows(len(alike), micro_batches)]
    places += [[] for _ in range(batches - len(places))]
    return [Batch([mine[n] for n in some], some, device) for some in places]
