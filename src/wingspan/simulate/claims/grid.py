"""Predictions over network, work, skew and EP size, and where among them something holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from wingspan.deployment import Deployment, Options
from wingspan.schedule.result import StepReport
from wingspan.simulate.scaling import (
    fastest_schedule,
    one_expert_per_gpu,
)
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import Context, LogNormalRouting, Routing, UniformRouting, Workload

EP_SIZES = (16, 64, 256)
CONTEXT = 1024
ATTENTION_RANKS = 8
"""GPUs of a node that share attention: replicated, as the claims have it, it leaves no room for a single sequence."""
SEQUENCES = 8
"""Sequences per GPU of the reference point: what fits on 64 GB beside the weights, at `CONTEXT` tokens each."""
OWN_SEQUENCES = 128
"""Sequences per GPU of the claims' own point; they name no batch, and their efficiency needs a large one."""
_WORK = (("decode", 1), ("decode", SEQUENCES), ("decode", OWN_SEQUENCES), ("prefill", 4096))
_SKEW: tuple[Routing, ...] = (UniformRouting(), LogNormalRouting(sigma=0.6))


@dataclass(frozen=True)
class Point:
    """One prediction of the grid: the fastest schedule of that network, work, skew and EP size."""

    network: str
    phase: str
    tokens: int
    skew: str
    ep: int
    deployment: Deployment
    report: StepReport

    @property
    def fits(self) -> bool:
        """Whether the fullest GPU's memory holds it."""
        return max(self.report.peak_memory_bytes) <= self.deployment.cluster.gpu.memory_bytes


def grid(model: ModelSpec, networks: tuple[Cluster, ...]) -> list[Point]:
    """Predictions over network, work, skew and EP size, one expert per GPU, each with its fastest schedule."""
    return [
        _point(model, cluster, phase, tokens, routing, ep, ATTENTION_RANKS)
        for cluster, (phase, tokens), routing, ep in product(networks, _WORK, _SKEW, EP_SIZES)
    ]


def own_points(model: ModelSpec, network: Cluster) -> list[Point]:
    """The claims' own point at every EP size: attention replicated on every GPU, uniform routing."""
    return [_point(model, network, "decode", OWN_SEQUENCES, UniformRouting(), ep, 1) for ep in EP_SIZES]


def _point(
    model: ModelSpec, cluster: Cluster, phase: str, tokens: int, routing: Routing, ep: int, sharing: int
) -> Point:
    workload = Workload(
        phase="decode" if phase == "decode" else "prefill",
        tokens_per_gpu=tokens,
        context=Context(mean_tokens=CONTEXT),
        routing=routing,
    )
    asked = one_expert_per_gpu(model, cluster, workload, ep, Options(attention_ranks=sharing))
    deployment, report = fastest_schedule(asked)
    skew = "uniform" if routing.kind == "uniform" else f"skewed ({report.imbalance:.1f} x)"
    return Point(cluster.name, phase, tokens, skew, ep, deployment, report)


def series(point: Point) -> tuple[str, str, int, bool]:
    """What points that differ in EP size only have in common."""
    return point.network, point.phase, point.tokens, point.skew == "uniform"


def reference(points: list[Point], network: str, tokens: int = SEQUENCES) -> Point:
    """Where a claim that names no work is judged: its network, EP 64, uniform, decode of `tokens` sequences per GPU."""
    return next(
        p
        for p in points
        if (p.network, p.ep, p.phase, p.tokens, p.skew) == (network, 64, "decode", tokens, "uniform")
    )


def own(points: list[Point]) -> Point:
    """The claims' own point at EP 64."""
    return reference(points, points[0].network, OWN_SEQUENCES)


def where(
    points: list[Point], holds: list[bool], values: list[str], considered: list[bool] | None = None
) -> list[str]:
    """One line per network and skew: at which EP sizes and batches it holds, with the value where it does not."""
    use = considered or [True] * len(points)
    rows = [(p, h, v) for p, h, v, used in zip(points, holds, values, use, strict=True) if used]
    lines = []
    for network, uniform in product(dict.fromkeys(p.network for p, *_ in rows), (True, False)):
        mine = [(p, h, v) for p, h, v in rows if p.network == network and (p.skew == "uniform") is uniform]
        skew = "uniform" if uniform else "skewed"
        good = [(p, v) for p, h, v in mine if h]
        fitting = sum(p.fits for p, *_ in mine)
        of = f"{len(mine)} points" + ("" if fitting == len(mine) else f" ({fitting} fit; * does not)")
        if len(good) == len(mine):
            lines.append(f"{network}, {skew}: holds at all {of}")
            continue
        if not good:
            lines.append(f"{network}, {skew}: at none of {of}; {_cells([(p, v) for p, _, v in mine])}")
            continue
        bad = [(p, v) for p, h, v in mine if not h]
        lines.append(f"{network}, {skew}: holds at {len(good)} of {of}, not at {_cells(bad)}")
    return lines


def _cells(cells: list[tuple[Point, str]]) -> str:
    """`EP 16 (decode 1: 12%, ...); EP 64 (...)`."""
    by_ep: dict[int, list[str]] = {}
    for point, value in sorted(cells, key=lambda cell: cell[0].ep):
        by_ep.setdefault(point.ep, []).append(
            f"{point.phase} {point.tokens}{'' if point.fits else '*'}: {value}"
        )
    return "; ".join(f"EP {ep} ({', '.join(texts)})" for ep, texts in by_ep.items())
