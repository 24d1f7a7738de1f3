"""The prompts of one home, and what of them a step computes: in pieces, first come first served, and each once.

With prefix caching a prompt begins behind what its home holds of it. One whose beginning is just being computed for
another waits until it is there, and lets those behind it pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wingspan.schedule.prefix_cache import PrefixCache


@dataclass(frozen=True)
class Piece:
    """What a step computes of one prompt: `tokens` of it, from `begin` on."""

    request: int
    begin: int
    tokens: int
    left: int = 0
    """Tokens of the prompt behind it."""
    cached: int = 0
    """Tokens before the prompt's first piece: its home had them."""

    @property
    def is_last(self) -> bool:
        """Whether the prompt ends with it."""
        return not self.left

    @property
    def attended_pairs(self) -> float:
        """Pairs of tokens that its attention computes; each token attends to those before it and to itself."""
        return self.tokens * (self.begin + (self.tokens + 1) / 2)


@dataclass(frozen=True)
class _Prompt:
    """What is left of one, and the blocks of all of it."""

    request: int
    begin: int
    left: int
    blocks: Sequence[int]
    begun: bool = False


class PromptQueue:
    """The prompts of one home that are being computed.

    Args:
        in_pieces: a prompt may be cut where a step's budget ends; otherwise it is computed in one step, one that
            exceeds the budget alone.
        cache: what the home holds; None: every prompt is computed from its first token.
    """

    def __init__(self, *, in_pieces: bool = True, cache: PrefixCache | None = None) -> None:
        self._in_pieces = in_pieces
        self._cache = cache
        self._prompts: deque[_Prompt] = deque()
        self._taken: list[tuple[Piece, Sequence[int]]] = []  # with its prompt's blocks

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, request: int, prompt_tokens: int, blocks: Sequence[int] = ()) -> None:
        """Compute a prompt, behind those before it.

        Args:
            request: whose it is.
            prompt_tokens: all of it.
            blocks: its whole blocks, as the cache knows them.
        """
        self._prompts.append(_Prompt(request, 0, prompt_tokens, blocks))

    def take(self, budget_tokens: int) -> list[Piece]:
        """What the next step computes: so many tokens, as far as there are prompts."""
        pieces: list[Piece] = []
        later: list[_Prompt] = []
        computing: set[int] = set()
        while self._prompts and budget_tokens > 0:
            first = self._prompts[0]
            if not self._in_pieces and first.left > budget_tokens and pieces:
                break
            self._prompts.popleft()
            if self._waits(first, computing):
                later.append(first)
                continue
            prompt = self._begun(first)
            tokens = min(prompt.left, budget_tokens) if self._in_pieces else prompt.left
            cached = 0 if first.begun else prompt.begin
            piece = Piece(prompt.request, prompt.begin, tokens, prompt.left - tokens, cached)
            budget_tokens -= tokens
            pieces.append(piece)
            if piece.left:
                later.append(replace(prompt, begin=prompt.begin + tokens, left=piece.left))
            if self._cache is not None:
                computing.update(prompt.blocks)
                self._taken.append((piece, prompt.blocks))
        self._prompts.extendleft(reversed(later))
        return pieces

    def end_step(self) -> None:
        """What was taken is computed; its blocks are there for others from now on."""
        for piece, blocks in self._taken:
            if self._cache is not None:
                size = self._cache.block_tokens
                end = piece.begin + piece.tokens
                self._cache.computed(piece.request, blocks[piece.begin // size : end // size])
        self._taken = []

    def withdraw(self, request: int) -> None:
        """Forget a prompt, or what is left of it."""
        self._prompts = deque(prompt for prompt in self._prompts if prompt.request != request)

    def _begun(self, prompt: _Prompt) -> _Prompt:
        """The prompt from the first token on that has to be computed."""
        if prompt.begun or self._cache is None:
            return replace(prompt, begun=True)
        held = self._cache.enter(prompt.request, _reusable(prompt, self._cache.block_tokens))
        cached = held * self._cache.block_tokens
        return replace(prompt, begin=cached, left=prompt.left - cached, begun=True)

    def _waits(self, prompt: _Prompt, computing: set[int]) -> bool:
        """Whether at least half of what it would compute is being computed for others in this step.

        SGLang's scheduler puts such requests last too ("in-batch prefix caching"), from 32 tokens on.
        """
        if prompt.begun or self._cache is None or not computing:
            return False
        blocks, size = _reusable(prompt, self._cache.block_tokens), self._cache.block_tokens
        held = self._cache.held(blocks)
        end = next((n for n in range(held, len(blocks)) if blocks[n] not in computing), len(blocks))
        return 2 * (end - held) * size >= prompt.left - held * size


def _reusable(prompt: _Prompt, block_tokens: int) -> Sequence[int]:
    """The blocks that need not be computed: those before the last token, whose output is needed."""
    return prompt.blocks[: (prompt.left - 1) // block_tokens]
