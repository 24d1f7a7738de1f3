"""The caches of a batch's sequences, cut and joined by rows: keys and values, recurrent and convolution states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from wingspan.runtime.generation.micro_batches import split_rows
from wingspan.runtime.model.padding import CACHE_CLASSES


class Caches:
    """The KV caches of a batch's sequences, one per micro-batch; None where that has no sequence, or no cache yet."""

    def __init__(self) -> None:
        self.parts: list[Any] = [None]

    def regroup(self, parts: int, rows: int) -> None:
        """Make it `parts` caches of `rows` sequences in all."""
        if parts == len(self.parts):
            return
        whole = self._whole()
        if parts == 1 or whole is None:
            self.parts = [whole] * parts
        else:
            self.parts = [_selected(whole, part) for part in split_rows(rows, parts)]

    def keep(self, rows: Sequence[int], columns: int, columns_then: int) -> None:
        """Keep these rows, in this order.

        Args:
            rows: some of all.
            columns: of the cache.
            columns_then: how many of them, the last, are still needed.
        """
        whole = self._whole()
        self.parts = [None]
        if rows and whole is not None:
            at = torch.tensor(rows)
            narrow = _with_columns(whole, columns, columns_then)
            self.parts = [_combined([narrow], lambda tensors: tensors[0][at.to(tensors[0].device)])]

    def join(self, other: Caches, columns: int, other_columns: int) -> None:
        """Take in the rows of another, behind those held.

        Args:
            other: caches of layers that mask padding (`padding_is_neutral`).
            columns: of this one.
            other_columns: of the other.
        """
        most = max(columns, other_columns)
        held = [
            _with_columns(whole, before, most)
            for whole, before in ((self._whole(), columns), (other._whole(), other_columns))
            if whole is not None
        ]
        self.parts = [_combined(held, torch.cat) if held else None]

    @property
    def size_bytes(self) -> int:
        """Memory of all of them."""
        tensors = {t.data_ptr(): t.nbytes for part in self.parts for t in _tensors(part)}
        return sum(tensors.values())

    def _whole(self) -> Any:
        held = [part for part in self.parts if part is not None]
        return _combined(held, torch.cat) if len(held) > 1 else held[0] if held else None


def _selected(cache: Any, rows: slice) -> Any:
    """A copy with these rows; None where there are none."""
    if rows.start >= rows.stop:
        return None
    return _combined([cache], lambda tensors: tensors[0][rows].clone())


def _with_columns(cache: Any, columns: int, columns_then: int) -> Any:
    """The cache with columns more, of padding, or fewer on the left, where a layer keeps any."""
    if columns == columns_then:
        return cache
    moved = copy.copy(cache)
    moved.layers = [_layer_with_columns(layer, columns_then - columns) for layer in cache.layers]
    return moved


def _layer_with_columns(layer: Any, more: int) -> Any:
    keys = getattr(layer, "keys", None)
    if not isinstance(layer, DynamicLayer) or not isinstance(keys, torch.Tensor) or not keys.numel():
        return layer
    moved = copy.copy(layer)
    kept = keys.shape[-2] + more
    if isinstance(layer, DynamicSlidingWindowLayer):
        # It counts all columns and keeps those that the next token may still see.
        moved.cumulative_length += more
        kept = min(moved.cumulative_length, layer.sliding_window - 1)
    moved.keys, moved.values = (_last_columns(tensor, kept) for tensor in (keys, layer.values))
    return moved


def _last_columns(tensor_PHCD: Any, columns: int) -> Any:
    """The last columns, and padding before them where there are fewer."""
    there = tensor_PHCD.shape[-2]
    if there < columns:
        return pad(tensor_PHCD, (0, 0, columns - there, 0))
    return tensor_PHCD[..., there - columns :, :]


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
