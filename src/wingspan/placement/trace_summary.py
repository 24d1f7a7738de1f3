"""A routing trace in figures, with its experts on the ranks and nodes where a placement has them."""

from __future__ import annotations

from collections.abc import Sequence

from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.routing.statistics import RoutingStatistics, collect
from wingspan.routing.summary import RoutingSummary, summarise
from wingspan.routing.trace_file import TraceFile
from wingspan.specs.placement import Placement


def placed_in_order(file: TraceFile, ranks: int | None = None) -> Placement:
    """The trace's experts in order over so many ranks; None: one for each of them."""
    ranks = file.num_experts if ranks is None else ranks
    if ranks < 1:
        raise InputError(f"`ranks` {ranks}: use 1 or more")
    return linear(file.num_layers, file.num_experts, ranks, -(-file.num_experts // ranks))


def summarise_trace(
    file: TraceFile, placement: Placement, ranks_per_node: Sequence[int], *, windows: int = 8, pairs: int = 8
) -> tuple[RoutingSummary, RoutingStatistics]:
    """What a trace says, and the counts that say it.

    Args:
        file: the trace.
        placement: where its experts lie; of several replicas the first counts.
        ranks_per_node: node sizes, of each of which the nodes per token are counted.
        windows: of time, for the drift.
        pairs: how many of the strongest pairs are named.

    Raises:
        InputError: the trace holds no token, or the placement is of another model.
    """
    if not file.num_tokens:
        raise InputError(f"{file.path}: the trace holds no token; there is nothing to show")
    if (placement.num_layers, placement.num_experts) != (file.num_layers, file.num_experts):
        raise InputError(
            f"`placement`: {placement.num_layers} layers of {placement.num_experts} experts, the trace "
            f"has {file.num_layers} of {file.num_experts}"
        )
    nodes = {f"{size} ranks a node": placement.first_rank_LE // size for size in ranks_per_node}
    counts = collect(file.chunks(), file.num_tokens, num_windows=windows, nodes=nodes)
    return summarise(counts, nodes, pairs), counts
