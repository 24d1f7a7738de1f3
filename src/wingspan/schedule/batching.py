"""The batching policy of serving: who is admitted, and where a request lives; `prompts.py` says what a step computes.

One policy for both executors, as `schedule.py` is one order of operations: the serving simulator asks it over predicted
steps, the runtime over real ones. It has no clock; what happened is told to it.

A *home* holds requests' KV caches: a rank, or a set of tensor-parallel ranks. All homes step together.

Shapes: H homes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.schedule.prefix_cache import BLOCK_TOKENS, PrefixCache
from wingspan.schedule.prompts import Piece


@dataclass(frozen=True)
class BatchLimits:
    """What a home may hold, and compute in one step.

    Args:
        kv_tokens_per_home: tokens of KV cache that it has room for.
        sequences_per_home: requests that it holds at a time.
        tokens_per_step: tokens that it computes in a step, those that decode included.

    Raises:
        InputError: a number below 1, or a budget that decoding alone could use up.
    """

    kv_tokens_per_home: int
    sequences_per_home: int
    tokens_per_step: int

    def __post_init__(self) -> None:
        for field in ("kv_tokens_per_home", "sequences_per_home", "tokens_per_step"):
            if (value := getattr(self, field)) < 1:
                raise InputError(f"{field} is {value}; it must be at least 1")
        if self.tokens_per_step <= self.sequences_per_home:
            raise InputError(
                f"a step of {self.tokens_per_step} tokens leaves none for prefill beside {self.sequences_per_home} "
                "decoding sequences; raise the token budget or lower the sequences"
            )


@dataclass(frozen=True)
class _Waiting:
    request: int
    kv_tokens: int
    home: int | None
    prompt_tokens: int
    blocks: Sequence[int]


@dataclass
class _Held:
    home: int
    waited: _Waiting
    """What it waited with; its `kv_tokens` are those it reserves now."""
    left_tokens: int
    """Tokens of its prompt that are not computed yet."""


def reserved_kv_tokens(tokens: int, most_tokens: int) -> int:
    """The KV cache that a request of so many tokens reserves: whole blocks, and never more than it may come to need.

    So a step rarely changes what is reserved.
    """
    return min(most_tokens, (tokens // BLOCK_TOKENS + 1) * BLOCK_TOKENS)


UNLIMITED = BatchLimits(kv_tokens_per_home=2**62, sequences_per_home=2**61, tokens_per_step=2**62)
"""Everybody is admitted at once, and every prompt computed in one step."""


class Admission:
    """Who is let in, and where: first come first served, to the home that holds least and has least to compute.

    Requests wait in one queue for all homes, and are given one when there is room: moving who waits costs nothing. A
    home's load is the tokens that its requests reserve, and once more those of their prompts that are not computed
    yet: all homes wait for the fullest, and prompts before another delay its first token. (The router of NVIDIA Dynamo
    adds blocks to prefill and blocks held alike: docs.nvidia.com/dynamo/design-docs/router-design.) Nobody overtakes
    one that does not fit yet.

    With prefix caching, what a home holds of the newcomer's beginning counts against its load there: it goes where it
    began before, unless that home is busier by more than it saves.

    A request may reserve its whole KV cache, prompt and answer, from admission to release. Or it reserves what it
    has, and more as it grows (`grow`); where a home's requests outgrow it, those admitted last give way (`preempt`) and
    are the first to be admitted again.

    Args:
        limits: of each home.
        homes: how many there are.
        caches: which beginnings each home holds; none: that is not asked.
    """

    def __init__(self, limits: BatchLimits, homes: int, caches: Sequence[PrefixCache] = ()) -> None:
        self.peak_kv_tokens = 0
        """The most that was ever reserved on a home."""
        self._limits = limits
        self._caches = caches
        self._waiting: deque[_Waiting] = deque()
        self._held: dict[int, _Held] = {}  # by request, in order of admission
        self._reserved_H = np.zeros(homes, dtype=np.int64)
        self._left_H = np.zeros(homes, dtype=np.int64)
        self._held_H = np.zeros(homes, dtype=np.int64)
        self._blocked = False  # the first that waits does not fit, and nothing was released since

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def waiting(self) -> list[int]:
        """Requests that wait, in order."""
        return [waiting.request for waiting in self._waiting]

    def home_of(self, request: int) -> int:
        """The home of a request that was admitted."""
        return self._held[request].home

    def holds(self, request: int) -> bool:
        """Whether a request has a home."""
        return request in self._held

    def submit(
        self,
        request: int,
        kv_tokens: int,
        home: int | None = None,
        *,
        prompt_tokens: int = 0,
        blocks: Sequence[int] = (),
    ) -> None:
        """Let a request wait.

        Args:
            request: its number.
            kv_tokens: what it reserves; at most what a home has.
            home: the only one it may live on; None: any.
            prompt_tokens: that are to be computed there.
            blocks: of the prompt, as caches know them, before its last token.
        """
        self._waiting.append(_Waiting(request, kv_tokens, home, prompt_tokens, blocks))

    def admit(self) -> list[int]:
        """Give those who wait a home, in order, as long as the first has room on one."""
        admitted = []
        while self._waiting and not self._blocked:
            home = self._home_for(self._waiting[0])
            self._blocked = home is None
            if home is not None:
                first = self._waiting.popleft()
                left = first.prompt_tokens - self._enter(home, first)
                self._held[first.request] = _Held(home, first, left)
                self._held_H[home] += 1
                self._left_H[home] += left
                self._reserve(home, first.kv_tokens)
                self.peak_kv_tokens = max(self.peak_kv_tokens, int(self._reserved_H[home]))
                admitted.append(first.request)
        return admitted

    def computes(self, piece: Piece) -> None:
        """A step computes this of an admitted request's prompt, so it is no load any more."""
        held = self._held[piece.request]
        self._left_H[held.home] += piece.left - held.left_tokens
        held.left_tokens = piece.left

    def release(self, request: int) -> None:
        """Free what an admitted request reserved."""
        held = self._held.pop(request)
        self._held_H[held.home] -= 1
        self._left_H[held.home] -= held.left_tokens
        self._reserve(held.home, -held.waited.kv_tokens)
        if self._caches:
            self._caches[held.home].leave(request)
        self._blocked = False

    def grow(self, request: int, kv_tokens: int) -> None:
        """Let an admitted request reserve so much from now on, even if its home has less; `preempt` mends that.

        Args:
            request: its number.
            kv_tokens: in all, at most what a home has.
        """
        held = self._held[request]
        if kv_tokens != held.waited.kv_tokens:
            self._reserve(held.home, kv_tokens - held.waited.kv_tokens)
            held.waited = replace(held.waited, kv_tokens=kv_tokens)

    def room_H(self) -> NDArray[np.int64]:
        """The KV cache of each home that nobody reserves, in tokens; below 0 where requests outgrew it."""
        return self._limits.kv_tokens_per_home - self._reserved_H

    def preempt(self) -> list[tuple[int, int]]:
        """Put back who was admitted last, as long as a home's requests reserve more than it has.

        Returns:
            Those requests, each with the home that it had. They wait before all others, in their order of admission.
        """
        gone = []
        for request, held in reversed(list(self._held.items())) if (self.room_H() < 0).any() else ():
            if self._reserved_H[held.home] > self._limits.kv_tokens_per_home:
                self.release(request)
                # All that it has is to be computed again.
                self._waiting.appendleft(replace(held.waited, prompt_tokens=held.waited.kv_tokens))
                gone.append((request, held.home))
        self.peak_kv_tokens = max(self.peak_kv_tokens, int(self._reserved_H.max()))
        return gone

    def withdraw(self, request: int) -> None:
        """Forget a request that waits."""
        self._waiting = deque(w for w in self._waiting if w.request != request)
        self._blocked = False

    def _home_for(self, waiting: _Waiting) -> int | None:
        limits = self._limits
        fits_H = (self._reserved_H + waiting.kv_tokens <= limits.kv_tokens_per_home) & (
            self._held_H < limits.sequences_per_home
        )
        if waiting.home is not None:
            fits_H &= np.arange(len(fits_H)) == waiting.home
        load_H = self._reserved_H + self._left_H - self._cached_H(waiting)
        home = int(np.where(fits_H, load_H, np.iinfo(np.int64).max).argmin())
        return home if fits_H[home] else None

    def _cached_H(self, waiting: _Waiting) -> NDArray[np.int64]:
        """Tokens of its prompt that each home holds."""
        if not self._caches:
            return np.zeros_like(self._reserved_H)
        return np.array([cache.held(waiting.blocks) * cache.block_tokens for cache in self._caches])

    def _enter(self, home: int, waiting: _Waiting) -> int:
        """Keep what a home holds of a prompt, before room is made for the rest; returns its tokens."""
        if not self._caches:
            return 0
        cache = self._caches[home]
        return cache.enter(waiting.request, waiting.blocks) * cache.block_tokens

    def _reserve(self, home: int, kv_tokens: int) -> None:
        self._reserved_H[home] += kv_tokens
        if self._caches:
            self._caches[home].reserve(kv_tokens)
