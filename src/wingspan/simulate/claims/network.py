"""Claims of the network: overhead and latency."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.exchange import exchange_seconds
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import Point, own, reference, where
from wingspan.simulate.scaling import (
    exposed_transfer_share,
)
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.model import ModelSpec
from wingspan.specs.precision import Precision
from wingspan.traffic.links import row_bytes, uniform_traffic

Array = NDArray[np.float64]


def network_claims(
    model: ModelSpec, ideal: Cluster, real: Cluster, points: list[Point], owned: list[Point]
) -> Iterator[Claim]:
    """Communication overhead, and latency of a token's transfer."""
    share = [exposed_transfer_share(p.report) for p in points]
    chosen = reference(points, ideal.name)
    yield Claim(
        "communication overhead",
        "< 5 % of total time",
        exposed_transfer_share(chosen.report) * 100,
        "%",
        exposed_transfer_share(chosen.report) < 0.05,
        where(points, [s < 0.05 for s in share], [f"{s:.1%}" for s in share]),
        chosen.fits,
        exposed_transfer_share(own(owned).report) * 100,
        own(owned).fits,
    )
    one = {c.name: float(_dispatch_seconds(model, c, np.ones(1))[0]) for c in (ideal, real)}
    rows = f"one token on each of 64 GPUs, its {model.experts.per_token} rows of {model.hidden} values"
    conditions = [f"{rows}: {_both(one, 1e6, 'us')}"]
    for cluster in (ideal, real):
        most = _most_tokens_within(model, cluster, 100e-6)
        conditions.append(
            f"{cluster.name}: a whole dispatch at EP 64, top-{model.experts.per_token}, stays below 100 us up to "
            f"{most} tokens per GPU"
        )
    yield Claim(
        "latency impact per token transfer",
        "< 100 us",
        one[ideal.name] * 1e6,
        "us",
        one[ideal.name] < 100e-6,
        conditions,
    )


def _dispatch_seconds(model: ModelSpec, cluster: Cluster, tokens: Array) -> Array:
    """Price a whole dispatch at EP 64 with so many tokens on every GPU, in BF16 and with low-latency kernels."""
    sized, row = cluster.part(64), row_bytes(model.hidden, Precision.BF16)
    way = uniform_traffic(sized, 64, tokens, row, 64, model.experts.per_token, DispatcherKind.FLAT)
    return exchange_seconds(sized, way, DispatcherKind.FLAT).seconds


def _most_tokens_within(model: ModelSpec, cluster: Cluster, limit: float) -> int:
    """The largest power of two of tokens per GPU whose dispatch stays within `limit` seconds."""
    tokens = 2.0 ** np.arange(0, 15, dtype=np.float64)
    return int(tokens[_dispatch_seconds(model, cluster, tokens) < limit].max(initial=0))


def _both(values: dict[str, float], scale: float, unit: str) -> str:
    return ", ".join(f"{name} {value * scale:.2f} {unit}" for name, value in values.items())
