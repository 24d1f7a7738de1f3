"""Keys and values of blocks of tokens, kept beside the caches of sequences, for prompts that begin as others did.

A block is one row of numbers, all layers behind each other, so that blocks come and go by themselves. They are copied
out of a sequence's cache when they are whole, and into a newcomer's before its first forward.

Shapes: P rows of a batch, H heads, C columns, W values of a head, N blocks, B tokens of a block, X values of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer


def recording_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache whose windows keep all columns of a forward, until `forget_past`."""
    cache = DynamicCache(config=config)
    for layer in _windows(cache.layers):
        layer.activate_past_recording()
    return cache


def forget_past(layers: Iterable[Any]) -> None:
    """Let windows keep what the next token sees, and no more."""
    for layer in _windows(layers):
        if layer.is_initialized:
            layer.crop(0)


@dataclass(frozen=True)
class _Part:
    """Where in a block one layer's keys or values are."""

    layer: int
    name: str
    heads: int
    values: int
    begin: int
    end: int


class BlockStore:
    """The blocks of one rank.

    Args:
        config: of the model.
        block_tokens: tokens of a block.
    """

    def __init__(self, config: PreTrainedConfig, block_tokens: int) -> None:
        self._config = config
        self._block_tokens = block_tokens
        self._blocks: dict[int, torch.Tensor] = {}
        self._parts: list[_Part] = []

    def __contains__(self, block: int) -> bool:
        """Whether a block is kept."""
        return block in self._blocks

    @property
    def token_bytes(self) -> int:
        """Memory of one token; 0 while none was ever kept."""
        return next((block.nbytes for block in self._blocks.values()), 0) // self._block_tokens

    @property
    def size_bytes(self) -> int:
        """Memory of all blocks."""
        return self.token_bytes * self._block_tokens * len(self._blocks)

    def forget(self, blocks: Iterable[int]) -> None:
        """Drop blocks, as far as they are kept."""
        for block in blocks:
            self._blocks.pop(block, None)

    def keep(self, layers: Sequence[Any], row: int, cached: int, first: int, blocks: Sequence[int]) -> None:
        """Copy neighbouring blocks of one sequence.

        Args:
            layers: of the cache that has it.
            row: of it.
            cached: its tokens there; the newest is in the last column.
            first: place of the first block in the sequence.
            blocks: their ids.
        """
        size = self._block_tokens
        begin = cached - first * size
        self._parts = self._parts or _parts_of(layers, size)
        rows_NX = torch.cat(
            [
                _cut(getattr(layers[part.layer], part.name)[row], begin, len(blocks), size)
                for part in self._parts
            ],
            dim=1,
        )
        # A row of its own for each, so that its memory goes when it goes.
        self._blocks |= {block: row_X.clone() for block, row_X in zip(blocks, rows_NX, strict=True)}

    def cache(self, rows: Sequence[tuple[Sequence[int], int]]) -> DynamicCache:
        """A cache of sequences that begin with kept blocks.

        Args:
            rows: of each, its blocks and how many of their tokens; the longest has one at least.
        """
        cache = recording_cache(self._config)
        columns = max(tokens for _, tokens in rows)
        blocks_NX = [torch.stack([self._blocks[block] for block in blocks]) for blocks, _ in rows if blocks]
        found: dict[tuple[int, str], torch.Tensor] = {}
        for part in self._parts:
            like = blocks_NX[0]
            states_PHCW = like.new_zeros(len(rows), part.heads, columns, part.values)
            rest = iter(blocks_NX)
            for row, (blocks, tokens) in enumerate(rows):
                if blocks:
                    states_PHCW[row, :, columns - tokens :] = _laid_out(next(rest), part)[:, :tokens]
            found[part.layer, part.name] = states_PHCW
        for number in {part.layer for part in self._parts}:
            cache.update(found[number, "keys"], found[number, "values"], number)
        forget_past(cache.layers)
        return cache


def _windows(layers: Iterable[Any]) -> list[DynamicSlidingWindowLayer]:
    return [layer for layer in layers if type(layer) is DynamicSlidingWindowLayer]


def _parts_of(layers: Sequence[Any], block_tokens: int) -> list[_Part]:
    """A block's layout: layers that share another's keys and values have none of their own."""
    parts: list[_Part] = []
    for number, layer in enumerate(layers):
        for name in ("keys", "values"):
            states = getattr(layer, name, None)
            if isinstance(states, torch.Tensor) and states.numel():
                _, heads, _, values = states.shape
                begin = parts[-1].end if parts else 0
                end = begin + heads * block_tokens * values
                parts.append(_Part(number, name, heads, values, begin, end))
    return parts


def _cut(states_HCW: torch.Tensor, begin: int, blocks: int, block_tokens: int) -> torch.Tensor:
    """The values (N, X) of blocks that begin so many columns before the last one's end."""
    heads, columns, values = states_HCW.shape
    first = columns - begin
    of_blocks = states_HCW[:, first : first + blocks * block_tokens]
    return of_blocks.reshape(heads, blocks, block_tokens * values).transpose(0, 1).reshape(blocks, -1)


def _laid_out(blocks_NX: torch.Tensor, part: _Part) -> torch.Tensor:
    """One layer's keys or values (H, C, W) of blocks in order."""
    of_part_NX = blocks_NX[:, part.begin : part.end]
    return of_part_NX.reshape(len(blocks_NX), part.heads, -1, part.values).transpose(0, 1).flatten(1, 2)
