"""How long a dispatch or a combine takes: the most loaded link, plus latency.

Resources: each rank's scale-up port (NVLink) and network card, in each direction, and each rack's way up.
Shapes: R ranks, G scale-up domains, K racks; `...` anything before (layers, chunks).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.cost.distinct import expected_distinct
from wingspan.errors import InputError
from wingspan.specs.cluster import Cluster
from wingspan.specs.kernels import ExchangeKernel
from wingspan.specs.precision import Precision

Array = NDArray[np.float64]

_SCALE_GROUP = 128
"""Values that share one FP32 scale in an FP8 message (DeepEP, README of deepseek-ai/DeepEP)."""


class Method(StrEnum):
    """How rows travel."""

    NORMAL = "normal"
    """One copy per (token, domain) crosses; a rank there forwards it inside. For large batches."""
    LOW_LATENCY = "low_latency"
    """One copy per (token, expert), sent directly. For small batches."""


@dataclass(frozen=True, eq=False)
class Traffic:
    """Bytes through every resource during one dispatch; `.back()` gives the combine.

    The four arrays are (..., R); `rack_sent` and `rack_received` (..., K), with K = 0 where there are no racks.
    """

    scale_up_sent: Array
    scale_up_received: Array
    scale_out_sent: Array
    scale_out_received: Array
    rack_sent: Array
    rack_received: Array

    def back(self, row_ratio: float = 1.0) -> Traffic:
        """The same rows the other way, each `row_ratio` times as large (a combine after an FP8 dispatch: near 2)."""
        return Traffic(
            self.scale_up_received * row_ratio,
            self.scale_up_sent * row_ratio,
            self.scale_out_received * row_ratio,
            self.scale_out_sent * row_ratio,
            self.rack_received * row_ratio,
            self.rack_sent * row_ratio,
        )


@dataclass(frozen=True, eq=False)
class Exchange:
    """Seconds of one exchange, (...,): the whole, the busiest link of each level, and what no link explains."""

    seconds: Array
    scale_up_seconds: Array
    scale_out_seconds: Array
    rack_seconds: Array
    latency_seconds: Array


def row_bytes(hidden: int, precision: Precision) -> float:
    """Bytes of one token's hidden state on the wire: FP8 and FP4 carry an FP32 scale per 128 values."""
    scales = 4 * hidden / _SCALE_GROUP if precision.bytes <= 1 else 0
    return hidden * precision.bytes + scales


def flat_traffic(cluster: Cluster, bytes_RR: ArrayLike) -> Traffic:
    """Every byte goes from its source straight to its destination (low-latency kernels, plain all-to-all).

    Args:
        bytes_RR: (..., source, destination); what stays on a rank (the diagonal) uses no link.
    """
    bytes_RR = np.asarray(bytes_RR, dtype=np.float64)
    ranks = bytes_RR.shape[-1]
    domain_R = np.arange(ranks) // cluster.scale_up_domain_gpus
    inside_RR = domain_R[:, None] == domain_R[None, :]
    within = np.where(inside_RR & ~np.eye(ranks, dtype=bool), bytes_RR, 0.0)
    across = np.where(inside_RR, 0.0, bytes_RR)
    return Traffic(
        within.sum(-1), within.sum(-2), across.sum(-1), across.sum(-2), *_rack_bytes(cluster, bytes_RR)
    )


def hierarchical_traffic(cluster: Cluster, bytes_RR: ArrayLike, crossing_RG: ArrayLike) -> Traffic:
    """One copy per (token, domain) crosses to the rank of the same index there, which forwards it inside.

    Args:
        bytes_RR: (..., source, destination) as delivered: one copy per (token, destination rank).
        crossing_RG: (..., source, domain): one copy per (token, domain); its own domain's entry uses no link.

    Raises:
        InputError: the ranks do not fill whole domains.
    """
    bytes_RR = np.asarray(bytes_RR, dtype=np.float64)
    crossing_RG = np.asarray(crossing_RG, dtype=np.float64)
    ranks, domains = bytes_RR.shape[-1], crossing_RG.shape[-1]
    if ranks % domains:
        raise InputError(f"{ranks} ranks do not fill {domains} scale-up domains evenly")
    width = ranks // domains
    leading = bytes_RR.shape[:-2]
    # Axes: source domain, source index, destination domain, destination index.
    delivered = bytes_RR.reshape(*leading, domains, width, domains, width)
    # The forwarder for (source index i, destination domain g) is rank (g, i): what it sends to itself is free.
    by_rail = delivered.sum(-4)  # (..., source index = forwarder index, domain, destination index)
    forwarded = np.where(np.eye(width, dtype=bool)[:, None, :], 0.0, by_rail)
    sent_up = np.moveaxis(forwarded.sum(-1), -1, -2)
    received_up = forwarded.sum(-3)
    own = np.eye(domains, dtype=bool)[:, None, :]
    crossing = np.where(own, 0.0, crossing_RG.reshape(*leading, domains, width, domains))
    sent_out = crossing.sum(-1)
    received_out = np.moveaxis(crossing.sum(-3), -1, -2)
    flat = (*leading, ranks)
    rail_RR = _crossing_matrix(crossing, width)
    return Traffic(
        sent_up.reshape(flat),
        received_up.reshape(flat),
        sent_out.reshape(flat),
        received_out.reshape(flat),
        *_rack_bytes(cluster, rail_RR),
    )


def uniform_traffic(
    cluster: Cluster, ranks: int, tokens: ArrayLike, row: float, experts: int, top_k: int, method: Method
) -> Traffic:
    """Expected traffic where each token picks its experts uniformly, the experts lie evenly over the ranks.

    Args:
        tokens: per rank; any shape.
        row: bytes of one row.
    """
    tokens = np.asarray(tokens, dtype=np.float64)[..., None]
    width = min(cluster.scale_up_domain_gpus, ranks)
    domains = ranks // width
    if method is Method.LOW_LATENCY:
        inside = top_k * (width - 1) / ranks
        crossing = top_k * (ranks - width) / ranks
    else:
        inside = expected_distinct(experts, top_k, ranks) * (width - 1) / width
        crossing = expected_distinct(experts, top_k, domains) * (domains - 1) / domains
    within = np.broadcast_to(tokens * row * inside, (*tokens.shape[:-1], ranks))
    across = np.broadcast_to(tokens * row * crossing, within.shape)
    racks = _racks(cluster, ranks)
    beyond = 0.0
    if racks > 1:
        per_rack = ranks / racks
        beyond = per_rack * (ranks - per_rack) / (ranks - width)
    leaving = np.broadcast_to(across[..., :1] * beyond, (*tokens.shape[:-1], racks))
    return Traffic(within, within, across, across, leaving, leaving)


def exchange_seconds(cluster: Cluster, traffic: Traffic, method: Method) -> Exchange:
    """Time until the slowest rank has sent and received everything."""
    kernel = _kernel(cluster, method)
    ranks = traffic.scale_up_sent.shape[-1]
    up = _busiest(traffic.scale_up_sent, traffic.scale_up_received)
    out = _busiest(traffic.scale_out_sent, traffic.scale_out_received)
    scale_up = up / (cluster.scale_up.sustained_bytes_per_second * kernel.scale_up_share)
    scale_out = out / (cluster.scale_out.sustained_bytes_per_second * kernel.scale_out_share)
    rack = np.zeros_like(scale_out)
    if cluster.racks is not None and traffic.rack_sent.shape[-1]:
        cards = cluster.racks.nodes_per_rack * cluster.gpus_per_node
        way_up = cluster.scale_out.sustained_bytes_per_second * cards / cluster.racks.oversubscription
        rack = _busiest(traffic.rack_sent, traffic.rack_received) / way_up
    domains = max(1, ranks // cluster.scale_up_domain_gpus)
    latency = kernel.launch_seconds + kernel.latency_seconds_per_domain_doubling * np.log2(domains)
    latency += cluster.scale_out.latency_seconds if domains > 1 else cluster.scale_up.latency_seconds
    latency = np.full_like(scale_out, latency)
    seconds = np.maximum(np.maximum(scale_up, scale_out), rack) + latency
    return Exchange(seconds, scale_up, scale_out, rack, latency)


def _kernel(cluster: Cluster, method: Method) -> ExchangeKernel:
    return cluster.kernels.normal if method is Method.NORMAL else cluster.kernels.low_latency


def _busiest(sent: Array, received: Array) -> Array:
    busiest: Array = np.maximum(sent.max(-1), received.max(-1))
    return busiest


def _racks(cluster: Cluster, ranks: int) -> int:
    if cluster.racks is None:
        return 0
    return -(-ranks // (cluster.racks.nodes_per_rack * cluster.gpus_per_node))


def _rack_bytes(cluster: Cluster, bytes_RR: Array) -> tuple[Array, Array]:
    """Bytes that leave and enter each rack: two (..., K)."""
    ranks = bytes_RR.shape[-1]
    racks = _racks(cluster, ranks)
    if cluster.racks is None or racks < 2:
        nothing = np.zeros((*bytes_RR.shape[:-2], 0))
        return nothing, nothing
    rack_R = np.arange(ranks) // (cluster.racks.nodes_per_rack * cluster.gpus_per_node)
    leaving = np.where(rack_R[:, None] == rack_R[None, :], 0.0, bytes_RR)
    member_RK = (rack_R[:, None] == np.arange(racks)).astype(np.float64)
    return leaving.sum(-1) @ member_RK, leaving.sum(-2) @ member_RK


def _crossing_matrix(crossing: Array, width: int) -> Array:
    """(..., domain, index, domain) as a (..., R, R) matrix in which a row goes to its own index elsewhere."""
    leading, domains = crossing.shape[:-3], crossing.shape[-1]
    full = crossing[..., None] * np.eye(width)[None, :, None, :]
    return full.reshape(*leading, domains * width, domains * width)
