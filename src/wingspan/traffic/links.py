"""What each link carries in one exchange of rows: from matrices of who sends to whom, or from uniform routing.

Shapes: R ranks, G scale-up domains, Z racks; `...` anything before (layers, chunks).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError
from wingspan.routing.distinct import expected_distinct
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Traffic:
    """What goes through every link during one dispatch, in rows or in bytes; `.back()` gives the combine.

    The first four are (..., R); `rack_sent` and `rack_received` (..., Z), with Z = 0 where there are no racks.
    """

    scale_up_sent: Array
    scale_up_received: Array
    scale_out_sent: Array
    scale_out_received: Array
    rack_sent: Array
    rack_received: Array

    def scaled(self, factor: float) -> Traffic:
        """Each amount times `factor`: bytes from rows, a part of the step, a mean step."""
        return Traffic(*(getattr(self, field.name) * factor for field in fields(self)))

    def over_planes(self, planes: int) -> Traffic:
        """Take one exchange for as many alike ones side by side, each among every `planes`-th rank of all."""
        return Traffic(
            np.repeat(self.scale_up_sent, planes, axis=-1),
            np.repeat(self.scale_up_received, planes, axis=-1),
            np.repeat(self.scale_out_sent, planes, axis=-1),
            np.repeat(self.scale_out_received, planes, axis=-1),
            self.rack_sent * planes,
            self.rack_received * planes,
        )

    def back(self) -> Traffic:
        """Send the same rows the other way."""
        return Traffic(
            self.scale_up_received,
            self.scale_up_sent,
            self.scale_out_received,
            self.scale_out_sent,
            self.rack_received,
            self.rack_sent,
        )


def by_network_card(cluster: Cluster, bytes_R: Array) -> Array:
    """What goes through each network card, (..., cards), of what its GPUs send or receive, (..., R)."""
    if cluster.gpus_per_network_card == 1:
        return bytes_R
    in_node = np.arange(bytes_R.shape[-1]) % cluster.gpus_per_node
    first = np.flatnonzero(in_node % cluster.gpus_per_network_card == 0)
    through: Array = np.add.reduceat(bytes_R, first, axis=-1)
    return through


def row_bytes(hidden: int, precision: Precision) -> float:
    """Bytes of one token's hidden state on the wire, with the block scales of FP8 and FP4."""
    return hidden * precision.row_bytes


def flat_traffic(cluster: Cluster, bytes_RR: ArrayLike) -> Traffic:
    """Everything goes from its source straight to its destination (low-latency kernels, plain all-to-all).

    Args:
        bytes_RR: (..., source, destination); what stays on a rank (the diagonal) uses no link.
    """
    bytes_RR = np.asarray(bytes_RR, dtype=np.float64)
    ranks = bytes_RR.shape[-1]
    domain_R = np.arange(ranks) // cluster.scale_up_domain_gpus
    inside_RR = domain_R[:, None] == domain_R[None, :]
    within = np.where(inside_RR & ~np.eye(ranks, dtype=bool), bytes_RR, 0.0)
    across = np.where(inside_RR, 0.0, bytes_RR)
    racks = _rack_bytes(cluster, bytes_RR)
    return Traffic(within.sum(-1), within.sum(-2), across.sum(-1), across.sum(-2), *racks)


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
    # What source index i of any domain sends into domain g passes rank (g, i), which keeps its own part.
    by_forwarder = delivered.sum(-4)
    forwarded = np.where(np.eye(width, dtype=bool)[:, None, :], 0.0, by_forwarder)
    sent_up = np.moveaxis(forwarded.sum(-1), -1, -2)
    received_up = forwarded.sum(-3)
    own = np.eye(domains, dtype=bool)[:, None, :]
    crossing = np.where(own, 0.0, crossing_RG.reshape(*leading, domains, width, domains))
    sent_out = crossing.sum(-1)
    received_out = np.moveaxis(crossing.sum(-3), -1, -2)
    flat = (*leading, ranks)
    racks = _rack_bytes(cluster, _rails(crossing, width))
    return Traffic(
        sent_up.reshape(flat),
        received_up.reshape(flat),
        sent_out.reshape(flat),
        received_out.reshape(flat),
        *racks,
    )


def uniform_traffic(
    cluster: Cluster,
    ranks: int,
    tokens: ArrayLike,
    row: float,
    experts: int,
    top_k: int,
    dispatcher: DispatcherKind,
    groups_per_token: int | None = None,
) -> Traffic:
    """Expected traffic where every expert is as likely as any other and they lie evenly over the ranks.

    Args:
        tokens: of each rank; any shape.
        row: bytes of one row.
        groups_per_token: a token chooses among the experts of so many domains only (node-limited routing);
            `None`: among all.

    Raises:
        InputError: the ranks do not fill whole domains.
    """
    tokens = np.asarray(tokens, dtype=np.float64)[..., None]
    width = min(cluster.scale_up_domain_gpus, ranks)
    if ranks % width:
        raise InputError(
            f"{ranks} ranks do not fill scale-up domains of {width} GPUs; use a multiple of {width}"
        )
    domains = ranks // width
    open_domains = min(groups_per_token or domains, domains)
    reach = experts * open_domains // domains
    if dispatcher is DispatcherKind.FLAT:
        inside = top_k * (width - 1) / ranks
        crossing = top_k * (ranks - width) / ranks
    else:
        # A token reaches so many ranks in all; the domain's other members receive through a forwarder.
        inside = expected_distinct(reach, top_k, open_domains * width) * (width - 1) / width
        crossing = expected_distinct(reach, top_k, open_domains) * (domains - 1) / domains
    shape = (*tokens.shape[:-1], ranks)
    within = np.broadcast_to(tokens * row * inside, shape)
    across = np.broadcast_to(tokens * row * crossing, shape)
    racks = _racks(cluster, ranks)
    per_rack = ranks / max(racks, 1)
    beyond = per_rack * (ranks - per_rack) / (ranks - width) if racks > 1 else 0.0
    leaving = np.broadcast_to(across[..., :1] * beyond, (*tokens.shape[:-1], racks if racks > 1 else 0))
    return Traffic(within, within, across, across, leaving, leaving)


def _racks(cluster: Cluster, ranks: int) -> int:
    if cluster.racks is None:
        return 0
    return -(-ranks // (cluster.racks.nodes_per_rack * cluster.gpus_per_node))


def _rack_bytes(cluster: Cluster, bytes_RR: Array) -> tuple[Array, Array]:
    """Bytes that leave and enter each rack: two (..., Z)."""
    ranks = bytes_RR.shape[-1]
    racks = _racks(cluster, ranks)
    if cluster.racks is None or racks < 2:
        nothing = np.zeros((*bytes_RR.shape[:-2], 0))
        return nothing, nothing
    rack_R = np.arange(ranks) // (cluster.racks.nodes_per_rack * cluster.gpus_per_node)
    leaving = np.where(rack_R[:, None] == rack_R[None, :], 0.0, bytes_RR)
    member_RZ = (rack_R[:, None] == np.arange(racks)).astype(np.float64)
    return leaving.sum(-1) @ member_RZ, leaving.sum(-2) @ member_RZ


def _rails(crossing: Array, width: int) -> Array:
    """(..., domain, index, domain) as (..., R, R): each row goes to the rank of its own index elsewhere."""
    leading, domains = crossing.shape[:-3], crossing.shape[-1]
    full = crossing[..., None] * np.eye(width)[None, :, None, :]
    return full.reshape(*leading, domains * width, domains * width)
