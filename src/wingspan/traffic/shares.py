"""From a workload's routing to the share of tokens that each expert of each MoE layer gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.routing import shares
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import (
    LogNormalRouting,
    PowerLawRouting,
    RecordedRouting,
    Workload,
)


def expert_shares(model: ModelSpec, workload: Workload) -> NDArray[np.float64]:
    """Probability that a token picks each expert: (MoE layers, experts).

    A layer sums to top-k, or to less where some choices compute nothing.

    Shared experts that lie in slots come last, and have every token.

    Raises:
        InputError: recorded loads are of another number of experts.
    """
    shares_LE, experts = _shares(model, workload), model.experts
    if experts.zero:
        shares_LE = shares_LE * (experts.routed / (experts.routed + experts.zero))
    if not experts.shared_slots:
        return shares_LE
    return np.concatenate([shares_LE, np.ones((len(shares_LE), experts.shared_slots))], axis=1)


def _shares(model: ModelSpec, workload: Workload) -> NDArray[np.float64]:
    layers, experts, top_k = len(model.moe_layers), model.experts.routed, model.experts.chosen
    routing = workload.routing
    if isinstance(routing, PowerLawRouting):
        return shares.power_law(layers, experts, top_k, routing.exponent, workload.seed)
    if isinstance(routing, LogNormalRouting):
        return shares.log_normal(
            layers, experts, top_k, routing.sigma, workload.seed, group_sigma=routing.group_sigma
        )
    if isinstance(routing, RecordedRouting):
        counts_LE = np.array(routing.loads, dtype=np.float64)
        if counts_LE.shape[1] != experts:
            raise InputError(
                f"workload.routing: loads are of {counts_LE.shape[1]} experts, {model.name} has {experts}; "
                "use a trace of this model"
            )
        return shares.as_shares(counts_LE[np.arange(layers) % len(counts_LE)], top_k)
    return shares.uniform(layers, experts, top_k)
