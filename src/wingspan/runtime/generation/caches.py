"""The caches of a batch's sequences, cut and joined by rows: keys and values, recurrent and convolution states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from wingspan.runtime.generation.micro_batches import split_rows
from wingspan.runtime.model.padding import CACHE_CLASSES


class Caches:
    """The KV caches of a batch's sequences, one per micro-batch; they follow a change of the schedule between steps."""

    def __init__(self) -> None:
        self.parts: list[Any] = [None]

    def regroup(self, parts: int, rows: int) -> None:
        """Make it `parts` caches of `rows` sequences in all."""
        if parts == len(self.parts):
            return
        if all(part is None for part in self.parts):
            self.parts = [None] * parts
        elif parts == 1:
            self.parts = [_joined(self.parts, split_rows(rows, len(self.parts)))]
        else:
            self.parts = [_selected(self.parts[0], part) for part in split_rows(rows, parts)]

    @property
    def size_bytes(self) -> int:
        """Memory of all of them."""
        tensors = {t.data_ptr(): t.nbytes for part in self.parts for t in _tensors(part)}
        return sum(tensors.values())


def _selected(cache: Any, rows: slice) -> Any:
    """A copy with these rows; with any one row where they are none, as padding stands for it."""
    kept = rows if rows.start < rows.stop else slice(0, 1)
    return _combined([cache], lambda tensors: tensors[0][kept].clone())


def _joined(parts: Sequence[Any], rows: Sequence[slice]) -> Any:
    """One cache with the sequences of all; those that only stand for an empty part are left out."""
    held = [part for part, of_part in zip(parts, rows, strict=True) if of_part.start < of_part.stop]
    return _combined(held or parts[:1], torch.cat)


def _combined(values: Sequence[Any], combine: Callable[[list[torch.Tensor]], torch.Tensor]) -> Any:
    """The caches as one, made of their tensors, all of which have the sequences along dimension 0.

    Tensors lie in a cache's layers, there also in lists and by name: keys, values, indices, recurrent states.
    """
    first = values[0]
    if isinstance(first, torch.Tensor):
        return combine(list(values)) if first.dim() else first
    if isinstance(first, dict):
        return {key: _combined([value[key] for value in values], combine) for key in first}
    if isinstance(first, list):
        return [_combined(several, combine) for several in zip(*values, strict=True)]
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
