"""Claims of scaling: efficiency, throughput, latency, bottleneck, utilisation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import COMMUNICATION
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import EP_SIZES, SEQUENCES, Point, own, reference, series, where
from wingspan.simulate.scaling import (
    fastest_schedule,
    ideal_step_seconds,
)


def scaling_claims(points: list[Point], owned: list[Point]) -> Iterator[Claim]:
    """Parallel efficiency, linear throughput, constant latency, and the bottleneck at the largest EP size."""
    ideal = {(p.ep, series(p)): ideal_step_seconds(p.deployment) for p in points if p.skew == "uniform"}
    efficiency = [ideal[p.ep, (*series(p)[:3], True)] / p.report.step_seconds for p in points]
    chosen = reference(points, points[0].network)
    yield Claim(
        "parallel efficiency at EP 64",
        "> 90 %",
        efficiency[points.index(chosen)] * 100,
        "%",
        efficiency[points.index(chosen)] > 0.9,
        [
            *where(points, [e > 0.9 for e in efficiency], [f"{e:.0%}" for e in efficiency]),
            *(_with_replicas(p, ideal[p.ep, (*series(p)[:3], True)]) for p in points if _is_replicated(p)),
        ],
        chosen.fits,
        ideal_step_seconds(own(owned).deployment) / own(owned).report.step_seconds * 100,
        own(owned).fits,
    )
    smallest = {series(p): p.report for p in points if p.ep == min(EP_SIZES)}
    step = [p.report.step_seconds / smallest[series(p)].step_seconds for p in points]
    wide = _largest(points)
    scaled = [1 / s for s in step]
    at = points.index(wide)
    beyond = [p.ep > min(EP_SIZES) for p in points]
    ends = [next(p for p in owned if p.ep == ep) for ep in (min(EP_SIZES), max(EP_SIZES))]
    own_step = ends[1].report.step_seconds / ends[0].report.step_seconds
    own_fits = all(p.fits for p in ends)
    yield Claim(
        "token throughput scales linearly",
        "linear with experts",
        scaled[at] * 100,
        f"% of linear, EP {min(EP_SIZES)} to {max(EP_SIZES)}",
        scaled[at] > 0.9,
        where(points, [v > 0.9 for v in scaled], [f"{v:.0%} of linear" for v in scaled], beyond),
        wide.fits,
        100 / own_step,
        own_fits,
    )
    yield Claim(
        "latency consistent regardless of cluster size",
        "constant",
        step[at],
        f"x the step at EP {min(EP_SIZES)}",
        step[at] < 1.1,
        where(points, [v < 1.1 for v in step], [f"{v:.2f} x" for v in step], beyond),
        wide.fits,
        own_step,
        own_fits,
    )
    bound = [_bottleneck(p.report) for p in points]
    network = [b == "network" for b in bound]
    at_scale = [p.ep == max(EP_SIZES) and p.fits for p in points]
    yield Claim(
        "bottleneck: network bandwidth at scale",
        "network",
        float(np.mean([n for n, chosen in zip(network, at_scale, strict=True) if chosen])) * 100,
        f"% of the cases at EP {max(EP_SIZES)} that fit",
        all(n for n, chosen in zip(network, at_scale, strict=True) if chosen),
        where(points, network, bound, at_scale),
        True,
        100.0 * (_bottleneck(ends[1].report) == "network"),
        ends[1].fits,
    )


def _is_replicated(point: Point) -> bool:
    return point.ep == 64 and point.skew != "uniform" and point.tokens >= SEQUENCES and point.fits


def _with_replicas(point: Point, ideal_seconds: float) -> str:
    """Predict the point with an eighth more ranks, which hold replicas of each layer's hottest experts."""
    ranks = point.ep + point.ep // 8
    made = point.deployment.model_copy(
        update={
            "cluster": point.deployment.cluster.with_gpus(ranks),
            "placement": PlacementSpec(ranks=ranks, strategy=Strategy.BALANCED),
        }
    )
    before, after = (ideal_seconds / r.step_seconds for r in (point.report, fastest_schedule(made)[1]))
    return (
        f"{point.network}, skewed, EP {point.ep}, {point.phase} {point.tokens}: {before:.0%}, with replicas on "
        f"{ranks - point.ep} spare ranks {after:.0%}"
    )


def busy_claim(points: list[Point], owned: list[Point]) -> Claim:
    """Share of the step in which the mean GPU computes."""
    busy = [1 - p.report.overhead for p in points]
    chosen = reference(points, points[0].network)
    at = points.index(chosen)
    arithmetic = chosen.report.utilisation
    return Claim(
        "GPU utilisation",
        "> 95 %",
        busy[at] * 100,
        "% of the step computing",
        busy[at] > 0.95,
        [
            *where(points, [b > 0.95 for b in busy], [f"{b:.0%}" for b in busy]),
            f"as shares of peak at the same point: arithmetic {arithmetic['compute']:.0%}, memory bandwidth "
            f"{arithmetic['memory bandwidth']:.0%}",
        ],
        chosen.fits,
        (1 - own(owned).report.overhead) * 100,
        own(owned).fits,
    )


def _largest(points: list[Point]) -> Point:
    chosen = reference(points, points[0].network)
    return next(p for p in points if p.ep == max(EP_SIZES) and series(p) == series(chosen))


def _bottleneck(report: StepReport) -> str:
    """What takes the largest part of the mean rank's step."""
    mean = {op: float(np.mean(seconds)) for op, seconds in report.operation_seconds.items()}
    waiting = mean.pop(Operation.WAIT, 0.0)
    transfers = report.overhead * report.step_seconds - waiting
    for operation in COMMUNICATION:
        mean.pop(operation, None)
    parts = {"network": transfers, "waiting for the fullest rank": waiting}
    parts |= {operation.value: seconds for operation, seconds in mean.items()}
    return max(parts, key=lambda part: parts[part])
