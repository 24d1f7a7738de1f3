"""The best groups of ranks for requests of a length on a number of GPUs: every EP size, split or together.

Ways are estimated from few layers, as `search.py` does; what comes close to the best is predicted whole, and of these
the batch is settled exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from wingspan.deployment import Deployment
from wingspan.placement.spec import Strategy
from wingspan.simulate.estimate import ShortModel
from wingspan.simulate.group_search import EstimatedDeployment, Wanted, Way
from wingspan.simulate.layouts import Kept, ep_sizes, group_sizes
from wingspan.simulate.memory import memory_use
from wingspan.simulate.search import (
    DeploymentChoice,
    Watch,
    enlarged,
    found_at,
    held_bytes,
    unwatched,
    whole,
    with_workload,
)
from wingspan.simulate.service import (
    Offer,
    PhaseGroup,
    ServiceGoal,
    decode_group,
    prefill_group,
    split_offers,
)
from wingspan.simulate.step import predict
from wingspan.simulate.together import DeploymentTimes, Together
from wingspan.specs.execution import ScheduleKind

_CLOSE = 0.97
"""What is estimated at so much of the best or more is predicted whole: estimates are within a percent or two."""
_MOST_CLOSE = 4
_PARTS = (0.5, 0.25, 0.125)
_WAYS = 2
"""How many of an EP size's ways that decode best, and that prefill best, are tried together."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What was found for one goal on so many GPUs.

    Args:
        prefills, decodes: the best of each EP size that keeps its limit, and all that was estimated.
        offers: the best of each pair of sizes, and of each that does both; those near the best predicted whole.
    """

    prefills: dict[int, PhaseGroup]
    decodes: dict[int, PhaseGroup]
    offers: list[Offer]

    @property
    def best(self) -> Offer | None:
        """The best offer that keeps the limits; None where none does."""
        return max((o for o in self.offers if o.meets), key=lambda offer: offer.order, default=None)


class ServiceSearch:
    """The search for one goal.

    Args:
        template: model, cluster, routing, precisions and, where it is asked for, the dispatcher.
        gpus: all GPUs.
        goal: the requests and their limits.
        kept: slots and placement that are not to be chosen.
        watch: looks on.

    Raises:
        InputError: the GPUs do not fill whole nodes, or requests are longer than the model was made for.
    """

    def __init__(
        self, template: Deployment, gpus: int, goal: ServiceGoal, kept: Kept, watch: Watch = unwatched
    ) -> None:
        self.gpus, self.kept, self._watch = gpus, kept, watch
        # What a file's own plan was to keep of its batch says nothing here.
        self.start = with_workload(
            template.model_copy(update={"cluster": template.cluster.with_gpus(gpus), "planned": None}),
            total_sequences=None,
        )
        work = template.workload.context
        self.decoding = _usual(
            with_workload(
                self.start, phase="decode", context=work.model_copy(update={"mean_tokens": goal.mean_context})
            )
        )
        self.prefilling = _usual(
            with_workload(
                self.start,
                phase="prefill",
                tokens_per_gpu=goal.prompt_tokens,
                context=work.model_copy(update={"mean_tokens": goal.prompt_tokens}),
            )
        )
        self.goal = goal = replace(goal, tokens_per_step=self.decoding.workload.gained_per_sequence)
        self.transfer_seconds = goal.transfer_seconds(self.decoding)
        """With the cache in one piece; attention over more ranks sends it in parts, side by side."""
        step = goal.longest_decode_step(self.transfer_seconds)
        self.to_decode = Wanted(False, step, held_context=goal.held_context, kept=kept)
        self.to_prefill = Wanted(False, goal.prefill_step_seconds, least_batch=goal.prompt_tokens, kept=kept)
        self.short = ShortModel(self.start)

    @cached_property
    def sizes(self) -> list[int]:
        """EP sizes to try; larger ones than experts only hold replicas."""
        if self.kept.ranks is not None:
            return [self.kept.ranks] if self.kept.ranks <= self.gpus else []
        experts, cluster = self.start.model.experts.count, self.start.cluster.part(self.gpus)
        return sorted({*group_sizes(experts, cluster), *ep_sizes(experts, cluster)})

    @cached_property
    def together_sizes(self) -> list[int]:
        """Those of which alike groups fill all GPUs."""
        return [size for size in self.sizes if self.gpus % size == 0]

    @cached_property
    def found_decodes(self) -> list[EstimatedDeployment]:
        """Every way to decode that was estimated."""
        return self._found(self.decoding, self.to_decode, "decode", 0)

    @cached_property
    def found_prefills(self) -> list[EstimatedDeployment]:
        """Every way to prefill that was estimated."""
        return self._found(self.prefilling, self.to_prefill, "prefill", len(self.sizes))

    def _found(self, start: Deployment, wanted: Wanted, phase: str, before: int) -> list[EstimatedDeployment]:
        """What is estimated of each EP size, of which `before` are done for another phase."""

        def begun(index: int) -> None:
            self._begun(f"EP {self.sizes[index]} to {phase}", before + index)

        found = found_at(start, self.gpus, self.sizes, wanted, begun=begun)
        reached = {each.deployment.ranks for each in found}
        for ranks in self.sizes:
            found += [] if ranks in reached else self.with_fewer(start, ranks, wanted)
        return found

    def with_fewer(self, start: Deployment, ranks: int, wanted: Wanted) -> list[EstimatedDeployment]:
        """Ways to keep the limit on the step with fewer sequences than GPUs, where one each takes too long."""
        if wanted.longest_step_seconds is None or ranks == 1:
            return []
        limit = wanted.longest_step_seconds
        counted = replace(wanted, longest_step_seconds=None, fixed_batch=True)

        def ways(sequences: int) -> list[EstimatedDeployment]:
            step = with_workload(start, tokens_per_gpu=wanted.least_batch, total_sequences=sequences)
            here = found_at(step, self.gpus, [ranks], counted)
            return [way for way in here if way.estimate.step_seconds <= limit]

        low, high, best = 1, ranks, ways(1)
        while best and high - low > max(1, high // 16):
            middle = (low + high) // 2
            here = ways(middle)
            low, high, best = (middle, high, here) if here else (low, middle, best)
        return best

    def _begun(self, what: str, done: int) -> None:
        self._watch(what, done, 2 * len(self.sizes) + len(self.together_sizes) + 1)

    def run(self) -> Searched:
        """Search."""
        decodes = {r: self.decoding_group(f) for r, f in _best_of_each(self.found_decodes).items()}
        prefills = {r: self.prefilling_group(f) for r, f in _best_of_each(self.found_prefills).items()}
        offers = [
            offer
            for decode in decodes.values()
            for prefill in prefills.values()
            if (offer := self._best_split(prefill, decode))
        ]
        before = 2 * len(self.sizes)
        for index, size in enumerate(self.together_sizes):
            self._begun(f"EP {size} for both", before + index)
            if offer := self._best_together(size):
                offers.append(offer)
        self._begun("the best, whole", before + len(self.together_sizes))
        return Searched(prefills, decodes, self._settled(offers))

    def decoding_group(self, found: EstimatedDeployment) -> PhaseGroup:
        """An estimated way to decode."""
        seconds = found.estimate.step_seconds
        return decode_group(
            found.deployment, seconds, np.nan, self.goal, self.transfer_seconds, estimated=True
        )

    def prefilling_group(self, found: EstimatedDeployment) -> PhaseGroup:
        """An estimated way to prefill."""
        seconds = found.estimate.step_seconds
        return prefill_group(found.deployment, seconds, np.nan, self.goal, estimated=True)

    def together_ways(self, ranks: int) -> list[Way]:
        """Slots, attention and schedule that were best for either phase at this EP size."""
        ways: dict[tuple[Strategy, int, int], Way] = {}
        for found in (self.found_decodes, self.found_prefills):
            here = sorted(
                (f for f in found if f.deployment.ranks == ranks),
                key=lambda f: -f.tokens_per_second_per_gpu,
            )
            different: dict[tuple[Strategy, int, int], Way] = {}
            for way in (f.way for f in here):
                different.setdefault((way.placement, way.slots, way.attention_ranks), way)
            ways |= dict(list(different.items())[:_WAYS])
        return list(ways.values())

    def together(self, ranks: int, way: Way) -> Together:
        """One way to do both, its steps estimated; the dispatcher is each phase's usual one, or the asked one."""
        deployment = self.start.model_copy(
            update={
                "placement": self.kept.spec(way.placement, ranks, way.slots),
                "options": self.start.options.model_copy(
                    update={"attention_ranks": way.attention_ranks, "schedule": way.schedule}
                ),
            }
        )
        placement = self.short.placement(deployment)

        def price(step: Deployment) -> float:
            return self.short.estimate(step, placement).step_seconds

        times = DeploymentTimes(deployment, self.goal, price, exact=False)
        return Together(deployment, self.short.repeated(placement), self.goal, self.gpus, times)

    def _best_split(self, prefill: PhaseGroup, decode: PhaseGroup) -> Offer | None:
        offers = split_offers(self.goal, self.gpus, prefill, decode)
        return max(offers, key=lambda offer: offer.order, default=None)

    def _best_together(self, ranks: int) -> Offer | None:
        best, batch, best_way = None, 0, None
        plain = [replace(way, schedule=ScheduleKind.SEQUENTIAL) for way in self.together_ways(ranks)]
        for way in plain:
            offer = self.together(ranks, way).search(batch)
            if offer and (best is None or offer.order > best.order):
                best, batch, best_way = offer, offer.decode.batch, way
        for way in [best_way] if best_way else plain[:1]:
            offer = self.together(ranks, replace(way, schedule=ScheduleKind.TWO_BATCH)).search(batch)
            if offer and (best is None or offer.order > best.order):
                best = offer
        return best

    def _settled(self, offers: list[Offer]) -> list[Offer]:
        """The offers, those near the best predicted whole; a group that has a part in several is predicted once."""
        offers = sorted(offers, key=lambda offer: offer.order, reverse=True)
        top = offers[0].tokens_per_second_per_gpu if offers else 0.0
        settle = _Settle(self)
        near = [o for o in offers[:_MOST_CLOSE] if o.tokens_per_second_per_gpu >= _CLOSE * top]
        whole_ones = [settled for o in near if (settled := settle.offer(o))]
        rest = whole_ones + [o for o in offers if o not in near]
        best = _best(rest)
        while best is not None and best.estimated:  # those near it kept less, predicted whole
            rest.remove(best)
            if settled := settle.offer(best):
                rest.append(settled)
            best = _best(rest)
        return [settle.sooner(o) if o is best else o for o in rest]


def _best(offers: list[Offer]) -> Offer | None:
    return max((o for o in offers if o.meets), key=lambda offer: offer.order, default=None)


class _Settle:
    """Predicts offers whole."""

    def __init__(self, search: ServiceSearch) -> None:
        self._search = search
        self._groups: dict[tuple[str, int], PhaseGroup | None] = {}

    def offer(self, offer: Offer) -> Offer | None:
        """The offer as the whole model gives it; None where it then keeps no limit."""
        if offer.prefill is None:
            return self._together(offer)
        prefill = self._group(offer.prefill, "prefill")
        decode = self._group(offer.decode, "decode")
        if prefill is None or decode is None:
            return None
        return self._search._best_split(prefill, decode)

    def sooner(self, offer: Offer) -> Offer:
        """As many tokens, and the users wait less for them: what does not bind takes smaller batches."""
        return offer if offer.prefill is None else self._prefill_sooner(self._decode_sooner(offer))

    def _group(self, group: PhaseGroup, phase: str) -> PhaseGroup | None:
        key = (phase, group.ranks)
        if key not in self._groups:
            search = self._search
            wanted = search.to_prefill if phase == "prefill" else search.to_decode
            choice = self._whole(group.deployment, wanted)
            if choice is None and group.total_sequences is None:
                # One sequence on each GPU keeps the limit as estimated, and not as predicted whole.
                start = search.prefilling if phase == "prefill" else search.decoding
                fewer = search.with_fewer(start, group.ranks, wanted)
                choice = self._whole(fewer[0].deployment, wanted) if fewer else None
            self._groups[key] = None if choice is None else self._grouped(choice, phase)
        return self._groups[key]

    def _whole(self, deployment: Deployment, wanted: Wanted) -> DeploymentChoice | None:
        """The group predicted whole, with the largest batch, or the most sequences in all, that keeps the limit."""
        gpus, total = self._search.gpus, deployment.workload.total_sequences
        choice = whole(deployment, gpus, wanted)
        if total is None:
            if choice is None or wanted.longest_step_seconds is None:
                return choice
            return enlarged(choice, wanted)
        while choice is None and total > 1:
            total -= max(1, total // 16)
            choice = whole(with_workload(deployment, total_sequences=total), gpus, wanted)
        return choice

    def _grouped(self, choice: DeploymentChoice, phase: str) -> PhaseGroup:
        search, seconds = self._search, choice.report.step_seconds
        if phase == "prefill":
            return prefill_group(choice.deployment, seconds, choice.peak_bytes, search.goal)
        held = held_bytes(predict(choice.deployment), search.goal.held_context)
        return decode_group(choice.deployment, seconds, held, search.goal, search.transfer_seconds)

    def _decode_sooner(self, offer: Offer) -> Offer:
        """Where prefill is what binds, the smallest decode batch that still takes all of it: users wait less."""
        search, prefill = self._search, offer.prefill
        if prefill is None:
            raise RuntimeError("the groups are not separate")
        fed = prefill.requests_per_second * offer.prefill_groups
        best, low, high = offer, 0, offer.decode.batch
        while high - low > max(1, high // 100) and best.decode.requests_per_second * best.decode_groups > fed:
            middle = (low + high) // 2
            choice = whole(
                with_workload(offer.decode.deployment, tokens_per_gpu=middle), search.gpus, search.to_decode
            )
            group = choice and self._grouped(choice, "decode")
            if group and group.requests_per_second * offer.decode_groups >= fed:
                tpot = search.goal.seconds_per_token(group.step_seconds, group.transfer_seconds)
                best, high = replace(offer, decode=group, tpot_seconds=tpot), middle
            else:
                low = middle
        return best

    def _prefill_sooner(self, offer: Offer) -> Offer:
        """Where decoding is what binds, prefill steps of half and a quarter that still feed it: users wait less."""
        search, prefill = self._search, offer.prefill
        if prefill is None:
            raise RuntimeError("the groups are not separate")
        needed = offer.decode.requests_per_second * offer.decode_groups
        for part in _PARTS:
            batch = max(search.goal.prompt_tokens, int(prefill.batch * part))
            if prefill.requests_per_second * offer.prefill_groups < needed or batch >= prefill.batch:
                break
            smaller = with_workload(prefill.deployment, tokens_per_gpu=batch)
            choice = whole(smaller, search.gpus, replace(search.to_prefill, fixed_batch=True))
            group = choice and self._grouped(choice, "prefill")
            if not group or group.requests_per_second * offer.prefill_groups < needed:
                break
            offer = replace(offer, prefill=group, ttft_seconds=2 * group.step_seconds)
        return offer

    def _together(self, offer: Offer) -> Offer | None:
        search, deployment = self._search, offer.decode.deployment

        def price(step: Deployment) -> float:
            return predict(step, placement).timeline.step_seconds

        placement = deployment.build_placement()
        times = DeploymentTimes(deployment, search.goal, price, exact=True)
        both = Together(deployment, placement, search.goal, search.gpus, times)
        batch = offer.decode.batch
        while batch:
            if best := both.best(both.at(batch)):
                return best
            batch = min(batch - 1, int(batch * 0.99))
        return None


def _usual(deployment: Deployment) -> Deployment:
    """Rows travel by the phase's usual kernels, where nothing else is asked for: engines have no others in use."""
    options = deployment.options.model_copy(update={"dispatcher": deployment.dispatcher})
    return deployment.model_copy(update={"options": options})


def _best_of_each(found: list[EstimatedDeployment]) -> dict[int, EstimatedDeployment]:
    best = {f.deployment.ranks: f for f in sorted(found, key=lambda f: f.tokens_per_second_per_gpu)}
    return {ranks: best[ranks] for ranks in sorted(best)}


def why_not(search: ServiceSearch, ranks: int, phase: str) -> tuple[str, str]:
    """Why no group of this EP size can decode, or prefill: the cause, and a line with its figure."""
    goal = search.goal
    wanted = search.to_decode if phase == "decode" else search.to_prefill
    start = search.decoding if phase == "decode" else search.prefilling
    slots = search.kept.slot_counts(start.model.experts.count, ranks)
    if not slots:
        return "slots", "the asked slots do not suit"
    least = replace(wanted, longest_step_seconds=None, fixed_batch=True)
    one = with_workload(start, tokens_per_gpu=wanted.least_batch, total_sequences=1)
    if found := found_at(one, search.gpus, [ranks], least):
        fastest = min(f.estimate.step_seconds for f in found)
        if phase == "decode":
            return "TPOT", f"TPOT {fastest * 1e3:.0f} ms or more"
        return "TTFT", f"TTFT {2 * fastest:.2f} s or more"
    strategy = search.kept.strategy or Strategy.BALANCED
    spec = search.kept.spec(strategy, ranks, slots[0])
    held = start.workload.context.model_copy(
        update={"mean_tokens": goal.held_context if phase == "decode" else goal.prompt_tokens}
    )
    use = memory_use(with_workload(one, context=held).model_copy(update={"placement": spec}))
    return "memory", f"memory: {use.total_R.max() / 1e9:.0f} of {use.capacity_bytes / 1e9:.0f} GB"
