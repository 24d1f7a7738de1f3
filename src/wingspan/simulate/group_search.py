"""The best ways to run one EP group: slots, attention, dispatcher, schedule and batch, each way estimated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product

from wingspan.deployment import Deployment
from wingspan.placement.spec import Strategy
from wingspan.simulate.estimate import Estimate, ShortModel
from wingspan.simulate.layouts import Kept, attention_groups
from wingspan.simulate.memory import largest_batch
from wingspan.specs.execution import TRIED, DispatcherKind, ScheduleKind, schedule_text
from wingspan.specs.placement import Placement
from wingspan.specs.workload import UniformRouting

_MOST_DECODE = 1024
MOST_PREFILL = 32768
"""Largest batches tried: beyond these more tokens gain nothing, because every product is bound by arithmetic."""
_LONG_ENOUGH = 0.995
"""A step so close below the longest one allowed holds as large a batch as estimates can tell."""
_HEADROOM = 1.05
"""By how much another schedule may beat a step of which nothing is exposed: it may leave room for a larger batch."""

_MISSES = 2
"""Numbers of slots in a row that do not pay: one alone may be the draw of the loads."""

KERNELS = (DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL)
"""What GPU kernels exist for: rows once per (token, rank) are sent by our own runtime only."""


@dataclass(frozen=True)
class Wanted:
    """What binds a search.

    Args:
        fixed_batch: the workload's batch is kept; else it is as large as memory and the longest step allow.
        longest_step_seconds: limit on the step.
        held_context: tokens of each sequence that memory must hold, where more than the step's mean context.
        least_batch: smaller ones are no answer.
        kept: slots and placement that are not to be chosen.
    """

    fixed_batch: bool
    longest_step_seconds: float | None
    held_context: int | None = None
    least_batch: int = 1
    kept: Kept = field(default_factory=Kept)


@dataclass(frozen=True)
class Way:
    """One way to run a group."""

    placement: Strategy
    slots: int
    attention_ranks: int
    dispatcher: DispatcherKind
    schedule: ScheduleKind


@dataclass(frozen=True)
class EstimatedDeployment:
    """A deployment that fits, as far as its loads are even, with its estimated step."""

    way: Way
    deployment: Deployment
    estimate: Estimate

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Throughput per GPU."""
        return self.deployment.gained_tokens / self.deployment.ranks / self.estimate.step_seconds

    @property
    def bound(self) -> float:
        """What no other schedule or dispatcher can exceed: all transfers hidden."""
        return (
            _HEADROOM
            * self.deployment.gained_tokens
            / self.deployment.ranks
            / self.estimate.computing_seconds
        )


class GroupSearch:
    """The search at one EP size.

    Args:
        start: model, cluster, work and options.
        ranks: of the group; experts are spread over them, or cut as the start's options say.
        wanted: what binds the batch.
        near: a batch near which the longest step may lie; 0: nobody knows.
    """

    def __init__(self, start: Deployment, ranks: int, wanted: Wanted, near: int = 0) -> None:
        self._start, self._ranks, self._wanted, self._near = start, ranks, wanted, near
        self._short = ShortModel(start)
        self._placements: dict[tuple[Strategy, int], tuple[Placement, Placement]] = {}
        self._batch = 0
        asked, usual = start.options.dispatcher, start.dispatcher
        self._dispatchers = [asked] if asked else sorted(KERNELS, key=lambda d: d is not usual)
        self._shared = start.options.expert_tensor_parallel
        if self._shared == ranks > 1:
            self._dispatchers = self._dispatchers[:1]  # Nothing is dispatched.
        self._schedules = list(TRIED) if ranks > 1 else [ScheduleKind.SEQUENTIAL]

    def run(self) -> list[EstimatedDeployment]:
        """What fits of everything tried, best first.

        Attention, dispatcher and schedule are tried together; then the other placement, more slots and smaller
        batches, each from the best.
        """
        experts, groups = self._start.model.experts.count, self._ranks // self._shared
        slots = self._wanted.kept.slot_counts(experts, groups)
        found = self._ways(slots[0]) if slots else []
        if found:
            found += self._other_placements(found)
            found += self._more_slots(_best(found), slots[1:])
            found += self._smaller_batches(_best(found))
        return sorted(found, key=lambda f: -f.tokens_per_second_per_gpu)

    def _ways(self, slots: int) -> list[EstimatedDeployment]:
        heads = self._start.model.heads
        groups = attention_groups(self._ranks, self._start.cluster, heads, self._shared)
        even = slots * (self._ranks // self._shared) == self._start.model.experts.count
        plain = even and isinstance(self._start.workload.routing, UniformRouting)
        placement = self._wanted.kept.strategy or (Strategy.LINEAR if plain else Strategy.BALANCED)
        first, *others = product(self._dispatchers, self._schedules)
        seeds = self._tried(Way(placement, slots, group, *first) for group in groups)
        found = list(seeds)
        for seed in sorted(seeds, key=lambda f: -f.tokens_per_second_per_gpu):
            # A longest step lets what hides transfers take a larger batch, and there is no such bound.
            if self._wanted.longest_step_seconds or seed.bound > _best(found).tokens_per_second_per_gpu:
                group = seed.way.attention_ranks
                found += self._tried(Way(placement, slots, group, *pair) for pair in others)
        # Other buffers may fit where the plain way's do not.
        return found or self._tried(Way(placement, slots, g, *pair) for g, pair in product(groups, others))

    def _other_placements(self, found: list[EstimatedDeployment]) -> list[EstimatedDeployment]:
        """Linear keeps groups of experts together, which dispatchers use unlike; balanced evens out the load."""
        if self._wanted.kept.strategy is not None:
            return []
        best = {f.way.dispatcher: f for f in sorted(found, key=lambda f: f.tokens_per_second_per_gpu)}
        other = {Strategy.LINEAR: Strategy.BALANCED, Strategy.BALANCED: Strategy.LINEAR}
        return self._tried(replace(f.way, placement=other[f.way.placement]) for f in best.values())

    def _more_slots(self, best: EstimatedDeployment, counts: list[int]) -> list[EstimatedDeployment]:
        """Until some do not pay, where loads are even; all that fit where not: few layers say little of hot experts."""
        even = isinstance(self._start.workload.routing, UniformRouting)
        found, way, missed = [], best.way, 0
        for slots in counts:
            placement = self._wanted.kept.strategy or Strategy.BALANCED
            more = self._tried([replace(way, slots=slots, placement=placement)])
            found += more
            pays = bool(more) and more[0].tokens_per_second_per_gpu > best.tokens_per_second_per_gpu
            best, missed = (more[0], 0) if pays else (best, missed + 1)
            if not more or (even and missed == _MISSES):
                break
        return found

    def _smaller_batches(self, best: EstimatedDeployment) -> list[EstimatedDeployment]:
        found: list[EstimatedDeployment] = []
        while not self._wanted.fixed_batch:
            batch = best.deployment.workload.tokens_per_gpu // 2
            half = self._at(best.way, batch) if batch >= self._wanted.least_batch else None
            if half is None or half.tokens_per_second_per_gpu <= best.tokens_per_second_per_gpu:
                break
            found.append(best := half)
        return found

    def _tried(self, ways: Iterable[Way]) -> list[EstimatedDeployment]:
        return [found for way in ways if (found := self._largest(way)) is not None]

    def _largest(self, way: Way) -> EstimatedDeployment | None:
        """The way with the largest batch that is allowed."""
        deployment, wanted = self._deployment(way), self._wanted
        asked, work = deployment.workload.tokens_per_gpu, deployment.workload
        largest = largest_batch(deployment, wanted.held_context, self._placement(way)[1])
        if wanted.fixed_batch:
            return self._at(way, asked if asked <= largest else 0)
        most = min(largest, _MOST_DECODE if work.phase == "decode" else max(MOST_PREFILL, wanted.least_batch))
        if most < wanted.least_batch:
            return None
        if wanted.longest_step_seconds is None:
            return self._at(way, most)
        return self._within(way, most, wanted.longest_step_seconds)

    def _within(self, way: Way, most: int, longest_seconds: float) -> EstimatedDeployment | None:
        """The largest batch up to `most` whose step takes no longer, to a percent: more tokens take more time.

        None also where that is less than the batch of another way: at the limit on the step, less work is slower.
        """
        best, fits, breaks = None, self._wanted.least_batch - 1, most + 1
        batch = min(self._batch or self._near, most) or most
        last = (0, 0.0)
        while breaks - fits > max(1, fits // 100):
            found = self._at(way, batch)
            if found is None:
                return best
            seconds = found.estimate.step_seconds
            if seconds <= longest_seconds:
                best, fits = found, batch
                if seconds >= _LONG_ENOUGH * longest_seconds:
                    break
            elif batch <= self._batch:
                return None
            else:
                breaks = batch
            # On the line through the last two; at first through nothing, and a step grows more slowly than its batch.
            slope = (seconds - last[1]) / (batch - last[0])
            last = (batch, seconds)
            guess = int(batch + (longest_seconds - seconds) / slope) if slope > 0 else 0
            batch = guess if fits < guess < breaks else (fits + breaks) // 2
        self._batch = max(fits, self._batch)
        return best

    def _at(self, way: Way, batch: int) -> EstimatedDeployment | None:
        deployment = self._deployment(way, batch) if batch else None
        if deployment is None:
            return None
        if way.schedule is ScheduleKind.TWO_BATCH and deployment.workload.sequences_per_gpu < 2:
            return None
        return EstimatedDeployment(way, deployment, self._short.estimate(deployment, self._placement(way)[0]))

    def _deployment(self, way: Way, batch: int | None = None) -> Deployment:
        start = self._start
        groups = self._ranks // self._shared
        placement = self._wanted.kept.spec(way.placement, groups, way.slots)
        options = start.options.model_copy(
            update={
                "attention_ranks": way.attention_ranks,
                "dispatcher": way.dispatcher,
                "schedule": schedule_text(way.schedule),
            }
        )
        work = (
            start.workload if batch is None else start.workload.model_copy(update={"tokens_per_gpu": batch})
        )
        return start.model_copy(update={"placement": placement, "options": options, "workload": work})

    def _placement(self, way: Way) -> tuple[Placement, Placement]:
        """Place the experts of the short model, and those of the whole one alike."""
        key = (way.placement, way.slots)
        if key not in self._placements:
            short = self._short.placement(self._deployment(way))
            self._placements[key] = (short, self._short.repeated(short))
        return self._placements[key]


def _best(found: list[EstimatedDeployment]) -> EstimatedDeployment:
    return max(found, key=lambda f: f.tokens_per_second_per_gpu)
