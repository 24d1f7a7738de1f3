"""One group of ranks that serves: its homes, the KV cache they have left, the requests they hold, its steps.

All homes of a group step together: they meet at every MoE layer. A home is where a request's KV cache lives: a
rank, or a set of tensor-parallel ranks. A group that prefills and decodes reserves KV cache as requests grow, and puts
some back where a home's outgrow it, as `Ledger` does; one that only decodes reserves it whole.

Shapes: H homes, N requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.schedule.batching import Admission, BatchLimits, reserved_kv_tokens
from wingspan.schedule.prefix_cache import BLOCK_TOKENS, PrefixCache
from wingspan.schedule.prompts import Piece, PromptQueue
from wingspan.schedule.step_load import StepLoad
from wingspan.simulate.serving.decoding import DecodingRows
from wingspan.simulate.serving.times import StepTimes
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
        self,
        spec: GroupSpec,
        kv_tokens_N: NDArray[np.int64],
        shared: Requests | None = None,
        *,
        grows: bool = True,
    ) -> None:
        """Nothing is held yet.

        Args:
            spec: the group.
            kv_tokens_N: KV cache that each request may come to need here, in tokens.
            shared: requests with blocks, whose common beginnings are computed once; None: all is computed.
            grows: reserve KV cache as a request grows; otherwise all that it may need, from admission to release.
        """
        largest = int(kv_tokens_N.max())
        if largest > spec.kv_tokens_per_home:
            raise InputError(
                f"serving, {spec.name} group: a request needs {largest} tokens of KV cache, a home has room for "
                f"{spec.kv_tokens_per_home}; shorten the requests, or give the deployment more memory for KV"
            )
        self.spec = spec
        self.rows = DecodingRows(spec.homes)
        """The sequences that decode."""
        self.steps = 0
        """Steps so far; one that runs counts."""
        self.preemptions = 0
        """How often a request was put back, to be computed again."""
        self.cached_tokens = 0
        """Tokens of prompts that were found computed."""
        self._busy_seconds = 0.0  # the step that runs counts whole
        self._step_end = 0.0
        self._kv_tokens_N = kv_tokens_N
        self._grows = grows
        self._put_back: dict[int, tuple[int, int]] = {}
        """Requests to be computed again: the tokens that they have, and those that they will still get."""
        self._prefilled_now: list[int] | None = None  # set while a step runs
        self._prefilled_on: list[int] = []  # the homes that compute prompts in it
        self._blocks = None if shared is None else shared.blocks
        caches = (
            []
            if self._blocks is None
            else [PrefixCache(spec.kv_tokens_per_home, self._blocks.tokens) for _ in range(spec.homes)]
        )
        self._admission = Admission(spec.limits, spec.homes, caches)
        self._queues = [PromptQueue(cache=caches[home] if caches else None) for home in range(spec.homes)]
        self._prefilling: dict[int, None] = {}  # homes with prompts, in the order in which they got one

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

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and there is nothing to be done."""
        return not (self.stepping or self.waiting or self._prefilling or self.rows)

    def home_of(self, request: int) -> int:
        """The home of a request that this group holds."""
        return self._admission.home_of(request)

    def submit(self, request: int, tokens: int, *, prompt_tokens: int = 0) -> None:
        """Let a request of so many tokens wait for a home, on which so much of its prompt is to be computed."""
        self._admission.submit(
            request,
            self._reserved(request, tokens),
            prompt_tokens=prompt_tokens,
            blocks=self._blocks_of(request, prompt_tokens),
        )

    def admit(self) -> list[int]:
        """Those who get a home now; see `Admission`. First those are put back who have no room any more."""
        if not self.stepping:
            for request, home in self._admission.preempt():
                self._give_up(request, home)
        return self._admission.admit()

    def release(self, request: int) -> None:
        """Free what a request reserved; blocks of its prompt stay as far as there is room."""
        self._admission.release(request)

    def start_prefill(self, request: int, prompt_tokens: int) -> None:
        """From the next step on, an admitted request's prompt is computed, behind those before it on its home.

        Of one that was put back, all tokens that it had.
        """
        home = self.home_of(request)
        tokens, _ = self._put_back.get(request, (prompt_tokens, 0))
        self._queues[home].add(request, tokens, self._blocks_of(request, prompt_tokens))
        self._prefilling[home] = None

    def _blocks_of(self, request: int, prompt_tokens: int) -> tuple[int, ...]:
        """The blocks of a prompt that another may find computed; none where nobody looks for them."""
        return () if self._blocks is None else self._blocks.reusable(request, prompt_tokens)

    def start_decoding(self, request: int, context_tokens: int, left_tokens: int) -> None:
        """From the next step on, a held request decodes: `left_tokens` of them until its last token."""
        self.rows.add(request, self.home_of(request), context_tokens, left_tokens)
        self._grow(request)

    def begin_step(self, now: float, horizon: float) -> float | None:
        """Start the next step and return when it ends; None where there is nothing to do.

        Steps in which nothing can change are taken in one go: decode steps up to the first that gives a request
        its last token, or that ends at or after `horizon`, the time of the next event elsewhere.
        """
        if not self._prefilling and not self.rows:
            return None
        self._prefilled_now = []
        if self._prefilling:
            end = now + self._begin_prefill_step(self._prefilled_now)
            self.steps += 1
        else:
            before = self.rows.steps
            end = self._begin_decode_steps(now, horizon)
            self.steps += self.rows.steps - before
        self._busy_seconds += end - now
        self._step_end = end
        return end

    def end_step(self) -> StepOutcome:
        """Close the step that ran: who has a first token now, who the last. Those finished are released."""
        computed, self._prefilled_now = self._prefilled_now or [], None
        for home in self._prefilled_on:
            self._queues[home].end_step()
        self._prefilled_on = []
        finished = self.rows.take_ended()
        for request in self.rows.take_filled() if self._grows else ():
            self._grow(request)
        prefilled = []
        for request in computed:
            if request not in self._put_back:
                prefilled.append(request)
                continue
            tokens, left = self._put_back.pop(request)
            if left > 1:
                self.start_decoding(request, tokens + 1, left - 1)
            else:
                finished.append(request)
        for request in finished:
            self.release(request)
        return StepOutcome(prefilled, finished)

    def _reserved(self, request: int, tokens: int) -> int:
        most = int(self._kv_tokens_N[request])
        return reserved_kv_tokens(tokens, most) if self._grows else most

    def _grow(self, request: int) -> None:
        """Reserve for a sequence what it needs now."""
        self._admission.grow(request, self._reserved(request, self.rows.tokens_of(request)))

    def _give_up(self, request: int, home: int) -> None:
        """Forget what was computed of a request that was put back."""
        self.preemptions += 1
        if request in self.rows:
            self._put_back[request] = self.rows.tokens_of(request), self.rows.left_of(request)
            self.rows.remove(request)
        elif home in self._prefilling:
            self._queues[home].withdraw(request)
            if not self._queues[home]:
                del self._prefilling[home]

    def _begin_decode_steps(self, now: float, horizon: float) -> float:
        rows, times = self.rows, self.spec.times
        fullest, mean = int(rows.rows_H.max()), len(rows) / self.spec.homes
        context = rows.context_tokens / len(rows)
        steps = rows.steps_to_last() if times.alike else 1
        if self._may_outgrow(steps):
            steps = min(steps, rows.steps_to_fill())
        if steps > 1 and horizon < np.inf:
            first = float(times.decode_seconds(fullest, mean, np.array([context]))[0])
            steps = min(steps, int(min((horizon - now) / first, steps)) + 1) if first > 0 else steps
        ends = now + np.cumsum(
            times.decode_seconds(fullest, mean, context + np.arange(steps, dtype=np.float64))
        )
        steps = min(steps, int(np.searchsorted(ends, horizon)) + 1)
        rows.advance(steps)
        return float(ends[steps - 1])

    def _may_outgrow(self, steps: int) -> bool:
        """Whether in so many steps a home's sequences could come to reserve more than it has."""
        blocks = -(-steps // BLOCK_TOKENS)
        return self._grows and bool(
            (self.rows.rows_H * blocks * BLOCK_TOKENS > self._admission.room_H()).any()
        )

    def _begin_prefill_step(self, completed: list[int]) -> float:
        self._prefilled_on = list(self._prefilling)
        prompts = {home: self._prefill_on(home) for home in self._prefilled_on}
        completed += [piece.request for pieces in prompts.values() for piece in pieces if piece.is_last]
        rows = self.rows
        seconds = self.spec.times.seconds(StepLoad(tuple(rows.rows_H.tolist()), rows.context_tokens, prompts))
        if rows:
            rows.advance(1)
        return seconds

    def _prefill_on(self, home: int) -> list[Piece]:
        """Take the next chunk of a home's prompts."""
        pieces = self._queues[home].take(self.spec.tokens_per_step - int(self.rows.rows_H[home]))
        for piece in pieces:
            self._admission.computes(piece)
            self.cached_tokens += piece.cached
        if not self._queues[home]:
            del self._prefilling[home]
        return pieces
