"""Caches in slots: every sequence that decodes has a row, written in place. Rows leave and join between forwards.

Rows are right-aligned: the newest token of each lies in the same column. So a forward writes one column, and nothing
else moves. A row that left is taken by the last one; a newcomer's cache is copied behind the others. Storage grows in
steps, and where the columns in use reach its end they are moved back to its beginning.

Shapes: P rows in use, B rows and C columns there is room for, N new columns, H heads, W values of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from wingspan.runtime.generation.caches import Caches
from wingspan.runtime.model.library import DummyLayer

_STEP_COLUMNS = 64
"""Storage has a multiple of so many columns."""


@dataclass
class _Room:
    """Keys and values of one layer; in use are some rows, and the columns from `begin` to `end`."""

    keys_BHCW: torch.Tensor
    values_BHCW: torch.Tensor
    rows: slice
    begin: int = 0
    end: int = 0

    @property
    def seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What is in use, without a copy."""
        columns = slice(self.begin, self.end)
        return self.keys_BHCW[self.rows, :, columns], self.values_BHCW[self.rows, :, columns]

    def append(self, keys_PHNW: torch.Tensor, values_PHNW: torch.Tensor) -> None:
        """Write new columns, for which there is room."""
        end = self.end + keys_PHNW.shape[-2]
        self.keys_BHCW[self.rows, :, self.end : end] = keys_PHNW
        self.values_BHCW[self.rows, :, self.end : end] = values_PHNW
        self.end = end

    def make_room(self, rows: int, columns: int, new: int) -> None:
        """Let the last columns be in use, so many, and see to room for more.

        Args:
            rows: that there must be room for.
            columns: in use from now on; those before the ones held are padding, and may hold anything finite.
            new: columns that there must be room for behind them.
        """
        there_B, there_C = self.keys_BHCW.shape[0], self.keys_BHCW.shape[2]
        if rows <= there_B and columns <= self.end and self.end + new <= there_C:
            self.begin = self.end - columns
            return
        held = min(self.end - self.begin, columns)
        wanted_C = _capacity(columns + new)
        fits = rows <= there_B and wanted_C <= there_C <= 4 * wanted_C
        self.keys_BHCW, self.values_BHCW = (
            _moved(
                tensor,
                self.rows,
                slice(self.end - held, self.end),
                columns,
                None if fits else (rows, wanted_C),
            )
            for tensor in (self.keys_BHCW, self.values_BHCW)
        )
        self.begin, self.end = 0, columns


def _capacity(columns: int) -> int:
    """A half more than needed, so that moving costs a few columns per step."""
    return -(-(columns + columns // 2) // _STEP_COLUMNS) * _STEP_COLUMNS


def _moved(
    tensor_BHCW: torch.Tensor, rows: slice, held: slice, end: int, size: tuple[int, int] | None
) -> torch.Tensor:
    """Move some columns, so that they end at `end`: in the storage there is, or in new storage of (rows, columns)."""
    held_PHCW = tensor_BHCW[rows, :, held]
    if size is None:
        into_BHCW, held_PHCW = tensor_BHCW, held_PHCW.clone()
    else:
        _, heads, _, values = tensor_BHCW.shape
        into_BHCW = tensor_BHCW.new_zeros(size[0], heads, size[1], values)
    into_BHCW[rows, :, end - held_PHCW.shape[2] : end] = held_PHCW
    return into_BHCW


class _InPlace:
    """A layer's keys and values are in a room."""

    room: _Room
    keys: torch.Tensor
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `DynamicLayer.update`, without a copy of what is held."""
        self.room.append(key_states, value_states)
        self.keys, self.values = self.room.seen
        return self.keys, self.values

    def needed(self, columns: int) -> int:
        """How many of a sequence's columns the layer keeps."""
        return columns


class _InPlaceWindow(_InPlace):
    """Only the columns that the next token may still see are in use."""

    sliding_window: int
    cumulative_length: int

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `DynamicSlidingWindowLayer.update`, without a copy of what is held."""
        self.room.append(key_states, value_states)
        seen = self.room.seen
        self.cumulative_length += key_states.shape[-2]
        self.room.begin = max(self.room.begin, self.room.end - (self.sliding_window - 1))
        self.keys, self.values = self.room.seen
        return seen

    def needed(self, columns: int) -> int:
        """How many of a sequence's columns the layer keeps."""
        return min(columns, self.sliding_window - 1)


class _Full(_InPlace, DynamicLayer): ...  # type: ignore[misc, override]


class _Window(_InPlaceWindow, DynamicSlidingWindowLayer): ...  # type: ignore[misc, override]


class _LinearAndFull(_InPlace, LinearAttentionAndFullAttentionLayer): ...  # type: ignore[misc, override]


class _LinearAndWindow(_InPlaceWindow, LinearAttentionAndSlidingWindowAttentionLayer): ...  # type: ignore[misc, override]


IN_PLACE: dict[type, type] = {
    DummyLayer: DummyLayer,
    LinearAttentionLayer: LinearAttentionLayer,
    DynamicLayer: _Full,
    DynamicSlidingWindowLayer: _Window,
    LinearAttentionAndFullAttentionLayer: _LinearAndFull,
    LinearAttentionAndSlidingWindowAttentionLayer: _LinearAndWindow,
}
"""Layers of transformers' caches, and what is put in their place. Recurrent and convolution states are written in place
by transformers itself."""


class _LayerSlots:
    """One layer's slots: room for keys and values where it has them, and rows of states."""

    def __init__(self, like: Any) -> None:
        keys = getattr(like, "keys", None)
        has_keys = isinstance(keys, torch.Tensor) and keys.numel() > 0
        kind: Any = IN_PLACE[type(like)] if has_keys else type(like)
        self.layer: Any = kind.__new__(kind)
        own = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(like).items()}
        vars(self.layer).update(own)
        self.is_in_place = isinstance(self.layer, _InPlace)
        if self.is_in_place:
            empty = slice(0, 0)
            self.layer.room = _Room(like.keys[empty, :, empty], like.values[empty, :, empty], empty)
        self._states = {at: state[:0] for at, state in _states(like)}

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All storage."""
        room = self.layer.room if self.is_in_place else None
        return [*self._states.values(), *([room.keys_BHCW, room.values_BHCW] if room else [])]

    def seen(self, rows: int) -> list[torch.Tensor]:
        """What of it the first rows hold."""
        room = self.layer.room if self.is_in_place else None
        return [*(state[:rows] for state in self._states.values()), *(room.seen if room else ())]

    def make_room(self, rows: int, columns: int, new: int) -> None:
        """See to room: for so many rows, for all columns of a sequence, and for new ones."""
        if self.is_in_place:
            self.layer.room.make_room(rows, self.layer.needed(columns), new)
        for at, storage in self._states.items():
            if rows > len(storage):
                self._states[at] = storage.new_zeros(rows, *storage.shape[1:])
                self._states[at][: len(storage)] = storage

    def take(self, other: Any, rows: slice, columns: int) -> None:
        """Let rows be those of another cache's layer, of which the last columns are needed."""
        if self.is_in_place:
            there = min(self.layer.needed(columns), other.keys.shape[-2])
            for seen, given in zip(self.layer.room.seen, (other.keys, other.values), strict=True):
                seen[rows, :, seen.shape[2] - there :] = given[..., given.shape[2] - there :, :]
        for at, state in _states(other):
            self._states[at][rows] = state

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy rows (to, from)."""
        for target, source in moves:
            for tensor in [*self._states.values(), *(self.layer.room.seen if self.is_in_place else ())]:
                tensor[target] = tensor[source]

    def show(self, rows: int, columns: int) -> None:
        """Let the layer be its first rows."""
        if self.is_in_place:
            self.layer.room.rows = slice(0, rows)
            self.layer.keys, self.layer.values = self.layer.room.seen
        if isinstance(self.layer, _InPlaceWindow):
            # It counts all columns, also those that it does not keep.
            self.layer.cumulative_length = columns
        _point(self.layer, self._states, slice(0, rows))

    def part(self, rows: slice) -> Any:
        """A layer of some of the rows, which writes into the same storage."""
        layer = copy.copy(self.layer)
        if self.is_in_place:
            layer.room = copy.copy(self.layer.room)
            layer.room.rows = rows
            layer.keys, layer.values = layer.room.seen
        if self._states:
            layer.conv_states, layer.recurrent_states = dict(layer.conv_states), dict(layer.recurrent_states)
            _point(layer, self._states, rows)
        return layer


def _states(layer: Any) -> list[tuple[tuple[str, int], torch.Tensor]]:
    """Recurrent and convolution states of a layer, by where they are."""
    if not isinstance(layer, LinearAttentionCacheLayerMixin):
        return []
    return [
        ((name, number), state)
        for name in ("conv_states", "recurrent_states")
        for number, state in getattr(layer, name).items()
        if state is not None
    ]


def _point(layer: Any, states: dict[tuple[str, int], torch.Tensor], rows: slice) -> None:
    for (name, number), storage in states.items():
        getattr(layer, name)[number] = storage[rows]


class SlotCaches:
    """The caches of all sequences that decode together.

    Args:
        most_rows: that there will ever be at a time.
    """

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self._cache: Any = None
        self._layers: list[_LayerSlots] = []
        self._rows = 0
        self._room_rows = 0
        self._columns = 0

    @property
    def layers(self) -> list[Any]:
        """The layers, of all rows in use."""
        for slots in self._layers:
            slots.show(self._rows, self._columns)
        return [slots.layer for slots in self._layers]

    @property
    def size_bytes(self) -> int:
        """Memory of what sequences hold. Room for more columns and rows, up to as much again, is not counted."""
        return sum(seen.nbytes for layer in self._layers for seen in layer.seen(self._rows))

    @property
    def storage_bytes(self) -> int:
        """Memory of all storage, in use or not."""
        return sum(tensor.nbytes for layer in self._layers for tensor in layer.tensors)

    def begin(self, parts: Sequence[slice], new: int) -> list[Any]:
        """The caches of the rows of each micro-batch, for a forward that adds so many columns; None: no row."""
        self._make_room(self._columns, new)
        if len(parts) == 1:
            return [self._cache]
        return [self._part(rows) if rows.stop > rows.start else None for rows in parts]

    def end(self, parts: Sequence[Any], new: int) -> None:
        """Take in what a forward did with the caches that `begin` gave."""
        self._columns += new
        for number, slots in enumerate(self._layers):
            if slots.is_in_place:
                room = parts[0].layers[number].room
                slots.layer.room.begin, slots.layer.room.end = room.begin, room.end

    def join(self, other: Caches, rows: int, columns: int) -> None:
        """Take in another's rows, behind those held.

        Args:
            other: transformers' own caches, of layers that `IN_PLACE` has.
            rows: of it.
            columns: the last of it are needed, so many.
        """
        whole = other.whole
        if self._cache is None:
            self._cache = copy.copy(whole)
            self._layers = [_LayerSlots(layer) for layer in whole.layers]
            self._cache.layers = [slots.layer for slots in self._layers]
        first = self._rows
        self._rows += rows
        self._make_room(max(self._columns, columns), 1)
        for slots, layer in zip(self._layers, whole.layers, strict=True):
            slots.take(layer, slice(first, self._rows), columns)

    def keep(self, rows: int, moves: Sequence[tuple[int, int]], columns: int) -> None:
        """Drop rows, and columns on the left.

        Args:
            rows: that are left, one at least.
            moves: (to, from): which rows take the place of others.
            columns: that are still needed.
        """
        for slots in self._layers:
            slots.move(moves)
        self._rows = rows
        self._make_room(columns, 0)

    def _make_room(self, columns: int, new: int) -> None:
        """Let so many columns be in use, of the rows in use; behind them, see to room for new ones."""
        if self._rows > self._room_rows:
            self._room_rows = max(self._rows, min(self._most_rows, 2 * self._room_rows))
        self._columns = columns
        for slots in self._layers:
            slots.make_room(self._room_rows, columns, new)
            slots.show(self._rows, columns)

    def _part(self, rows: slice) -> Any:
        part = copy.copy(self._cache)
        part.layers = [slots.part(rows) for slots in self._layers]
        return part
