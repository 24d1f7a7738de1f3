"""Who is being served, where, and how far: the same on every rank, so all ranks decide the same without a word.

A step has two lanes: prompts that are computed, and sequences that decode. In each, a rank's sequences make groups,
one forward of the model each; all ranks take part in as many forwards as the rank with the most groups has.

Shapes: R ranks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from wingspan.errors import InputError
from wingspan.runtime.generation.requests import Request
from wingspan.schedule.batching import Admission, BatchLimits, reserved_kv_tokens
from wingspan.schedule.prefix_cache import PrefixCache, chained_blocks
from wingspan.schedule.prompts import Piece, PromptQueue
from wingspan.schedule.rebalance_result import RebalanceEvent
from wingspan.schedule.step_load import StepLoad, forwards_of

FinishReason = Literal["stop", "length", "drained"]
"""An end token, the most tokens, or an engine that admits nobody any more."""

_TOGETHER = -1
"""The only decoding group of a rank whose sequences of any length go together."""


@dataclass
class Continuation:
    """A request and its new tokens so far."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    begun: bool = False
    """It was admitted once, though it may have been put back since."""
    _blocks: list[int] = field(default_factory=list)

    def blocks(self, block_tokens: int) -> list[int]:
        """Its whole blocks of tokens, as a prefix cache knows them; none where all of its prompt is to be computed."""
        if (
            block_tokens
            and not self.request.prompt_logprobs
            and self.position // block_tokens > len(self._blocks)
        ):
            self._blocks = chained_blocks(self.ids, block_tokens, self._blocks)
        return self._blocks

    @property
    def kv_tokens(self) -> int:
        """The KV cache to reserve for it now."""
        return reserved_kv_tokens(self.position, self.request.kv_tokens)

    @property
    def ids(self) -> list[int]:
        """All tokens, prompt and answer."""
        return [*self.request.ids, *self.tokens]

    @property
    def position(self) -> int:
        """Position of the next token."""
        return len(self.request.ids) + len(self.tokens)

    @property
    def left(self) -> int:
        """The most tokens to come."""
        return self.request.length.max_new_tokens - len(self.tokens)


@dataclass(frozen=True)
class RankPlan:
    """One rank's part of a step: the groups of each lane, a forward each."""

    prefill: tuple[tuple[Piece, ...], ...] = ()
    decode: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(group, its requests), every one of which gets its next token."""

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens in this step."""
        return sum(piece.tokens for group in self.prefill for piece in group)

    @property
    def decode_rows(self) -> int:
        """Sequences that decode."""
        return sum(len(numbers) for _, numbers in self.decode)

    @property
    def sampled(self) -> list[int]:
        """Requests that get a token in this step, in the order in which it is chosen."""
        prompts = [piece.request for group in self.prefill for piece in group if piece.is_last]
        return prompts + [number for _, numbers in self.decode for number in numbers]

    def wanting_logprobs(self, held: Mapping[int, Continuation]) -> list[int]:
        """Requests of which this step finds probabilities: of their new tokens, or of their prompts."""
        prompts = [piece.request for group in self.prefill for piece in group]
        return [n for n in self.sampled if held[n].request.logprobs is not None] + [
            n for n in prompts if held[n].request.prompt_logprobs
        ]


@dataclass(frozen=True)
class StepPlan:
    """One step of all ranks."""

    ranks: tuple[RankPlan, ...]
    preempted: tuple[int, ...] = ()
    """Requests whose caches are given up, to make room; they will be computed again."""
    cached: Mapping[int, int] = field(default_factory=dict)
    """Requests of which nothing was computed before, and how many tokens of their prompts their ranks hold."""

    context_tokens: int = 0
    """Tokens of all sequences that decode."""

    @property
    def load(self) -> StepLoad:
        """What the ranks compute."""
        prompts = {
            rank: [piece for group in part.prefill for piece in group]
            for rank, part in enumerate(self.ranks)
            if part.prefill
        }
        return StepLoad(tuple(part.decode_rows for part in self.ranks), self.context_tokens, prompts)

    @property
    def prefill_forwards(self) -> int:
        """In which every rank takes part."""
        return max(len(rank.prefill) for rank in self.ranks)

    @property
    def decode_forwards(self) -> int:
        """In which every rank takes part."""
        return max(len(rank.decode) for rank in self.ranks)


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token was, and which others were likeliest, before anything was changed in the logits."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class PromptLogprobs:
    """Those of some of a prompt's tokens, of which the first stands at `begin` of the prompt."""

    begin: int
    tokens: tuple[TokenLogprobs, ...]


@dataclass(frozen=True)
class StepResult:
    """What a step gave: the new token of each request that got one, and those that ended with it.

    On rank 0 alone: `logprobs`, of the requests that want them, those of what was computed of their prompts, and what
    `balancing` decided and did meanwhile.
    """

    tokens: dict[int, int] = field(default_factory=dict)
    finished: dict[int, FinishReason] = field(default_factory=dict)
    load: StepLoad | None = None
    """What the ranks computed; None: nothing."""
    preempted: int = 0
    """Requests that were put back before it, because the rank's caches had outgrown their room."""
    cached: Mapping[int, int] = field(default_factory=dict)
    """With prefix caching, by request that began: tokens of its prompt that were found computed."""
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    prompt_logprobs: dict[int, PromptLogprobs] = field(default_factory=dict)
    balancing: list[RebalanceEvent] = field(default_factory=list)


class Ledger:
    """Every rank holds one, and tells it the same.

    Args:
        ranks: of the group; each is a home.
        limits: of each rank.
        eos_ids: the model's end-of-text tokens.
        together: sequences of any length may share a forward; otherwise only those that began together, alike.
        in_pieces: a prompt may be computed in several steps.
        block_tokens: what sequences share is found again in blocks of so many tokens; 0: it is not.
    """

    def __init__(
        self,
        ranks: int,
        limits: BatchLimits,
        eos_ids: Collection[int],
        *,
        together: bool,
        in_pieces: bool,
        block_tokens: int = 0,
    ) -> None:
        self.held: dict[int, Continuation] = {}
        """Every request that is not finished."""
        self.draining = False
        """Nobody is admitted any more."""
        self._limits = limits
        self._eos_ids = frozenset(eos_ids)
        self._together = together
        self.block_tokens = block_tokens
        self._caches = [
            PrefixCache(limits.kv_tokens_per_home, block_tokens) for _ in range(ranks if block_tokens else 0)
        ]
        self._admission = Admission(limits, ranks, self._caches)
        self._queues = [
            PromptQueue(in_pieces=in_pieces, cache=self._caches[rank] if self._caches else None)
            for rank in range(ranks)
        ]
        self._decoding: list[dict[int, list[int]]] = [{} for _ in range(ranks)]
        self._groups = 0

    @property
    def steps_left(self) -> int:
        """At least so many steps will follow if no sequence ends before its time."""
        return max((continuation.left for continuation in self.held.values()), default=0)

    def submit(self, request: Request) -> None:
        """Let a request wait for a home.

        Raises:
            InputError: no rank ever has room for it, or its number is taken.
        """
        if request.number in self.held:
            raise InputError(f"request {request.number} is being served already; number requests differently")
        request.check_fits(self._limits)
        self.held[request.number] = Continuation(request)
        if not self.draining:
            continuation = self.held[request.number]
            reusable = (len(request.ids) - 1) // self.block_tokens if self.block_tokens else 0
            self._admission.submit(
                request.number,
                continuation.kv_tokens,
                request.home_rank,
                prompt_tokens=len(request.ids),
                blocks=continuation.blocks(self.block_tokens)[:reusable],
            )

    def withdraw(self, number: int) -> None:
        """Forget a request, wherever it stands; one that is not held is gone already."""
        if self.held.pop(number, None) is None:
            return
        self._admission.withdraw(number)
        if self._admission.holds(number):
            home = self._admission.home_of(number)
            self._queues[home].withdraw(number)
            self._admission.release(number)
            self._leave(home, number)

    def decoding(self, rank: int) -> dict[int, list[int]]:
        """A rank's decoding groups, and the requests of each in order."""
        return self._decoding[rank]

    def plan(self) -> StepPlan:
        """Decide the next step: make room, admit, and say what every rank computes.

        Who is put back begins again with all tokens so far as the prompt; as a draw depends on its position only, its
        answer goes on as it would have.
        """
        preempted = self._admission.preempt()
        for number, home in preempted:
            self._queues[home].withdraw(number)
            self._leave(home, number)
        for number in self._admission.admit():
            continuation = self.held[number]
            continuation.begun = True
            blocks = continuation.blocks(self.block_tokens)
            self._queues[self._admission.home_of(number)].add(number, continuation.position, blocks)
        plans = tuple(self._rank_plan(rank) for rank in range(len(self._queues)))
        decoding = [number for part in plans for _, numbers in part.decode for number in numbers]
        context_tokens = sum(self.held[number].position for number in decoding)
        gone = tuple(number for number, _ in preempted)
        return StepPlan(plans, gone, self._cached(plans), context_tokens)

    def computed(self, plan: StepPlan) -> None:
        """A step's forwards are done: what they computed is there for others from now on."""
        for queue in self._queues:
            queue.end_step()
        if not self.block_tokens:
            return
        for cache, part in zip(self._caches, plan.ranks, strict=True):
            for number in (number for _, numbers in part.decode for number in numbers):
                if self.held[number].position % self.block_tokens == 0:
                    cache.computed(number, self.blocks(number)[-1:])

    def blocks(self, number: int) -> list[int]:
        """The whole blocks of a request's tokens."""
        return self.held[number].blocks(self.block_tokens)

    def take_forgotten(self, rank: int) -> list[int]:
        """The blocks that a rank may have held, and need not hold any more."""
        return [cache.take_forgotten() for cache in self._caches][rank]

    def limit_idle(self, tokens: int) -> None:
        """Let every rank hold blocks of no more than so many tokens beside those of its sequences."""
        for cache in self._caches:
            cache.limit_idle(tokens)

    def commit(self, plan: StepPlan, tokens_R: Sequence[Sequence[int]], *, drain: bool) -> StepResult:
        """Take in what a step gave.

        Args:
            plan: of the step.
            tokens_R: of every rank the chosen tokens, in the order of `RankPlan.sampled`.
            drain: from now on nobody is admitted; those that wait are finished.
        """
        result = StepResult(load=plan.load, preempted=len(plan.preempted), cached=plan.cached)
        for rank, (part, tokens) in enumerate(zip(plan.ranks, tokens_R, strict=True)):
            for group in part.prefill:
                self._begin_decoding(rank, [piece.request for piece in group if piece.is_last])
            for number, token in zip(part.sampled, tokens, strict=True):
                self.held[number].tokens.append(token)
                result.tokens[number] = token
                reason = self._finish_reason(self.held[number], token)
                if reason is not None:
                    self._finish(rank, number)
                    result.finished[number] = reason
                else:
                    self._admission.grow(number, self.held[number].kv_tokens)
        if drain:
            self.draining = True
            for number in [number for number, continuation in self.held.items() if not continuation.begun]:
                self.withdraw(number)
                result.finished[number] = "drained"
        return result

    def _rank_plan(self, rank: int) -> RankPlan:
        decode = tuple((group, tuple(numbers)) for group, numbers in self._decoding[rank].items())
        rows = sum(len(numbers) for _, numbers in decode)
        pieces = self._queues[rank].take(self._limits.tokens_per_step - rows)
        for piece in pieces:
            self._admission.computes(piece)
        return RankPlan(tuple(forwards_of(pieces, together=self._together)), decode)

    def _cached(self, plans: Sequence[RankPlan]) -> dict[int, int]:
        if not self.block_tokens:
            return {}
        first = (p for rank in plans for group in rank.prefill for p in group if p.begin == p.cached)
        return {piece.request: piece.cached for piece in first if not self.held[piece.request].tokens}

    def _begin_decoding(self, rank: int, numbers: list[int]) -> None:
        if numbers:
            self._groups += 1
            group = _TOGETHER if self._together else self._groups
            self._decoding[rank].setdefault(group, []).extend(numbers)

    def _finish_reason(self, continuation: Continuation, token: int) -> FinishReason | None:
        length = continuation.request.length
        if token in length.end_ids or (token in self._eos_ids and not length.ignore_eos):
            return "stop"
        return None if continuation.left else "length"

    def _finish(self, rank: int, number: int) -> None:
        del self.held[number]
        self._admission.release(number)
        self._leave(rank, number)

    def _leave(self, rank: int, number: int) -> None:
        groups = self._decoding[rank]
        for group, numbers in list(groups.items()):
            if number in numbers:
                numbers.remove(number)
            if not numbers:
                del groups[group]
