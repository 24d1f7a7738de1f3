"""Requests of a length on a number of GPUs: what groups of ranks serve of them, split by phase or together.

Steady state: whoever leaves is followed by the next, so every group is busy and nobody waits in a queue. What queues
and fluctuating lengths cost, `simulate/serving` shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT
from wingspan.simulate.serving.deployed import Caps, kv_transfer
from wingspan.simulate.serving.engine import KVTransfer


@dataclass(frozen=True)
class ServiceGoal:
    """Requests, and how soon their tokens must come.

    Args:
        prompt_tokens: of a request.
        output_tokens: of a request; the first comes with the prompt, each further one takes a decode step.
        ttft_seconds: limit on the time to the first token; None: any.
        tpot_seconds: limit on the time of each further one; None: any.
        tokens_per_step: that a decode step gives a sequence in the mean: more than one where tokens are tried ahead.

    Raises:
        InputError: a length or a limit that is none; one output token, which needs no decode.
    """

    prompt_tokens: int
    output_tokens: int
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
    tokens_per_step: float = 1.0

    def __post_init__(self) -> None:
        if self.held_context > MOST_CONTEXT:
            raise InputError(
                f"`prompt_tokens` {self.prompt_tokens:,} and `output_tokens` {self.output_tokens:,}: together more "
                f"than {MOST_CONTEXT:,}"
            )
        if self.output_tokens < 2:
            raise InputError(
                f"`output_tokens` {self.output_tokens}: the first token comes with the prompt, so nothing is decoded; "
                "plan prefill steps instead, or ask for 2 or more"
            )

    @property
    def decode_steps(self) -> float:
        """Steps between a request's first token and its last, in the mean."""
        return (self.output_tokens - 1) / self.tokens_per_step

    @property
    def mean_context(self) -> int:
        """Tokens cached of a decoding sequence in the mean, for what a step takes."""
        return self.prompt_tokens + self.output_tokens // 2

    @property
    def held_context(self) -> int:
        """Tokens whose cache a sequence may need, for what fits: nobody is preempted."""
        return self.prompt_tokens + self.output_tokens

    @property
    def prefill_step_seconds(self) -> float | None:
        """Longest step of a prefill group: a prompt waits for the one that runs, and takes its own."""
        return None if self.ttft_seconds is None else self.ttft_seconds / 2

    def longest_decode_step(self, transfer_seconds: float) -> float | None:
        """Longest step of a decode group that gets a prompt's cache in so many seconds; None: any."""
        if self.tpot_seconds is None:
            return None
        return max(self.tpot_seconds * self.tokens_per_step - transfer_seconds / self.decode_steps, 1e-9)

    def seconds_per_token(self, step_seconds: float, transfer_seconds: float = 0.0) -> float:
        """Time of each further token, where the cache of the prompt has to travel first."""
        return (step_seconds + transfer_seconds / self.decode_steps) / self.tokens_per_step

    def cached_bytes_per_token(self, deployment: Deployment) -> float:
        """Cache that one token takes on each rank that keeps a part of it."""
        return self._transfer(deployment).bytes_per_token * deployment.options.attention_ranks

    def transfer_seconds(self, deployment: Deployment) -> float:
        """A prompt's cache on its way to the group that decodes, as this one holds it."""
        return self._transfer(deployment).seconds(self.prompt_tokens)

    def _transfer(self, deployment: Deployment) -> KVTransfer:
        return kv_transfer(deployment, Caps(1, 1, self.held_context, self.held_context))


@dataclass(frozen=True, eq=False)
class PhaseGroup:
    """One group of ranks at its steady work.

    Args:
        deployment: its step, with the batch.
        step_seconds: of that step; of a group that does both, the mean over its steps.
        requests_per_second: what the group completes of its part, its prompts or its decoding.
        held_bytes: of the fullest rank, with each sequence's cache at its longest.
        transfer_seconds: a prompt's cache on its way to this group; 0 where it prefills itself.
        decoding_seconds: of a group that does both, its step without prompts; else None.
        estimated: from few layers; else the whole step is predicted.
    """

    deployment: Deployment
    step_seconds: float
    requests_per_second: float
    held_bytes: float
    transfer_seconds: float = 0.0
    decoding_seconds: float | None = None
    estimated: bool = False

    @property
    def ranks(self) -> int:
        """EP size."""
        return self.deployment.ranks

    @property
    def redundant(self) -> int:
        """Slots beyond the experts, in all of a layer."""
        return (
            self.deployment.placement.ranks * self.deployment.placement.experts_per_rank
            - self.deployment.model.experts.count
        )

    @property
    def total_sequences(self) -> int | None:
        """Prompts or sequences of a step, where they are fewer than GPUs; else None."""
        return self.deployment.workload.total_sequences

    @property
    def batch(self) -> int:
        """Tokens per GPU of a prefill step, sequences per GPU of a decode step; of the fullest GPU."""
        return self.deployment.workload.tokens_per_gpu


def prefill_group(
    deployment: Deployment,
    step_seconds: float,
    held_bytes: float,
    goal: ServiceGoal,
    *,
    estimated: bool = False,
) -> PhaseGroup:
    """A group that computes prompts and nothing else."""
    prompts = deployment.tokens / goal.prompt_tokens
    return PhaseGroup(deployment, step_seconds, prompts / step_seconds, held_bytes, estimated=estimated)


def decode_group(
    deployment: Deployment,
    step_seconds: float,
    held_bytes: float,
    goal: ServiceGoal,
    transfer_seconds: float = 0.0,
    *,
    decoding_seconds: float | None = None,
    estimated: bool = False,
) -> PhaseGroup:
    """A group that decodes; where it prefills too, with the mean step of both."""
    rate = deployment.gained_tokens / ((goal.output_tokens - 1) * step_seconds)
    return PhaseGroup(
        deployment, step_seconds, rate, held_bytes, transfer_seconds, decoding_seconds, estimated
    )


@dataclass(frozen=True, eq=False)
class Offer:
    """Groups on all GPUs, and what the users get of them.

    Args:
        goal: the requests.
        gpus: all GPUs, idle ones too.
        decode, decode_groups: who decodes, how many times.
        prefill, prefill_groups: who prefills; None, 0: those who decode, together.
        ttft_seconds, tpot_seconds: of a request that meets no queue.
        chunk_tokens: together: most prompt tokens per GPU of a step.
    """

    goal: ServiceGoal
    gpus: int
    decode: PhaseGroup
    decode_groups: int
    ttft_seconds: float
    tpot_seconds: float
    prefill: PhaseGroup | None = None
    prefill_groups: int = 0
    chunk_tokens: int | None = None

    @property
    def used_gpus(self) -> int:
        """GPUs that are in a group."""
        prefill = self.prefill.ranks * self.prefill_groups if self.prefill else 0
        return prefill + self.decode.ranks * self.decode_groups

    @property
    def estimated(self) -> bool:
        """Whether any of it comes from few layers only."""
        return self.decode.estimated or (self.prefill is not None and self.prefill.estimated)

    @cached_property
    def requests_per_second(self) -> float:
        """Requests that all GPUs complete: what the slower phase lets through."""
        decoded = self.decode.requests_per_second * self.decode_groups
        if self.prefill is None:
            return decoded
        return min(decoded, self.prefill.requests_per_second * self.prefill_groups)

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Output tokens, over all GPUs."""
        return self.requests_per_second * self.goal.output_tokens / self.gpus

    @property
    def tokens_per_second_per_user(self) -> float:
        """What one request sees after its first token."""
        return 1 / self.tpot_seconds

    @property
    def meets(self) -> bool:
        """Whether both limits are kept."""
        ttft, tpot = self.goal.ttft_seconds, self.goal.tpot_seconds
        return (ttft is None or self.ttft_seconds <= ttft) and (tpot is None or self.tpot_seconds <= tpot)

    @property
    def order(self) -> tuple[float, float, int]:
        """The better of two is the larger: tokens per GPU, then per user, then fewer GPUs in use."""
        return (self.tokens_per_second_per_gpu, self.tokens_per_second_per_user, -self.used_gpus)


def split_offers(goal: ServiceGoal, gpus: int, prefill: PhaseGroup, decode: PhaseGroup) -> list[Offer]:
    """Every ratio of the two kinds of groups, each with as many prefill groups as have room; none where none has."""
    ttft = 2 * prefill.step_seconds
    tpot = goal.seconds_per_token(decode.step_seconds, decode.transfer_seconds)
    offers = []
    for decoders in range(1, (gpus - prefill.ranks) // decode.ranks + 1):
        prefills = (gpus - decoders * decode.ranks) // prefill.ranks
        # No more than the decoding groups can take.
        enough = -(-decode.requests_per_second * decoders // prefill.requests_per_second)
        count = max(1, min(prefills, int(enough)))
        offers.append(Offer(goal, gpus, decode, decoders, ttft, tpot, prefill, count))
    return offers


def frontier(offers: list[Offer]) -> list[Offer]:
    """Those that no other beats in both tokens per GPU and tokens per user; fastest for the user first."""
    best: list[Offer] = []
    for offer in sorted(offers, key=lambda o: (-o.tokens_per_second_per_user, -o.tokens_per_second_per_gpu)):
        if not best or offer.tokens_per_second_per_gpu > best[-1].tokens_per_second_per_gpu:
            best.append(offer)
    return best
