"""Prefix caching on one rank: the blocks of tokens that its ledger says it holds, and batches that begin with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache

from wingspan.runtime.generation.batches import Batch, SlotBatch
from wingspan.runtime.generation.caches import Caches
from wingspan.runtime.generation.ledger import Ledger, RankPlan
from wingspan.runtime.generation.prefix_blocks import BlockStore, forget_past, recording_cache
from wingspan.schedule.prompts import Piece


class Prefixes:
    """Follows the ledger: keeps what it says is held, and forgets the rest.

    Args:
        ledger: with blocks.
        rank: whose blocks these are.
        config: of the model.
        most_bytes: memory for blocks that belong to no sequence.
    """

    def __init__(self, ledger: Ledger, rank: int, config: PreTrainedConfig, most_bytes: int) -> None:
        self._ledger = ledger
        self._rank = rank
        self._config = config
        self._most_bytes = most_bytes
        self._limited = False
        self._size = ledger.block_tokens
        self._kept = BlockStore(config, self._size)

    @property
    def token_bytes(self) -> int:
        """Memory of a token of a block, as far as this rank knows; 0: it does not."""
        return self._kept.token_bytes

    @property
    def size_bytes(self) -> int:
        """Memory of all blocks."""
        return self._kept.size_bytes

    def limit(self, token_bytes: int) -> None:
        """Hold no more than there is memory for, once a rank knows how much a token takes; the same on all ranks."""
        if token_bytes and not self._limited:
            self._limited = True
            self._ledger.limit_idle(self._most_bytes // token_bytes)

    def new_cache(self) -> DynamicCache:
        """What a prompt is computed into, so that its blocks can be kept."""
        return recording_cache(self._config)

    def forget(self) -> None:
        """Drop what the ledger dropped."""
        self._kept.forget(self._ledger.take_forgotten(self._rank))

    def batch(self, pieces: Sequence[Piece]) -> Batch:
        """Where prompts live of which the rank holds a beginning.

        One forward takes equally many new tokens of each, so what one has less than another is computed again.
        """
        new = max(piece.tokens for piece in pieces)
        cached_P = [max(0, piece.begin + piece.tokens - new) for piece in pieces]
        batch = Batch([piece.request for piece in pieces])
        if any(cached_P):
            rows = [
                (self._ledger.blocks(piece.request)[: -(-cached // self._size)], cached)
                for piece, cached in zip(pieces, cached_P, strict=True)
            ]
            batch.caches, batch.cached_P = Caches(self._kept.cache(rows)), cached_P
        return batch

    def keep(self, mine: RankPlan, batches: Iterable[Batch | SlotBatch]) -> None:
        """Copy the blocks that became whole in a step.

        Args:
            mine: what the step computed on this rank.
            batches: all that have sequences of it.
        """
        begins = {piece.request: piece.begin for group in mine.prefill for piece in group}
        decoded = {number for _, numbers in mine.decode for number in numbers}
        for batch in batches:
            computed = [
                (row, cached, begins.get(number, cached - 1))
                for row, (number, cached) in enumerate(zip(batch.numbers, batch.cached_P, strict=True))
                if number in begins or (number in decoded and cached % self._size == 0)
            ]
            if computed:
                self._keep_rows(batch, computed)

    def _keep_rows(self, batch: Batch | SlotBatch, computed: Sequence[tuple[int, int, int]]) -> None:
        """Those of (row, tokens in the cache, of which so many were there before the step)."""
        layers = batch.caches.layers
        for row, cached, begin in computed:
            first, end = begin // self._size, cached // self._size
            blocks = self._ledger.blocks(batch.numbers[row])[first:end]
            if not all(block in self._kept for block in blocks):
                self._kept.keep(layers, row, cached, first, blocks)
        forget_past(layers)
