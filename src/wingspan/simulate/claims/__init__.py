"""The claims of docs/reference-model.md, each computed, with the conditions under which it holds.

The claims that depend on the network, the batch, the routing's skew or the EP size are predicted at every point of
a grid over these four; the claims name no batch and no skew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from wingspan.simulate.claims.baseline import baseline_claims
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import grid, own_points
from wingspan.simulate.claims.network import network_claims
from wingspan.simulate.claims.scaling import busy_claim, scaling_claims
from wingspan.simulate.claims.sizes import hardware_claims, memory_claims, size_claims
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec

__all__ = ["PARTS", "Claim", "claims"]


PARTS = 9
"""How often `claims` says that a part is done."""


def claims(
    plain: ModelSpec,
    gated: ModelSpec,
    ideal: Cluster,
    real: Cluster,
    done: Callable[[], None] = lambda: None,
) -> list[Claim]:
    """Every row of the table.

    Args:
        plain: the reference model, two matrices per expert.
        gated: the same with three.
        ideal: its hardware as claimed.
        real: nodes that can be bought.
        done: called after each of `PARTS` parts.
    """
    points = grid(plain, (ideal, real))
    done()
    owned = own_points(plain, ideal)
    done()
    parts: list[Callable[[], Iterable[Claim]]] = [
        lambda: size_claims(plain, gated),
        lambda: hardware_claims(ideal, real),
        lambda: memory_claims(plain, ideal, real),
        lambda: network_claims(plain, ideal, real, points, owned),
        lambda: scaling_claims(points, owned),
        lambda: baseline_claims(plain, ideal, real),
        lambda: [busy_claim(points, owned)],
    ]
    rows: list[Claim] = []
    for part in parts:
        rows.extend(part())
        done()
    return rows
