"""A deployment under loads: its groups, every load simulated, and the report."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.schedule.prefix_cache import BLOCK_TOKENS
from wingspan.schedule.price import price_per_million_tokens
from wingspan.schedule.serving_result import LoadPoint, ServingLimits, ServingReport
from wingspan.simulate.serving.deployed import Caps, group_of, kv_transfer
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.measure import described, measure
from wingspan.simulate.serving.search import find_highest_load
from wingspan.simulate.serving.settle import alike, unsettled_note, until_settled
from wingspan.simulate.serving.source import RequestSource
from wingspan.simulate.sweep_axes import with_routing, with_schedule
from wingspan.simulate.sweep_start import start
from wingspan.specs.engines import EngineKind, profile_of
from wingspan.specs.requests import Requests
from wingspan.specs.workload import routing_remarks

_NOTES = (
    "step times are interpolated between predictions (docs/serving.md)",
    f"KV cache is reserved in blocks of {BLOCK_TOKENS} tokens as requests grow; a separate decode group reserves a "
    "request's whole",
    "throughput counts what ends while requests still arrive",
)

Watch = Callable[[float, int, int], None]
"""Told of a load (requests a second): so many of so many requests are served."""


@dataclass(frozen=True)
class Serving:
    """What serves: a model on a cluster, its groups, and what they may hold. Sizes are per GPU.

    A `deployment` says model, cluster, ranks, attention, schedule, routing and precision itself; the fields of these
    names count for nothing then.
    """

    model: str
    cluster: str
    ranks: int
    separate_prefill: int | None
    max_sequences: int
    step_tokens: int
    attention_ranks: int
    schedule: str
    routing: str
    precision: str | None
    mtp_tokens: int | None
    acceptance: float | None
    engine: str | None
    seed: int
    prefix_caching: bool
    price_per_gpu_hour: float | None = None
    deployment: Deployment | None = None


def predict_serving(
    serving: Serving,
    source: RequestSource,
    rates: list[float],
    limits: ServingLimits,
    *,
    search: bool,
    watch: Watch,
) -> ServingReport:
    """Simulate every rate, or search the highest within the limits from the first of them.

    Raises:
        InputError: the deployment makes no sense, or has no room for a request.
    """
    if serving.prefix_caching and source.sample.blocks is None:
        raise InputError(
            "prefix caching: nothing says what these prompts share; give a trace that does, as Mooncake's with "
            "hash_ids, or leave it out"
        )
    fleet, conditions = _fleet(serving, source)
    fleet = replace(fleet, prefix_caching=serving.prefix_caching)

    def with_requests(rate: float, count: int) -> LoadPoint:
        requests = source.at_rate(rate, count)
        served = serve(requests, fleet, lambda done: watch(rate, done, len(requests)))
        return measure(served, rate, limits)

    def at_load(rate: float) -> LoadPoint:
        if source.drawn:
            return until_settled(partial(with_requests, rate), source.count)
        return with_requests(rate, source.count)

    highest, points, remark = _loads(at_load, rates, search=search)
    if source.drawn:
        points = alike(points, with_requests)
    ranks = sum(group.ranks for group in fleet.groups)
    return ServingReport(
        conditions=conditions,
        ranks=ranks,
        groups=[described(group) for group in fleet.groups],
        limits=limits,
        points=[_priced(point, serving.price_per_gpu_hour, ranks) for point in points],
        highest_load_requests_per_second=highest if limits.any else None,
        notes=[
            note
            for note in (
                remark,
                *source.remarks,
                _caching_note(serving, points),
                *_NOTES,
                _preemption_note(points),
            )
            if note
        ],
    )


def _priced(point: LoadPoint, price_per_gpu_hour: float | None, gpus: int) -> LoadPoint:
    if price_per_gpu_hour is None:
        return point
    rate = point.output_tokens_per_second / gpus
    price = price_per_million_tokens(price_per_gpu_hour, rate) if rate > 0 else None
    return point.model_copy(update={"price_per_million_output_tokens": price})


def _caching_note(serving: Serving, points: list[LoadPoint]) -> str:
    if not serving.prefix_caching:
        return ""
    shares = ", ".join(f"{point.prefix_hit_share or 0:.1%}" for point in points)
    return f"prefix caching: {shares} of the prompt tokens found computed on their home"


def _preemption_note(points: list[LoadPoint]) -> str:
    if not any(point.preemptions for point in points):
        return "no request was preempted"
    loads = ", ".join(
        f"{point.preemptions:,} at {point.offered_requests_per_second:.3g}/s"
        for point in points
        if point.preemptions
    )
    return f"preempted (put back where KV cache ran out, and computed again later): {loads}"


def _loads(
    at_load: Callable[[float], LoadPoint], rates: list[float], *, search: bool
) -> tuple[float | None, list[LoadPoint], str]:
    """Highest load within the limits, every load simulated, and a remark."""
    if search:
        found = find_highest_load(at_load, rates[0])
        return found.requests_per_second, found.points, found.note
    points = [at_load(rate) for rate in rates]
    # Below a load that breaks the limits; one that meets them above it was too short to show that it does not.
    kept = list(itertools.takewhile(lambda point: point.meets_limits, points))
    return (kept[-1].offered_requests_per_second if kept else None), points, unsettled_note(points)


def _fleet(serving: Serving, source: RequestSource) -> tuple[Fleet, dict[str, str]]:
    caps = _caps(serving, source.sample)
    deployment = serving.deployment or _deployment(serving, serving.ranks)
    model, options = deployment.model, deployment.options
    given = serving.deployment is not None
    engine = profile_of(options.engine)
    routing = deployment.workload.routing.kind.replace("_", "-") if given else serving.routing
    conditions = {
        "Model": f"{model.name}: {model.layers} layers, top-{model.experts.per_token} of {model.experts.count}",
        "Precision": deployment.precisions.described,
        "Cluster": deployment.cluster.name if given else serving.cluster,
        "Requests": source.described,
        "Step": f"{options.schedule} schedule, {routing} routing"
        + (f", {engine.name}" if engine.name != EngineKind.NONE else "")
        + (f", attention over {options.attention_ranks} ranks" if options.attention_ranks > 1 else ""),
    }
    if (work := deployment.workload).tried_per_sequence > 1:
        conditions["Tried ahead"] = (
            f"{work.mtp_tokens} a sequence and step, {work.acceptance:.0%} of them right: a step that gives "
            f"{work.gained_per_sequence:.2f} tokens counts as so many of one"
        )
    if model.remarks:
        conditions["Sizes"] = "; ".join(model.remarks)
    if remarks := routing_remarks(deployment.workload.routing):
        conditions["Routing"] = "; ".join(remarks)
    if serving.separate_prefill is None:
        both = group_of(deployment, caps, name="prefill and decode", decodes=True, prefills=True)
        return Fleet(both, request_seconds=engine.request_seconds), conditions
    apart = _deployment(serving, serving.separate_prefill)
    return (
        Fleet(
            group_of(apart, caps, name="prefill", decodes=False, prefills=True),
            group_of(deployment, caps, name="decode", decodes=True, prefills=False),
            kv_transfer(deployment, caps),
            request_seconds=engine.request_seconds,
        ),
        conditions,
    )


def _caps(serving: Serving, requests: Requests) -> Caps:
    lengths_N = requests.prompt_tokens_N + requests.output_tokens_N
    return Caps(
        sequences_per_gpu=serving.max_sequences,
        tokens_per_step=serving.step_tokens,
        longest_context=int(lengths_N.max()),
        mean_context=max(1, round(float(lengths_N.mean()))),
    )


def _deployment(serving: Serving, ranks: int) -> Deployment:
    setting = start(
        serving.model,
        serving.cluster,
        gpus=ranks,
        attention_ranks=serving.attention_ranks,
        precision=serving.precision,
        mtp_tokens=serving.mtp_tokens,
        acceptance=serving.acceptance,
        engine=serving.engine,
        seed=serving.seed,
        scale_experts=False,
    )
    setting = with_schedule(with_routing(serving.routing)(setting), serving.schedule)
    if setting.fastest_schedule:
        raise InputError("`schedule` fastest is for one step; name one, as sequential or two-batch")
    return setting.deployment()
