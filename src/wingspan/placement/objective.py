"""What placements are judged by: the cost model's price of the traffic that they lead to.

Shapes: L layers, E experts, R ranks, S slots per rank, G nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.layer import LayerCost, LayerSizes, layer_cost
from wingspan.errors import InputError
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import EMPTY
from wingspan.traffic.demand import Demand
from wingspan.traffic.expected import expected_slot_rows, expected_traffic
from wingspan.traffic.layers import Domains
from wingspan.traffic.rule import NEAREST_FIRST, ReplicaRule

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """The step's MoE layers on one cluster; a placement's cost is dispatch, the fullest rank's experts and combine.

    A node here is a scale-up domain: ranks that share the fast link.

    Args:
        cluster: exactly the ranks, in whole nodes.
        shape: of rows and experts.
        dispatcher: how rows travel.
        rule: of the replicas.
        move_seconds_per_expert: to fetch one expert's weights, experts counted one after another; default: over one
            network card.

    Raises:
        InputError: the ranks do not fill whole nodes.
    """

    cluster: Cluster
    shape: LayerSizes
    dispatcher: DispatcherKind
    rule: ReplicaRule = NEAREST_FIRST
    move_seconds_per_expert: float = -1.0

    def __post_init__(self) -> None:
        if self.move_seconds_per_expert < 0:
            seconds = self.shape.expert_bytes / self.cluster.scale_out.sustained_bytes_per_second
            object.__setattr__(self, "move_seconds_per_expert", seconds)
        if self.ranks % self.ranks_per_node:
            raise InputError(
                f"{self.ranks} ranks do not fill whole nodes of {self.ranks_per_node}; use a multiple of it, or nodes "
                "of another size"
            )

    @property
    def ranks(self) -> int:
        """EP size, spare ranks included."""
        return self.cluster.gpus

    @property
    def domains(self) -> Domains:
        """The ranks in nodes."""
        return Domains.of(self.cluster, self.ranks)

    @property
    def ranks_per_node(self) -> int:
        """Ranks that share the fast link."""
        return self.domains.width

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.domains.count

    @property
    def once_per_node(self) -> bool:
        """Whether a token crosses to each node once, however many experts it has there."""
        return self.dispatcher is DispatcherKind.HIERARCHICAL

    @property
    def across_seconds_per_row(self) -> float:
        """Time of one row on one network card, out and back."""
        both = self.shape.out_row_bytes + self.shape.back_row_bytes
        return both / self.cluster.scale_out.sustained_bytes_per_second

    def cost(self, slots_LRS: Ints, demand: Demand) -> LayerCost:
        """The price of a step of `demand` with these slots, which must hold every expert."""
        traffic = expected_traffic(slots_LRS, demand, self.cluster, self.dispatcher, self.rule)
        return layer_cost(self.cluster, self.shape, traffic, self.dispatcher)

    def seconds_L(self, slots_LRS: Ints, demand: Demand) -> Floats:
        """The price of each layer: (L,)."""
        return self.cost(slots_LRS, demand).seconds_L

    def slot_rows(self, slots_LRS: Ints, demand: Demand) -> Floats:
        """Rows that each slot computes: (L, R, S)."""
        return expected_slot_rows(slots_LRS, demand, self.domains, self.rule)

    def on_node(self, slots_LRS: Ints, num_experts: int) -> Floats:
        """1 where a node holds an expert: (L, E, G)."""
        slots_LGB = slots_LRS.reshape(len(slots_LRS), self.nodes, -1)
        layer, node, place = np.nonzero(slots_LGB != EMPTY)
        result = np.zeros((len(slots_LRS), num_experts, self.nodes))
        result[layer, slots_LGB[layer, node, place], node] = 1.0
        return result
