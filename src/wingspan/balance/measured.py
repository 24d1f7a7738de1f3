"""What was measured of this machine, as the planner's objective: links, and the price of a row."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.cost.compute import BatchRegime
from wingspan.cost.layer import LayerSizes
from wingspan.placement.objective import Objective
from wingspan.specs.cluster import Cluster, Gpu, Link
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.kernels import kernels_named
from wingspan.specs.precision import Precision

_UNLIMITED = 1e30
"""Bytes, or bytes per second, of what was not measured apart: it is in the price of a row."""
_LEAST_SECONDS_PER_ROW = 1e-15


@dataclass(frozen=True)
class LinkRates:
    """Bytes per second of one rank, all ranks sending at once.

    Args:
        within: to ranks of its node.
        across: to other nodes.
        weights: experts' weights to any rank, beside the steps.
    """

    within: float
    across: float
    weights: float


@dataclass(frozen=True)
class Measured:
    """Args:
    ranks, ranks_per_node: of the run.
    within_bytes_per_second, across_bytes_per_second: of one rank's links, all ranks sending at once.
    row_bytes: one token's hidden state as it travels; it goes out and its result comes back.
    seconds_per_row: what one more row costs a rank's experts.
    move_seconds: to fetch one expert.
    dispatcher: how rows travel.
    """

    ranks: int
    ranks_per_node: int
    within_bytes_per_second: float
    across_bytes_per_second: float
    row_bytes: int
    seconds_per_row: float
    move_seconds: float
    dispatcher: DispatcherKind

    def objective(self) -> Objective:
        """The cost model with these figures and nothing else: no latencies, no tiles, no weights that are read."""
        shape = LayerSizes(
            hidden=self.row_bytes,
            intermediate=1,
            gated=False,
            expert_weights=Precision.BF16,
            activations=Precision.BF16,
            out_row_bytes=self.row_bytes,
            back_row_bytes=self.row_bytes,
            batch=BatchRegime.SMALL,
        )
        flops = 2 * shape.values / max(self.seconds_per_row, _LEAST_SECONDS_PER_ROW)
        gpu = Gpu(
            name="this machine",
            peak_flops={Precision.BF16: flops},
            mfu=1,
            memory_bytes=_UNLIMITED,
            memory_bandwidth_bytes_per_second=_UNLIMITED,
            memory_bandwidth_utilisation=1,
        )
        cluster = Cluster(
            name="measured",
            nodes=self.ranks // self.ranks_per_node,
            gpus_per_node=self.ranks_per_node,
            gpu=gpu,
            scale_up=_link(self.within_bytes_per_second),
            scale_up_domain_gpus=self.ranks_per_node,
            scale_out=_link(self.across_bytes_per_second),
            kernels=kernels_named("ideal"),
        )
        return Objective(cluster, shape, self.dispatcher, move_seconds_per_expert=self.move_seconds)


def _link(bytes_per_second: float) -> Link:
    return Link(bandwidth_bytes_per_second=bytes_per_second, utilisation=1, latency_seconds=0)
