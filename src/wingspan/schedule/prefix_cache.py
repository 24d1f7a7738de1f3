"""Prefix caching on one home: blocks of tokens stay in the KV room that requests leave, the longest unused go first.

A block's id says all that comes before it too, so sequences share exactly the ids that they begin with.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

BLOCK_TOKENS = 16
"""Tokens of a block where nothing else is said; vLLM's default too."""


class PrefixCache:
    """Blocks whose KV cache a home holds: those of its requests, and of gone ones as far as there is room.

    A request reserves room for its KV cache, so blocks that it shares with another are counted for both.

    Args:
        kv_tokens: room of the home.
        block_tokens: tokens of a block.
    """

    def __init__(self, kv_tokens: int, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._kv_tokens = kv_tokens
        self._most_idle_tokens = kv_tokens
        self._reserved_tokens = 0
        self._of_request: dict[int, list[int]] = {}
        self._used: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()  # longest unused first
        self._forgotten: list[int] = []

    def __contains__(self, block: int) -> bool:
        """Whether a block's KV cache is held."""
        return block in self._used or block in self._idle

    @property
    def idle_tokens(self) -> int:
        """Tokens held that belong to no request."""
        return len(self._idle) * self.block_tokens

    def held(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's first blocks are held."""
        return next((n for n, block in enumerate(blocks) if block not in self), len(blocks))

    def reserve(self, kv_tokens: int) -> None:
        """Let requests have so much more of the room; below 0: less."""
        self._reserved_tokens += kv_tokens
        self._make_room()

    def limit_idle(self, tokens: int) -> None:
        """Hold no more than so many tokens that belong to no request, whatever the room."""
        self._most_idle_tokens = tokens
        self._make_room()

    def enter(self, request: int, blocks: Sequence[int]) -> int:
        """Keep for a request what is held of its beginning, again as often as there may be more; returns how many."""
        held = self.held(blocks)
        self.computed(request, blocks[len(self._of_request.get(request, ())) : held])
        return held

    def computed(self, request: int, blocks: Sequence[int]) -> None:
        """A request's next blocks are computed, and there for others from now on."""
        self._of_request.setdefault(request, []).extend(blocks)
        for block in blocks:
            self._idle.pop(block, None)
            self._used[block] += 1

    def leave(self, request: int) -> None:
        """Release a request; what nobody else uses stays while there is room."""
        # The last block first: it is of least use without those before it.
        for block in reversed(self._of_request.pop(request, [])):
            self._used[block] -= 1
            if not self._used[block]:
                del self._used[block]
                self._idle[block] = None
        self._make_room()

    def take_forgotten(self) -> list[int]:
        """The blocks that went since this was last asked; some of them may have come back."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _make_room(self) -> None:
        room = min(self._most_idle_tokens, self._kv_tokens - self._reserved_tokens)
        while self._idle and self.idle_tokens > room:
            self._forgotten.append(self._idle.popitem(last=False)[0])


def chained_blocks(ids: Sequence[int], block_tokens: int, known: Sequence[int] = ()) -> list[int]:
    """The ids of all whole blocks of some tokens: equal where the tokens and all before them are.

    Args:
        ids: the tokens.
        block_tokens: of a block.
        known: the first of the blocks, if they are at hand.
    """
    blocks = list(known)
    for begin in range(len(blocks) * block_tokens, len(ids) - block_tokens + 1, block_tokens):
        before = blocks[-1].to_bytes(16) if blocks else b""
        tokens = array("q", ids[begin : begin + block_tokens]).tobytes()
        # Other tokens under the same id would give a request another's text: no short, guessable hash.
        blocks.append(int.from_bytes(blake2b(before + tokens, digest_size=16).digest()))
    return blocks
