"""What one MoE layer costs: dispatch, experts and combine of its traffic.

The one price that a prediction shows and that a planner compares placements by.

Shapes: L MoE layers, R ranks, S slots per rank, P parts of a step (micro-batches x chunks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.compute import BatchRegime, experts_seconds
from wingspan.cost.exchange import (
    Collective,
    ExchangeSeconds,
    Phase,
    all_reduce_seconds,
    collective_seconds,
    exchange_seconds,
)
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.model import ModelSpec
from wingspan.specs.part_precision import Precisions
from wingspan.specs.precision import Precision
from wingspan.traffic.layers import LayerTraffic
from wingspan.traffic.links import Traffic, row_bytes
from wingspan.traffic.planes import plane_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerSizes:
    """The sizes of an MoE layer's rows and experts.

    Args:
        hidden: values of a row.
        intermediate: inner width of an expert.
        gated: whether an expert has a gate beside its up product.
        expert_weights, activations: in which its products are computed.
        out_row_bytes, back_row_bytes: one row of a dispatch, of a combine.
        batch: which kernels compute.
        cut: neighbouring ranks over which every expert's inner width is cut.
        replicated: all of these hold all tokens before and after: nothing is gathered, and sums are all-reduced.
        engine_sums: by an engine's own kernels.
    """

    hidden: int
    intermediate: int
    gated: bool
    expert_weights: Precision
    activations: Precision
    out_row_bytes: float
    back_row_bytes: float
    batch: BatchRegime
    cut: int = 1
    replicated: bool = False
    engine_sums: bool = False

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        precisions: Precisions,
        phase: str,
        cut: int = 1,
        *,
        dispatcher: DispatcherKind | None,
        replicated: bool = False,
        engine_sums: bool = False,
    ) -> LayerSizes:
        """A model's, in these precisions, cut over so many ranks; rows travel by the dispatcher, None: none do."""
        return cls(
            hidden=model.row_width,
            intermediate=model.experts.intermediate,
            gated=model.experts.gated,
            expert_weights=precisions.experts.weights,
            activations=precisions.experts.activations,
            out_row_bytes=row_bytes(model.row_width, precisions.dispatch),
            back_row_bytes=row_bytes(model.row_width, precisions.combine),
            batch=BatchRegime.of(phase, dispatcher),
            cut=cut,
            replicated=replicated,
            engine_sums=engine_sums,
        )

    @property
    def values(self) -> int:
        """Weights of one expert."""
        return (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def expert_bytes(self) -> float:
        """One expert's weights, with their scales."""
        return self.values * self.expert_weights.weight_bytes


@dataclass(frozen=True, eq=False)
class LayerCost:
    """The price of every MoE layer of a step.

    Args:
        sent, returned: bytes through each link in the whole dispatch, the whole combine.
        dispatch, combine: seconds of one part of each, (L,).
        experts_PLR: seconds of each part's experts on each rank.
        gather_L, reduce_L: seconds of one part's collectives of the ranks that share experts, in the fullest group.
    """

    sent: Traffic
    returned: Traffic
    dispatch: ExchangeSeconds
    combine: ExchangeSeconds
    experts_PLR: Floats
    gather_L: Floats
    reduce_L: Floats

    @property
    def experts_L(self) -> Floats:
        """The fullest rank's experts, part by part, added up."""
        return np.asarray(self.experts_PLR.max(axis=2).sum(axis=0))

    @property
    def exchanges_L(self) -> Floats:
        """Dispatches, combines and collectives of all parts."""
        parts = len(self.experts_PLR)
        exchanges_L = self.dispatch.seconds + self.combine.seconds
        return np.asarray((exchanges_L + self.gather_L + self.reduce_L) * parts)

    @property
    def seconds_L(self) -> Floats:
        """One after the other."""
        return self.experts_L + self.exchanges_L


def price_experts(
    cluster: Cluster,
    shape: LayerSizes,
    slot_rows_PLRS: Floats,
    arrived_PLR: Floats,
    active_PLRS: Floats | None = None,
) -> Floats:
    """Seconds of each part's experts on each rank, (P, L, R).

    Args:
        cluster: whose GPUs compute.
        shape: of the layers.
        slot_rows_PLRS: rows that each slot computes.
        arrived_PLR: rows that each rank gets, before they are dealt to its slots.
        active_PLRS: where rows are an expectation, the share of the time in which each slot has any.
    """
    return experts_seconds(
        cluster,
        slot_rows_PLRS,
        shape.hidden,
        shape.intermediate // shape.cut,
        gated=shape.gated,
        weights=shape.expert_weights,
        activations=shape.activations,
        batch=shape.batch,
        received=arrived_PLR,
        active_S=active_PLRS,
    )


def layer_cost(
    cluster: Cluster,
    shape: LayerSizes,
    traffic: LayerTraffic,
    dispatcher: DispatcherKind,
    slot_rows_PLRS: Floats | None = None,
    active_PLRS: Floats | None = None,
) -> LayerCost:
    """Price a step's traffic.

    Args:
        cluster: exactly the ranks: those of the placement, times `shape.cut`.
        shape: of the layers.
        traffic: of the whole step, between the placement's ranks.
        dispatcher: whose kernels move the rows.
        slot_rows_PLRS: rows that each slot computes in each part; default: the traffic's, in one part.
        active_PLRS: as of `price_experts`.

    Returns:
        Over all ranks: those that share experts carry and compute alike.
    """
    rows_PLRS = traffic.slot_rows_LRS[None] if slot_rows_PLRS is None else slot_rows_PLRS
    parts = len(rows_PLRS)
    cut, plane = shape.cut, plane_of(cluster, shape.cut)
    sent = traffic.links.scaled(shape.out_row_bytes / cut)
    returned = traffic.links.back().scaled(shape.back_row_bytes / cut)
    experts_PLR = price_experts(cluster, shape, rows_PLRS, traffic.arrived_LR[None] / parts, active_PLRS)
    gather_L, reduce_L = _collectives(cluster, shape, traffic.arrived_LR.max(axis=1) / parts)
    return LayerCost(
        sent.over_planes(cut),
        returned.over_planes(cut),
        exchange_seconds(plane, sent.scaled(1 / parts), dispatcher, Phase.DISPATCH),
        exchange_seconds(plane, returned.scaled(1 / parts), dispatcher, Phase.COMBINE),
        np.repeat(experts_PLR, cut, axis=2),
        gather_L,
        reduce_L,
    )


def _collectives(cluster: Cluster, shape: LayerSizes, rows_L: Floats) -> tuple[Floats, Floats]:
    """What the ranks of the fullest group gather before its experts and sum after them: seconds, each (L,)."""
    out, back = rows_L * shape.out_row_bytes, rows_L * shape.back_row_bytes
    if shape.replicated:
        return np.zeros_like(rows_L), all_reduce_seconds(cluster, back, shape.cut, engine=shape.engine_sums)
    return (
        collective_seconds(cluster, Collective.ALL_GATHER, out, shape.cut),
        collective_seconds(cluster, Collective.REDUCE_SCATTER, back, shape.cut),
    )
