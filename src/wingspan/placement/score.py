"""How good a placement is for a trace on a topology: balance, traffic between nodes, fullest link, step time.

Shapes: L layers, R ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.placement.difference import difference
from wingspan.placement.exact import Counted, count
from wingspan.placement.expected import compute_seconds
from wingspan.placement.placement import EMPTY, Placement
from wingspan.placement.topology import Topology
from wingspan.routing.load import imbalance_per_layer
from wingspan.routing.statistics import expert_load
from wingspan.routing.trace import RoutingTrace


@dataclass(frozen=True, eq=False)
class PlacementScore:
    """Figures of a mean step of the trace; bytes and seconds count the way out and back, over all MoE layers.

    Attributes:
        expert_imbalance_L: max / mean tokens of the logical experts, which no placement changes.
        slot_imbalance_L: max / mean tokens of the slots that hold an expert.
        rank_imbalance_L: max / mean tokens of the ranks.
        across_flat_bytes: between nodes, one row per (token, expert).
        across_deduplicated_bytes: between nodes, one row per (token, node).
        busiest_card_bytes: through the fullest network card of each layer, in its fuller direction.
        compute_seconds: fullest rank of each layer.
        link_seconds: fullest link of each layer.
        experts_moved: experts to fetch from the placement it is compared with; None without one.
        moved_bytes: their weights.
    """

    expert_imbalance_L: NDArray[np.float64]
    slot_imbalance_L: NDArray[np.float64]
    rank_imbalance_L: NDArray[np.float64]
    across_flat_bytes: float
    across_deduplicated_bytes: float
    busiest_card_bytes: float
    compute_seconds: float
    link_seconds: float
    experts_moved: int | None
    moved_bytes: int | None

    @property
    def step_seconds(self) -> float:
        """Expert compute plus dispatch and combine, without overlap; attention is the same for all placements."""
        return self.compute_seconds + self.link_seconds

    @property
    def imbalance(self) -> float:
        """Rank imbalance, per layer, then averaged over layers."""
        return float(self.rank_imbalance_L.mean())

    def to_dict(self) -> dict[str, float | int | list[float] | None]:
        """The JSON form."""
        return {
            "rank_imbalance": self.imbalance,
            "rank_imbalance_per_layer": self.rank_imbalance_L.tolist(),
            "slot_imbalance": float(self.slot_imbalance_L.mean()),
            "expert_imbalance": float(self.expert_imbalance_L.mean()),
            "across_flat_bytes": self.across_flat_bytes,
            "across_deduplicated_bytes": self.across_deduplicated_bytes,
            "busiest_card_bytes": self.busiest_card_bytes,
            "compute_seconds": self.compute_seconds,
            "link_seconds": self.link_seconds,
            "step_seconds": self.step_seconds,
            "experts_moved": self.experts_moved,
            "moved_bytes": self.moved_bytes,
        }


def score(
    placement: Placement,
    trace: RoutingTrace,
    topology: Topology,
    present: Placement | None = None,
    steps: float | None = None,
) -> PlacementScore:
    """Count `trace` through `placement` and price it.

    Args:
        placement: to be scored.
        trace: its tokens live on ranks of `topology`.
        topology: of the cluster.
        present: the placement from which experts would move.
        steps: steps that the trace's tokens make up (default: as recorded); another number asks for the same
            traffic in larger or smaller steps.

    Raises:
        InputError: placement, trace and topology do not agree, or the trace is empty.
    """
    if not trace.num_tokens:
        raise InputError("routing trace: no token in it, so there is nothing to score")
    steps = steps or len(np.unique(trace.step_T))
    counted = count(placement, trace, topology)
    moved = difference(present, placement, topology.expert_bytes) if present is not None else None
    row_bytes = 2 * topology.row_bytes / steps
    return PlacementScore(
        expert_imbalance_L=imbalance_per_layer(expert_load(trace)),
        slot_imbalance_L=_slot_imbalance(placement, counted),
        rank_imbalance_L=imbalance_per_layer(counted.slot_tokens_LRS.sum(axis=2)),
        across_flat_bytes=float(counted.flat_rows_L.sum() * row_bytes),
        across_deduplicated_bytes=float(counted.node_rows_L.sum() * row_bytes),
        busiest_card_bytes=float(_busiest_card_L(counted).sum() * row_bytes),
        compute_seconds=float(compute_seconds(counted.slot_tokens_LRS / steps, topology).sum()),
        link_seconds=float(_link_seconds_L(counted, topology).sum() / steps),
        experts_moved=moved.experts if moved else None,
        moved_bytes=moved.total_bytes if moved else None,
    )


def _busiest_card_L(counted: Counted) -> NDArray[np.int64]:
    fullest: NDArray[np.int64] = np.maximum(
        counted.into_card_LC.max(axis=1), counted.out_of_card_LC.max(axis=1)
    )
    return fullest


def _link_seconds_L(counted: Counted, topology: Topology) -> NDArray[np.float64]:
    across_L = _busiest_card_L(counted) * topology.across_seconds_per_row
    within_L = counted.into_rank_LR.max(axis=1) * topology.within_seconds_per_row
    result: NDArray[np.float64] = np.maximum(across_L, within_L)
    return result


def _slot_imbalance(placement: Placement, counted: Counted) -> NDArray[np.float64]:
    tokens_LP = counted.slot_tokens_LRS.reshape(placement.num_layers, -1)
    held_L = (placement.slots_LRS != EMPTY).reshape(placement.num_layers, -1).sum(axis=1)
    mean_L = tokens_LP.sum(axis=1) / held_L
    ratio: NDArray[np.float64] = np.divide(
        tokens_LP.max(axis=1), mean_L, out=np.ones_like(mean_L), where=mean_L > 0
    )
    return ratio
