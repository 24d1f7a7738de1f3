"""One group of ranks that serves: its homes, the KV cache they have left, the requests they hold, its steps.

All homes of a group step together: they meet at every MoE layer. A home is where a request's KV cache lives: a
rank, or a set of tensor-parallel ranks.

Shapes: H homes, N requests.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.schedule.batching import Admission, BatchLimits, PromptQueue
from wingspan.simulate.serving.prefix_cache import PrefixCache
from wingspan.simulate.serving.times import StepTimes, step_seconds
from wingspan.specs.requests import Requests


@dataclass(frozen=True)
class GroupSpec:
    """What a group may hold and do, and how long its steps take. Fields as in `ServingGroup`.

    Raises:
        InputError: a number below 1, or a budget that decoding alone could use up.
    """

    name: str
    times: StepTimes
    ranks: int
    homes: int
    kv_tokens_per_home: int
    sequences_per_home: int
    tokens_per_step: int

    def __post_init__(self) -> None:
        for field in ("ranks", "homes"):
            if (value := getattr(self, field)) < 1:
                raise InputError(f"serving, {self.name} group: {field} is {value}; it must be at least 1")
        try:
            _ = self.limits
        except InputError as error:
            raise InputError(f"serving, {self.name} group: {error}") from None

    @property
    def limits(self) -> BatchLimits:
        """What the batching policy asks of a home."""
        return BatchLimits(self.kv_tokens_per_home, self.sequences_per_home, self.tokens_per_step)


@dataclass(frozen=True)
class StepOutcome:
    """Requests whose prompt a step completed (their first token is there), and those that got their last."""

    prefilled: list[int]
    finished: list[int]


class GroupState:
    """The state of one group while time goes on. Times are given to it; it has no clock."""

    def __init__(
        self, spec: GroupSpec, kv_tokens_N: NDArray[np.int64], shared: Requests | None = None
    ) -> None:
        """Nothing is held yet.

        Args:
            spec: the group.
            kv_tokens_N: KV cache that each request reserves here, in tokens, from admission to release.
            shared: requests with blocks, whose common beginnings are computed once; None: all is computed.
        """
        largest = int(kv_tokens_N.max())
        if largest > spec.kv_tokens_per_home:
            raise InputError(
                f"serving, {spec.name} group: a request needs {largest} tokens of KV cache, a home has room for "
                f"{spec.kv_tokens_per_home}; shorten the requests, or give the deployment more memory for KV"
            )
        self.spec = spec
        self._busy_seconds = 0.0  # the step that runs counts whole
        self._step_end = 0.0
        self.decode_steps = 0
        self.decoded_tokens = 0
        self._kv_tokens_N = kv_tokens_N
        self._admission = Admission(spec.limits, spec.homes)
        self._decoding_H = np.zeros(spec.homes, dtype=np.int64)
        self._prompts: dict[int, PromptQueue] = {}
        self._finishes: list[
            tuple[int, int, int]
        ] = []  # heap of (decode step of the last token, request, context)
        self._decoding = 0
        self._context_tokens = 0  # over all decoding sequences
        self._prefilled_now: list[int] | None = None  # set while a step runs
        self.cached_tokens = 0
        self._caches: list[PrefixCache] = []
        self._blocks: dict[
            int, tuple[tuple[int, ...], int]
        ] = {}  # of admitted requests, and how many were held
        self._shared = shared
        if shared is not None and shared.blocks is not None:
            self._caches = [
                PrefixCache(spec.kv_tokens_per_home, shared.blocks.tokens) for _ in range(spec.homes)
            ]

    @property
    def waiting(self) -> int:
        """Requests that wait for a home."""
        return len(self._admission)

    @property
    def peak_kv_tokens(self) -> int:
        """The most KV cache that was ever reserved on a home."""
        return self._admission.peak_kv_tokens

    def busy_seconds_until(self, now: float) -> float:
        """Seconds in which a step ran."""
        return self._busy_seconds - max(0.0, self._step_end - now)

    @property
    def stepping(self) -> bool:
        """Whether a step runs."""
        return self._prefilled_now is not None

    def home_of(self, request: int) -> int:
        """The home of a request that this group holds."""
        return self._admission.home_of(request)

    def submit(self, request: int, prompt_tokens: int = 0) -> None:
        """Let a request wait for a home, on which so much of its prompt is to be computed."""
        self._admission.submit(request, int(self._kv_tokens_N[request]), prompt_tokens=prompt_tokens)

    def admit(self) -> list[int]:
        """Those who get a home now; see `Admission`."""
        return self._admission.admit()

    def release(self, request: int) -> None:
        """Free what a request reserved; blocks of its prompt stay as far as there is room."""
        if request in self._blocks:
            blocks, _ = self._blocks.pop(request)
            self._caches[self.home_of(request)].leave(blocks, int(self._kv_tokens_N[request]))
        self._admission.release(request)

    def start_prefill(self, request: int, prompt_tokens: int) -> None:
        """From the next step on, an admitted request's prompt is computed, behind those before it on its home."""
        home = self.home_of(request)
        cached = self._cached_tokens(request, home, prompt_tokens)
        self.cached_tokens += cached
        self._prompts.setdefault(home, PromptQueue()).add(request, prompt_tokens, cached)

    def _cached_tokens(self, request: int, home: int, prompt_tokens: int) -> int:
        """Tokens at the beginning of an admitted request's prompt whose KV cache its home holds already."""
        if not self._caches or self._shared is None or self._shared.blocks is None:
            return 0
        blocks = self._shared.blocks.reusable(request, prompt_tokens)
        held = self._caches[home].enter(blocks, int(self._kv_tokens_N[request]))
        self._blocks[request] = blocks, held
        return held * self._shared.blocks.tokens

    def start_decoding(self, request: int, context_tokens: int, left_tokens: int) -> None:
        """From the next step on, a held request decodes: `left_tokens` of them until its last token."""
        self._decoding_H[self.home_of(request)] += 1
        self._decoding += 1
        self._context_tokens += context_tokens
        last = (self.decode_steps + left_tokens, request, context_tokens + left_tokens)
        heapq.heappush(self._finishes, last)

    def begin_step(self, now: float, horizon: float) -> float | None:
        """Start the next step and return when it ends; None where there is nothing to do.

        Steps in which nothing can change are taken in one go: decode steps up to the first that gives a request
        its last token, or that ends at or after `horizon`, the time of the next event elsewhere.
        """
        if not self._prompts and not self._decoding:
            return None
        self._prefilled_now = []
        if self._prompts:
            end = now + self._begin_prefill_step(self._prefilled_now)
        else:
            end = self._begin_decode_steps(now, horizon)
        self._busy_seconds += end - now
        self._step_end = end
        return end

    def end_step(self) -> StepOutcome:
        """Close the step that ran: who has a first token now, who the last. Those finished are released."""
        prefilled, self._prefilled_now = self._prefilled_now or [], None
        for request in prefilled:
            if request in self._blocks:
                self._caches[self.home_of(request)].computed(*self._blocks[request])
        finished = []
        while self._finishes and self._finishes[0][0] <= self.decode_steps:
            _, request, context_tokens = heapq.heappop(self._finishes)
            self._decoding_H[self.home_of(request)] -= 1
            self._decoding -= 1
            self._context_tokens -= context_tokens
            self.release(request)
            finished.append(request)
        return StepOutcome(prefilled, finished)

    def _begin_decode_steps(self, now: float, horizon: float) -> float:
        fullest, mean = int(self._decoding_H.max()), self._decoding / self.spec.homes
        context = self._context_tokens / self._decoding
        times = self.spec.times
        steps = self._finishes[0][0] - self.decode_steps
        if steps > 1 and horizon < np.inf:
            first = float(times.decode_seconds(fullest, mean, np.array([context]))[0])
            steps = min(steps, int(min((horizon - now) / first, steps)) + 1) if first > 0 else steps
        ends = now + np.cumsum(
            times.decode_seconds(fullest, mean, context + np.arange(steps, dtype=np.float64))
        )
        steps = min(steps, int(np.searchsorted(ends, horizon)) + 1)
        self._count_decoding(steps)
        return float(ends[steps - 1])

    def _begin_prefill_step(self, completed: list[int]) -> float:
        decoding = (int(self._decoding_H.max()), self._decoding / self.spec.homes)
        context = self._context_tokens / self._decoding if self._decoding else 0.0
        chunk_tokens, attended = 0, 0.0
        fullest = decoding[0]
        for home in list(self._prompts):
            beside = int(self._decoding_H[home])
            tokens, pairs = self._prefill_on(home, self.spec.tokens_per_step - beside, completed)
            chunk_tokens += tokens
            attended += pairs
            fullest = max(fullest, beside + tokens)
        computing = (fullest, (self._decoding + chunk_tokens) / self.spec.homes)
        seconds = step_seconds(self.spec.times, decoding, context, computing, attended / chunk_tokens)
        if self._decoding:
            self._count_decoding(1)
        return seconds

    def _prefill_on(self, home: int, budget_tokens: int, completed: list[int]) -> tuple[int, float]:
        """Take the next chunk of a home's prompts: its tokens, and over how many pairs of tokens it attends."""
        prompts = self._prompts[home]
        pieces = prompts.take(budget_tokens)
        for piece in pieces:
            self._admission.computes(piece)
        completed += [piece.request for piece in pieces if piece.is_last]
        if not prompts:
            del self._prompts[home]
        return sum(piece.tokens for piece in pieces), sum(piece.attended_pairs for piece in pieces)

    def _count_decoding(self, steps: int) -> None:
        self.decode_steps += steps
        self.decoded_tokens += steps * self._decoding
        self._context_tokens += steps * self._decoding
