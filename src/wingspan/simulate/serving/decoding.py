"""Who decodes in a group: every step gives each a token, until its last. Steps are counted, not walked one by one.

Shapes: H homes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from wingspan.schedule.prefix_cache import BLOCK_TOKENS


@dataclass(frozen=True)
class _Row:
    home: int
    began: int
    """Decode steps that there were before."""
    tokens: int
    """That it had then."""
    last: int
    """The decode step that gives it its last token."""


class DecodingRows:
    """The sequences that decode, and what they hold."""

    def __init__(self, homes: int) -> None:
        self.steps = 0
        """Decode steps so far."""
        self.decoded_tokens = 0
        """Tokens that these steps gave."""
        self.rows_H = np.zeros(homes, dtype=np.int64)
        """Sequences of each home."""
        self.context_tokens = 0
        """Tokens of all sequences."""
        self._rows: dict[int, _Row] = {}
        # Heaps of (decode step, request, its `began`); entries of rows that have gone meanwhile are passed over.
        self._lasts: list[tuple[int, int, int]] = []
        self._fills: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, request: int) -> bool:
        return request in self._rows

    def tokens_of(self, request: int) -> int:
        """The tokens that a sequence has."""
        row = self._rows[request]
        return row.tokens + self.steps - row.began

    def left_of(self, request: int) -> int:
        """The tokens that it will still get."""
        return self._rows[request].last - self.steps

    def add(self, request: int, home: int, tokens: int, left_tokens: int) -> None:
        """From the next step on, a sequence of so many tokens gets so many more."""
        self._rows[request] = _Row(home, self.steps, tokens, self.steps + left_tokens)
        self.rows_H[home] += 1
        self.context_tokens += tokens
        heapq.heappush(self._lasts, (self.steps + left_tokens, request, self.steps))
        self._await_fill(request)

    def remove(self, request: int) -> None:
        """It gets no more tokens."""
        self.context_tokens -= self.tokens_of(request)
        self.rows_H[self._rows.pop(request).home] -= 1

    def advance(self, steps: int) -> None:
        """So many steps give every sequence a token."""
        self.steps += steps
        self.decoded_tokens += steps * len(self)
        self.context_tokens += steps * len(self)

    def steps_to_last(self) -> int:
        """Steps until a sequence gets its last token; there is a sequence."""
        while not self._is_there(*self._lasts[0][1:]):
            heapq.heappop(self._lasts)
        return self._lasts[0][0] - self.steps

    def steps_to_fill(self) -> int:
        """Steps until a sequence fills a block of tokens; there is a sequence."""
        while not self._is_there(*self._fills[0][1:]):
            heapq.heappop(self._fills)
        return self._fills[0][0] - self.steps

    def take_ended(self) -> list[int]:
        """Those that have their last token; they leave."""
        ended = self._due(self._lasts)
        for request in ended:
            self.remove(request)
        return ended

    def take_filled(self) -> list[int]:
        """Those that filled a block of tokens since this was asked last."""
        filled = self._due(self._fills)
        for request in filled:
            self._await_fill(request)
        return filled

    def _await_fill(self, request: int) -> None:
        left = BLOCK_TOKENS - self.tokens_of(request) % BLOCK_TOKENS
        heapq.heappush(self._fills, (self.steps + left, request, self._rows[request].began))

    def _due(self, heap: list[tuple[int, int, int]]) -> list[int]:
        due = []
        while heap and heap[0][0] <= self.steps:
            _, request, began = heapq.heappop(heap)
            if self._is_there(request, began):
                due.append(request)
        return due

    def _is_there(self, request: int, began: int) -> bool:
        row = self._rows.get(request)
        return row is not None and row.began == began
