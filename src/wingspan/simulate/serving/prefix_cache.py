"""Prefix caching on one home: blocks of prompts stay in the KV room that requests leave, the longest unused go first.

A block's id says all that comes before it too, so prompts share exactly the ids that they begin with.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Blocks whose KV cache a home holds: those of its requests, and of gone ones as far as there is room.

    A request reserves room for all that it has, so blocks that it shares with another are counted for both.

    Args:
        kv_tokens: room of the home.
        block_tokens: tokens of a block.
    """

    def __init__(self, kv_tokens: int, block_tokens: int) -> None:
        self._kv_tokens = kv_tokens
        self._block_tokens = block_tokens
        self._reserved_tokens = 0
        self._used: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()  # longest unused first

    def __contains__(self, block: int) -> bool:
        """Whether a block's KV cache is held."""
        return block in self._used or block in self._idle

    @property
    def idle_tokens(self) -> int:
        """Tokens held that belong to no request."""
        return len(self._idle) * self._block_tokens

    def enter(self, blocks: Sequence[int], kv_tokens: int) -> int:
        """Admit a request that reserves `kv_tokens`; returns how many of its first blocks are held, and keeps them."""
        held = next((n for n, block in enumerate(blocks) if block not in self), len(blocks))
        self._use(blocks[:held])
        self._reserved_tokens += kv_tokens
        self._make_room()
        return held

    def reserve(self, more_tokens: int) -> None:
        """A request reserves so many tokens more."""
        self._reserved_tokens += more_tokens
        self._make_room()

    def computed(self, blocks: Sequence[int], held: int) -> None:
        """The prompt is computed: its blocks behind the `held` first are there for others from now on."""
        self._use(blocks[held:])

    def leave(self, blocks: Sequence[int], kv_tokens: int) -> None:
        """Release a request whose prompt was computed; what nobody else uses stays while there is room."""
        self._reserved_tokens -= kv_tokens
        # The last block first: it is of least use without those before it.
        for block in reversed(blocks):
            self._used[block] -= 1
            if not self._used[block]:
                del self._used[block]
                self._idle[block] = None
        self._make_room()

    def _use(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._idle.pop(block, None)
            self._used[block] += 1

    def _make_room(self) -> None:
        while self.idle_tokens > self._kv_tokens - self._reserved_tokens:
            self._idle.popitem(last=False)
