"""The claims of docs/reference-model.md, each computed, with the conditions under which it holds.

The claims that depend on the network, the batch, the routing's skew or the EP size are predicted at every point of
a grid over these four; the claims name no batch and no skew.
"""

from __future__ import annotations

from wingspan.simulate.claims.baseline import baseline_claims
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import grid, own_points
from wingspan.simulate.claims.network import network_claims
from wingspan.simulate.claims.scaling import busy_claim, scaling_claims
from wingspan.simulate.claims.sizes import hardware_claims, memory_claims, size_claims
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec

__all__ = ["Claim", "claims"]


def claims(plain: ModelSpec, gated: ModelSpec, ideal: Cluster, real: Cluster) -> list[Claim]:
    """Every row of the table.

    Args:
        plain: the reference model, two matrices per expert.
        gated: the same with three.
        ideal: its hardware as claimed.
        real: nodes that can be bought.
    """
    points, owned = grid(plain, (ideal, real)), own_points(plain, ideal)
    return [
        *size_claims(plain, gated),
        *hardware_claims(ideal, real),
        *memory_claims(plain, ideal, real),
        *network_claims(plain, ideal, real, points, owned),
        *scaling_claims(points, owned),
        *baseline_claims(plain, ideal, real),
        busy_claim(points, owned),
    ]
