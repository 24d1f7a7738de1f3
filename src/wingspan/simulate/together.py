"""Groups that prefill and decode together: each step decodes every sequence and computes pieces of new prompts.

A mixed step is priced as the serving simulator prices it (`simulate/serving/times.py`): a prefill step of all its
tokens, and what the decoded ones read beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.simulate.search import with_workload
from wingspan.simulate.service import Offer, ServiceGoal, decode_group
from wingspan.simulate.serving.deployed import Caps, kv_tokens_per_home, seconds_per_pair
from wingspan.simulate.serving.times import apart_seconds, step_seconds
from wingspan.specs.engines import profile_of
from wingspan.specs.placement import Placement

Array = NDArray[np.float64]

MOST_SEQUENCES = 1024
"""Largest batch tried, as where groups decode alone."""


class DeploymentTimes:
    """`StepTimes` of one deployment, each step asked for by `price`.

    Args:
        deployment: everything but phase, batch and context.
        goal: how long requests are.
        price: seconds of a deployment's step.
        exact: price every number of tokens itself; else powers of two, and between them on a line.
    """

    def __init__(
        self, deployment: Deployment, goal: ServiceGoal, price: Callable[[Deployment], float], *, exact: bool
    ) -> None:
        self._deployment, self._goal, self._price, self.exact = deployment, goal, price, exact
        caps = Caps(1, 1, goal.held_context, goal.held_context)
        self._per_pair = seconds_per_pair(deployment, caps)
        self._prefill: dict[int, float] = {}
        self._decode: dict[tuple[int, int], float] = {}

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        """See `StepTimes`; all homes are alike."""
        del mean_sequences
        sequences = max(1, round(fullest_sequences))
        return np.array([self._decoding(sequences, max(1, round(context))) for context in contexts_P])

    def prefill_seconds(self, fullest_tokens: float, mean_tokens: float, attended_tokens: float) -> float:
        """See `StepTimes`; a chunk is priced as whole prompts of its length, and the pairs that it has beyond."""
        del mean_tokens
        tokens = max(1.0, fullest_tokens)
        if self.exact:
            base = self._prompts(round(tokens))
        else:
            low = 2 ** math.floor(math.log2(tokens))
            share = tokens / low - 1
            base = self._prompts(low) + (share and share * (self._prompts(2 * low) - self._prompts(low)))
        more = max(0.0, attended_tokens - min(tokens, self._goal.prompt_tokens) / 2)
        return base + self._per_pair * tokens * more

    def _decoding(self, sequences: int, context: int) -> float:
        key = (sequences, context)
        if key not in self._decode:
            self._decode[key] = self._price(_step(self._deployment, "decode", sequences, context))
        return self._decode[key]

    def _prompts(self, tokens: int) -> float:
        if tokens not in self._prefill:
            prompt = min(tokens, self._goal.prompt_tokens)
            self._prefill[tokens] = self._price(_step(self._deployment, "prefill", tokens, prompt))
        return self._prefill[tokens]


@dataclass(frozen=True, eq=False)
class Together:
    """One deployment that does both, at any batch.

    Args:
        deployment: everything but phase, batch and context.
        placement: its placement, or one that holds as much on each rank.
        goal: the requests.
        gpus: all GPUs; as many groups as they hold.
        times: of its steps.
    """

    deployment: Deployment
    placement: Placement
    goal: ServiceGoal
    gpus: int
    times: DeploymentTimes

    def at(self, sequences: int) -> list[Offer]:
        """So many sequences per GPU, with their prompts in pieces of each size; a size without room is left out.

        Every sequence that ends brings a prompt, so `share` prompt tokens come with each step. Pieces of that size
        are in every step; with larger ones fewer steps are mixed and longer, and a prompt is done in fewer.
        """
        goal = self.goal
        share = sequences * goal.prompt_tokens / goal.decode_steps
        offers = []
        for piece in _pieces(share, goal.prompt_tokens):
            free = self._room(sequences, math.ceil(piece)) - sequences * goal.held_context
            if free < 0:
                continue
            decode = float(
                self.times.decode_seconds(sequences, sequences, np.array([float(goal.mean_context)]))[0]
            )
            mixed = self._mixed_seconds(sequences, piece)
            mean = decode + share / piece * (mixed - decode)
            ttft = mixed * (1 + math.ceil(goal.prompt_tokens / piece))
            step = _step(self.deployment, "decode", sequences, goal.mean_context)
            group = decode_group(
                step,
                mean,
                self._held_bytes(free),
                goal,
                decoding_seconds=decode,
                estimated=not self.times.exact,
            )
            count = self.gpus // self.deployment.ranks
            chunk = math.ceil(piece)
            tpot = goal.seconds_per_token(mean)
            offers.append(Offer(goal, self.gpus, group, count, ttft, tpot, chunk_tokens=chunk))
        return offers

    def best(self, offers: Sequence[Offer]) -> Offer | None:
        """The best that keeps the limits; None where none does."""
        return max((offer for offer in offers if offer.meets), key=lambda offer: offer.order, default=None)

    def search(self, hint: int = 0) -> Offer | None:
        """The largest batch that fits and keeps the limits, or a smaller one on the way to it that is better.

        Args:
            hint: a batch at which another way keeps the limits. Where this one fits but is too slow at it, it is
                the worse way, and nothing is found.
        """
        found, low, high = None, 0, MOST_SEQUENCES + 1
        batch = hint or 32
        while high - low > 1:
            offers = self.at(batch)
            if offer := self.best(offers):
                found, low = _better(found, offer), batch
            elif offers and batch == hint:
                return None
            else:
                high = batch
            batch = (low + high) // 2 if high <= MOST_SEQUENCES else min(2 * low, MOST_SEQUENCES)
        return found

    def _mixed_seconds(self, sequences: int, piece: float) -> float:
        """A step that computes a piece of a prompt on each home and decodes beside it."""
        context, attended = self.goal.mean_context, self.goal.prompt_tokens / 2
        alone, both = (float(sequences),) * 2, (sequences + piece,) * 2
        if profile_of(self.deployment.options.engine).prompts_apart:
            return apart_seconds(self.times, alone, context, (piece, piece), attended)
        return step_seconds(self.times, alone, context, both, attended)

    def _caps(self, sequences: int, piece: int) -> Caps:
        held = self.goal.held_context
        return Caps(sequences, sequences + piece, held, held)

    def _room(self, sequences: int, piece: int) -> int:
        """Tokens of cache per GPU that fit beside everything else; 0: none."""
        try:
            tokens = kv_tokens_per_home(
                self.deployment,
                self._caps(sequences, piece),
                decodes=True,
                prefills=True,
                placement=self.placement,
            )
        except InputError:
            return 0
        return tokens // self.deployment.options.attention_ranks

    @cached_property
    def _cached_bytes_per_token(self) -> float:
        return self.goal.cached_bytes_per_token(self.deployment)

    def _held_bytes(self, free_tokens: int) -> float:
        """Capacity less the cache that would still fit."""
        return self.deployment.cluster.gpu.memory_bytes - free_tokens * self._cached_bytes_per_token


def _better(one: Offer | None, two: Offer | None) -> Offer | None:
    return max((o for o in (one, two) if o), key=lambda offer: offer.order, default=None)


def _pieces(share: float, prompt: int) -> Iterator[float]:
    """The least size of a piece, and each fourfold one up to a whole prompt."""
    size = share
    while size < prompt:
        yield size
        size *= 4
    yield max(share, float(prompt))


def _step(deployment: Deployment, phase: str, tokens_per_gpu: int, context: int) -> Deployment:
    lengths = deployment.workload.context.model_copy(update={"mean_tokens": context})
    return with_workload(deployment, phase=phase, tokens_per_gpu=tokens_per_gpu, context=lengths)
