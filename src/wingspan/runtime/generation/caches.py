"""The caches of sequences that began together, as transformers keeps them, cut by rows: keys and values, any states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from wingspan.runtime.model.padding import CACHE_CLASSES

_ROWS_ALONG = {"indexer_position_ids": 1}
"""Tensors of transformers' caches that have the sequences along another dimension than the first, by name."""


class Caches:
    """The caches of sequences that began together, one per micro-batch; None: no sequence, or no cache yet."""

    def __init__(self, whole: Any = None) -> None:
        self._parts: list[Any] = [whole]

    @property
    def whole(self) -> Any:
        """All of them as one; None where there is none."""
        held = [part for part in self._parts if part is not None]
        return _combined(held, torch.cat) if len(held) > 1 else held[0] if held else None

    @property
    def layers(self) -> list[Any]:
        """The layers of all of them as one, those that the next forward goes on with; there is a cache."""
        self._parts = [self.whole]
        layers: list[Any] = self._parts[0].layers
        return layers

    @property
    def size_bytes(self) -> int:
        """Memory of all of them."""
        tensors = {t.data_ptr(): t.nbytes for part in self._parts for t in _tensors(part)}
        return sum(tensors.values())

    def begin(self, parts: Sequence[slice], _new: int) -> list[Any]:
        """The caches of the rows of each micro-batch, for a forward."""
        if len(parts) != len(self._parts):
            whole = self.whole
            self._parts = [whole] if len(parts) == 1 else [_selected(whole, rows) for rows in parts]
        return self._parts

    def end(self, parts: Sequence[Any], _new: int) -> None:
        """Take in what a forward made of the caches that `begin` gave."""
        self._parts = list(parts)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        whole = self.whole
        self._parts = [None]
        if rows and whole is not None:
            at = torch.tensor(rows)
            self._parts = [
                _combined(
                    [whole], lambda tensors, rows: tensors[0].index_select(rows, at.to(tensors[0].device))
                )
            ]


def _selected(cache: Any, rows: slice) -> Any:
    """A copy with these rows; None where there are none."""
    if cache is None or rows.start >= rows.stop:
        return None
    return _combined(
        [cache], lambda tensors, along: tensors[0].narrow(along, rows.start, rows.stop - rows.start).clone()
    )


def _combined(
    values: Sequence[Any], combine: Callable[[list[torch.Tensor], int], torch.Tensor], rows: int = 0
) -> Any:
    """The caches as one, made of their tensors.

    Tensors lie in a cache's layers, there also in lists and by name: keys, values, indices, recurrent states.

    Args:
        values: the caches, or what stands at one place of each.
        combine: makes a tensor of several, which have the sequences along the given dimension.
        rows: that dimension.
    """
    first = values[0]
    if isinstance(first, torch.Tensor):
        return combine(list(values), rows) if first.dim() else first
    if isinstance(first, dict):
        return {
            key: _combined([value[key] for value in values], combine, _ROWS_ALONG.get(key, rows))
            for key in first
        }
    if isinstance(first, list):
        return [_combined(several, combine, rows) for several in zip(*values, strict=True)]
    if isinstance(first, CACHE_CLASSES):
        whole = copy.copy(first)
        vars(whole).update(_combined([vars(value) for value in values], combine))
        return whole
    return first


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All of a cache's tensors."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)
    elif isinstance(value, CACHE_CLASSES):
        yield from _tensors(vars(value))
