"""What strategies plan from and what they are judged by: of a routing trace, or of a load.

Of a trace the first half is planned from, and the later half, which no plan has seen, gives the verdict. So it is with
a load of several moments. A load of one moment has no later half: then the verdict is of what was planned from.

Shapes: L MoE layers, E logical experts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.shares import as_shares
from wingspan.routing.statistics import RoutingStatistics, collect, expert_load
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.routing_text import routing_of_load
from wingspan.specs.workload import RecordedRouting
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice
from wingspan.traffic.layers import Domains


@dataclass(frozen=True, eq=False)
class Evidence:
    """See the file's head.

    Args:
        demand: of a mean step, to plan from.
        whole: the routing that placements are compared by.
        later: the routing of the verdict.
        load_LE: tokens of a mean step by expert, of the whole.
        planned_tokens: tokens planned from.
        all_tokens: tokens of the whole.
        unseen: whether the verdict is of tokens that no plan has seen.
    """

    demand: Demand
    whole: RecordedRouting
    later: RecordedRouting
    load_LE: NDArray[np.float64]
    planned_tokens: int
    all_tokens: int
    unseen: bool

    @property
    def judged_on(self) -> str:
        """In words, what the verdict is of."""
        if not self.unseen:
            return "On the loads that were planned from, there being no later ones:"
        what = "load" if self.whole.tokens is None else "trace"
        return f"On the later half of the {what}, which no plan has seen:"


def of_trace(trace: RoutingTrace, deployment: Deployment, domains: Domains) -> Evidence:
    """The evidence of a trace whose tokens live on the deployment's ranks; `InputError` where it is too short."""
    earlier, middle, later = _split(trace)
    planned_tokens = earlier.num_tokens + middle.num_tokens
    demand = Demand.of(
        _count(earlier),
        _count(middle),
        Choice.of(deployment.model.experts),
        domains,
        planned_tokens / deployment.tokens,
    )
    return Evidence(
        demand,
        routing_of(trace),
        routing_of(later),
        np.asarray(expert_load(trace) * (deployment.tokens / trace.num_tokens), np.float64),
        planned_tokens,
        trace.num_tokens,
        unseen=True,
    )


def of_load(load: RecordedLoad, deployment: Deployment) -> Evidence:
    """The evidence of a load of the deployment's MoE layers; `InputError` where fewer experts than top-k have any."""
    choice, moments = Choice.of(deployment.model.experts), len(load.load_WLE)
    half = moments // 2
    earlier, later = (load.load_WLE[:half], load.load_WLE[half:]) if half else (load.load_WLE, load.load_WLE)
    if not all(part.sum(axis=(0, 2)).all() for part in (earlier, later)):
        # A layer without a token in one half says nothing to plan from.
        earlier = later = load.load_WLE

    def step_LE(load_WLE: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(as_shares(load_WLE.sum(axis=0), choice.per_token) * deployment.tokens)

    def tokens(load_WLE: NDArray[np.float64]) -> int:
        return round(float(load_WLE.sum(axis=(0, 2)).mean()) / choice.per_token)

    return Evidence(
        Demand.of_load(step_LE(earlier), choice),
        routing_of_load(load),
        routing_of_load(replace(load, load_WLE=later)),
        step_LE(load.load_WLE),
        tokens(earlier),
        tokens(load.load_WLE),
        unseen=later is not earlier,
    )


def routing_of(trace: RoutingTrace) -> RecordedRouting:
    """The tokens of a trace as a routing."""
    loads = tuple(tuple(row) for row in expert_load(trace).tolist())
    return RecordedRouting(trace="the trace", loads=loads).with_tokens(trace)


def _split(trace: RoutingTrace) -> tuple[RoutingTrace, RoutingTrace, RoutingTrace]:
    """Two quarters to plan from and a half to judge on, cut between steps where there are at least four."""
    if trace.num_tokens < 4:
        raise InputError(f"routing trace: {trace.num_tokens} tokens; planning and scoring need at least 4")
    starts = np.flatnonzero(np.diff(trace.step_T)) + 1
    places = starts if len(starts) >= 3 else np.arange(1, trace.num_tokens)
    quarter, half = (int(places[np.abs(places - trace.num_tokens * f).argmin()]) for f in (0.25, 0.5))
    if quarter == half:
        quarter = half // 2
    return (
        trace.take(slice(0, quarter)),
        trace.take(slice(quarter, half)),
        trace.take(slice(half, None)),
    )


def _count(trace: RoutingTrace) -> RoutingStatistics:
    return collect([trace], trace.num_tokens, num_windows=1)
