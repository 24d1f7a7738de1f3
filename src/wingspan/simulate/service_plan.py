"""A plan for requests of a length: the best groups, why the others lose, and what users' speed costs in throughput."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.simulate.group_search import Way
from wingspan.simulate.layouts import Kept
from wingspan.simulate.memory import largest_batch
from wingspan.simulate.search import Watch, unwatched, with_workload
from wingspan.simulate.service import Offer, PhaseGroup, ServiceGoal, decode_group, frontier, split_offers
from wingspan.simulate.service_search import Searched, ServiceSearch, why_not
from wingspan.simulate.together import MOST_SEQUENCES
from wingspan.specs.execution import ScheduleKind

_LEADING = 3
"""EP sizes, of those that do best, of which every batch is estimated for the frontier; and the largest."""
_MOST_POINTS = 12


@dataclass(frozen=True, eq=False)
class Considered:
    """One arrangement, and why it is not the best.

    Args:
        kind: `split` by the EP size that decodes, `together`, or `prefill` by the EP size that prefills.
        ranks: that EP size.
        offer: the best with it; None where it cannot be.
        cause: `memory`, `TPOT`, `TTFT`, `slots` or `room` where it cannot be, `slower`, or nothing: it is the best.
        reason: in words, with the figure.
    """

    kind: str
    ranks: int
    offer: Offer | None
    cause: str = ""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class ServicePlan:
    """What `plan` answers for requests.

    Args:
        template: model, cluster and work that were asked for.
        goal: the requests and their limits.
        gpus: all GPUs.
        best: of everything tried; None where nothing keeps the limits in the memory there is.
        considered: one arrangement after another.
        frontier: what no other beats in both tokens/s per GPU and per user, limits apart; fastest first.
    """

    template: Deployment
    goal: ServiceGoal
    gpus: int
    best: Offer | None
    considered: list[Considered]
    frontier: list[Offer]


def make_service_plan(
    template: Deployment, gpus: int, goal: ServiceGoal, kept: Kept, watch: Watch = unwatched
) -> ServicePlan:
    """Search the best groups.

    Args:
        template: model, cluster, routing, precisions and dispatcher; everything else is chosen.
        gpus: all GPUs.
        goal: the requests and their limits.
        kept: slots and placement that are not to be chosen.
        watch: looks on.

    Raises:
        InputError: the GPUs do not fill whole nodes, requests are longer than the model was made for, or no EP size
            suits the slots that are asked for.
    """
    longest = template.model.max_context
    if longest is not None and goal.held_context > longest:
        raise InputError(
            f"`prompt_tokens` {goal.prompt_tokens} and `output_tokens` {goal.output_tokens} are longer than the "
            f"{longest:,} tokens that {template.model.name} was made for; ask for fewer"
        )
    search = ServiceSearch(template, gpus, goal, kept, watch)
    kept.check(template.model.experts.count, search.sizes)
    found = search.run()
    best = found.best
    points = [*_points(search, found), *([best] if best else [])]
    return ServicePlan(
        template, goal, gpus, best, list(_considered(search, found)), _thinned(frontier(points), best)
    )


def _considered(search: ServiceSearch, found: Searched) -> Iterator[Considered]:
    best = found.best
    for ranks in search.sizes:
        here = [o for o in found.offers if o.prefill and o.decode.ranks == ranks]
        yield _judged("split", ranks, here, best) or _without_split(search, found, ranks)
    for ranks in search.sizes:
        here = [o for o in found.offers if o.prefill and o.prefill.ranks == ranks]
        judged = _judged("prefill", ranks, here, best)
        if judged or ranks not in found.prefills:
            yield judged or Considered("prefill", ranks, None, *why_not(search, ranks, "prefill"))
    for ranks in search.together_sizes:
        here = [o for o in found.offers if not o.prefill and o.decode.ranks == ranks]
        yield _judged("together", ranks, here, best) or Considered(
            "together", ranks, None, *_why_not_together(search, ranks)
        )


def _judged(kind: str, ranks: int, offers: list[Offer], best: Offer | None) -> Considered | None:
    offer = max(offers, key=lambda o: o.order, default=None)
    if offer is None:
        return None
    if best is None or offer is best:
        return Considered(kind, ranks, offer)
    lost = 1 - offer.tokens_per_second_per_gpu / best.tokens_per_second_per_gpu
    if lost < 0.0005:
        return Considered(kind, ranks, offer, "slower", "as fast")
    return Considered(kind, ranks, offer, "slower", f"{lost:.1%} less")


def _without_split(search: ServiceSearch, found: Searched, ranks: int) -> Considered:
    if ranks not in found.decodes:
        return Considered("split", ranks, None, *why_not(search, ranks, "decode"))
    if not found.prefills:
        return Considered("split", ranks, None, "TTFT", "no group can prefill")
    return Considered("split", ranks, None, "room", "no room left to prefill")


def _why_not_together(search: ServiceSearch, ranks: int) -> tuple[str, str]:
    ways, tpot = search.together_ways(ranks), search.goal.tpot_seconds
    if not ways:
        return why_not(search, ranks, "decode")
    one = [offer for way in ways for offer in search.together(ranks, way).at(1)]
    if not one:
        return "memory", "no room for both phases"
    fastest = min(offer.tpot_seconds for offer in one)
    if tpot is not None and fastest > tpot:
        return "TPOT", f"TPOT {fastest * 1e3:.0f} ms or more"
    return "TTFT", f"TTFT {min(offer.ttft_seconds for offer in one):.2f} s or more within the TPOT"


def _points(search: ServiceSearch, found: Searched) -> Iterator[Offer]:
    """Offers of every batch, limits on TPOT apart, of the EP sizes that do best and of the largest."""
    yield from found.offers
    order = sorted(found.offers, key=lambda o: o.order, reverse=True)
    split = list(dict.fromkeys(o.decode.ranks for o in order if o.prefill))
    together = list(dict.fromkeys(o.decode.ranks for o in order if not o.prefill))
    for ranks in {*split[:_LEADING], *split[-1:]}:
        for decode in _every_batch(search, ranks):
            for prefill in found.prefills.values():
                yield from split_offers(search.goal, search.gpus, prefill, decode)
    for ranks in together[:_LEADING]:
        way = search.together_ways(ranks)[0]
        both, batch = search.together(ranks, replace(way, schedule=ScheduleKind.SEQUENTIAL)), 1
        while batch <= MOST_SEQUENCES and (offers := both.at(batch)):
            yield from (o for o in offers if search.goal.ttft_seconds is None or _in_time(o))
            batch *= 2


def _in_time(offer: Offer) -> bool:
    return offer.goal.ttft_seconds is None or offer.ttft_seconds <= offer.goal.ttft_seconds


def _every_batch(search: ServiceSearch, ranks: int) -> Iterator[PhaseGroup]:
    """Groups that decode, at batches that double; as the best way does it, and plainly with attention cut finest."""
    here = sorted(
        (f for f in search.found_decodes if f.deployment.ranks == ranks),
        key=lambda f: -f.tokens_per_second_per_gpu,
    )
    finest = max(here, key=lambda f: f.way.attention_ranks)
    ways: dict[Way, Deployment] = {f.way: f.deployment for f in (here[0], finest)}
    for way, deployment in ways.items():
        placement = search.short.placement(deployment)
        repeated = search.short.repeated(placement)
        most = min(largest_batch(deployment, search.goal.held_context, repeated), MOST_SEQUENCES)
        batches = [2**n for n in range(most.bit_length()) if 2**n < most]
        for batch in [*batches, most]:
            step = with_workload(deployment, tokens_per_gpu=batch, total_sequences=None)
            if way.schedule == ScheduleKind.TWO_BATCH and batch < 2:
                continue
            seconds = search.short.estimate(step, placement).step_seconds
            yield decode_group(
                step, seconds, float("nan"), search.goal, search.transfer_seconds, estimated=True
            )


def _thinned(points: list[Offer], best: Offer | None) -> list[Offer]:
    """At most so many, far enough apart in what users see; the best stays."""
    kept: list[Offer] = []
    apart = 1.1
    while True:
        kept = []
        for point in points:
            speed = point.tokens_per_second_per_user
            last = point is points[-1] or point is best
            if last or not kept or kept[-1].tokens_per_second_per_user >= apart * speed:
                kept.append(point)
        if len(kept) <= _MOST_POINTS:
            return kept
        apart *= 1.15
