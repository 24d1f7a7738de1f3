"""How long a dispatch, a combine or a collective takes: the most loaded link, plus latency.

Resources: each rank's scale-up port (NVLink), each network card (a rank's own, or shared by neighbours), in each
direction, the way from a rank's memory to both, and each rack's way up. `traffic/links.py` says what each of them
carries. Shapes: R ranks, `...` anything before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.kernels import ExchangeKernel, ExchangePhase
from wingspan.traffic.links import Traffic, by_network_card

Array = NDArray[np.float64]

_FITTED_DOMAIN = 8
"""Ranks of the domains that the scale-up shares were fitted on: a node of H100."""


class Phase(StrEnum):
    """Which way rows travel; the kernels differ: a combine also sums."""

    DISPATCH = "dispatch"
    COMBINE = "combine"


@dataclass(frozen=True, eq=False)
class ExchangeSeconds:
    """Seconds of one exchange, (...,): the whole, the busiest link of each level, and what no link explains.

    Args:
        processor_seconds: the part in which its kernels hold the processors; None: all of it, more or less.
    """

    seconds: Array
    scale_up_seconds: Array
    scale_out_seconds: Array
    rack_seconds: Array
    latency_seconds: Array
    processor_seconds: Array | None = None


def exchange_seconds(
    cluster: Cluster, traffic: Traffic, dispatcher: DispatcherKind, phase: Phase = Phase.DISPATCH
) -> ExchangeSeconds:
    """Time until the slowest rank has sent and received everything; a rank alone launches nothing."""
    if traffic.scale_up_sent.shape[-1] == 1:
        nothing = np.zeros(traffic.scale_up_sent.shape[:-1])
        return ExchangeSeconds(nothing, nothing, nothing, nothing, nothing)
    constants = _constants(cluster, dispatcher, phase)
    domains = max(1, -(-traffic.scale_up_sent.shape[-1] // cluster.scale_up_domain_gpus))
    up_rate = _scale_up_rate(cluster, dispatcher, phase, traffic.scale_up_sent.shape[-1], domains)
    out_rate = cluster.scale_out.sustained_bytes_per_second * constants.scale_out_share
    up = _busiest(traffic.scale_up_sent, traffic.scale_up_received)
    out = _busiest(
        by_network_card(cluster, traffic.scale_out_sent), by_network_card(cluster, traffic.scale_out_received)
    )
    # Both links are fed from one memory: no rank moves more than the faster of its links could carry.
    both = _busiest(
        traffic.scale_up_sent + traffic.scale_out_sent, traffic.scale_up_received + traffic.scale_out_received
    )
    port_rate = max(cluster.scale_up.sustained_bytes_per_second * constants.scale_up_share, out_rate)
    scale_up, scale_out = np.maximum(up / up_rate, both / port_rate), out / out_rate
    rack = _rack_seconds(cluster, traffic, scale_out)
    latency = np.full_like(scale_out, _latency(cluster, constants, domains))
    moving = np.maximum(np.maximum(scale_up, scale_out), rack)
    if domains > 1:
        moving = np.maximum(moving, _paced(cluster, traffic, dispatcher, (up_rate, out_rate)))
    seconds = moving + latency
    return ExchangeSeconds(
        seconds, scale_up, scale_out, rack, latency, _processor_seconds(constants, traffic, seconds)
    )


def _paced(
    cluster: Cluster, traffic: Traffic, dispatcher: DispatcherKind, rates: tuple[float, float]
) -> Array:
    """Time of the mean rank's transfers at the pace of the fullest one, as far as buffers hand its pace on.

    A full buffer holds up who forwards into it, and that who sends to many: so not only the way to the fullest rank
    takes longer, but every transfer, by as much as that rank has more rows to take or to give than the mean one.
    """
    kernel = _kernel(cluster, dispatcher)
    ends = [traffic.scale_up_sent, traffic.scale_up_received]
    if dispatcher is not DispatcherKind.HIERARCHICAL:
        # Rows come straight; forwarded ones all arrive inside, and what crosses is not the rank's own.
        ends = [ends[0] + traffic.scale_out_sent, ends[1] + traffic.scale_out_received]
    fuller = np.ones(traffic.scale_up_sent.shape[:-1])
    for moved in ends:
        mean = moved.mean(axis=-1)
        ratio = np.divide(moved.max(axis=-1), mean, out=np.ones_like(mean), where=mean > 0)
        fuller = np.maximum(fuller, ratio)
    pace = 1 + kernel.back_pressure * (fuller - 1)
    up_rate, out_rate = rates
    up = np.maximum(traffic.scale_up_sent.mean(axis=-1), traffic.scale_up_received.mean(axis=-1))
    out = np.maximum(traffic.scale_out_sent.mean(axis=-1), traffic.scale_out_received.mean(axis=-1))
    shared: Array = np.maximum(up / up_rate, out * cluster.gpus_per_network_card / out_rate) * pace
    return shared


def _processor_seconds(constants: ExchangePhase, traffic: Traffic, seconds: Array) -> Array | None:
    """How long the kernels hold the processors of the fullest rank, no longer than the exchange lasts."""
    if not constants.processor_bytes_per_second:
        return None
    rows = (
        traffic.scale_up_sent
        + traffic.scale_up_received
        + traffic.scale_out_sent
        + traffic.scale_out_received
    ).max(axis=-1)
    held = constants.processor_seconds + rows / constants.processor_bytes_per_second
    return np.asarray(np.minimum(held, seconds))


def streaming_seconds(cluster: Cluster, traffic: Traffic, phase: Phase) -> Array:
    """How long all of a rank's processors would take to copy the rows that it sends: seconds, (..., R).

    An exchange beside the experts whose rows it takes has processors of its own, as many as its rate needs at what one
    copies inside a node; the experts lack these. That is 3 on H20 for its network card's rate and 38 on GB200;
    SGLang sets 3 and 32 (sgl-project/sglang, commit 0ac832c). Nothing where kernels say no such rate.
    """
    kernels = cluster.kernels
    constants = kernels.normal.dispatch if phase is Phase.DISPATCH else kernels.normal.combine
    rate = constants.copy_bytes_per_second_per_processor * kernels.matmul.processors
    sent: Array = traffic.scale_up_sent + traffic.scale_out_sent
    return sent / rate if rate else np.zeros_like(sent)


class Collective(StrEnum):
    """An exchange in which every rank of a group takes part alike; the value is NCCL's name."""

    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "alltoall"
    ALL_REDUCE = "all_reduce"


def collective_seconds(cluster: Cluster, kind: Collective, total_bytes: ArrayLike, ranks: int) -> Array:
    """A collective over `ranks` neighbours.

    Beyond one scale-up domain, rings cross between domains on every card at once, and take the crossing's latency as
    DeepEP's low-latency combine does; in an all-to-all each rank has its own card alone.

    Args:
        total_bytes: of the whole buffer: what an all-gather ends with, what a reduce-scatter begins with, what one
            rank of an all-to-all or all-reduce holds.
    """
    total = np.asarray(total_bytes, dtype=np.float64)
    kernel = cluster.kernels.collective
    rounds = 2 if kind is Collective.ALL_REDUCE else 1
    through_port = rounds * total * (ranks - 1) / ranks
    rate = cluster.scale_up.sustained_bytes_per_second
    waits = kernel.all_reduce_doubling if kind is Collective.ALL_REDUCE else 1.0
    latency = kernel.launch_seconds + waits * kernel.doubling_seconds * np.log2(max(ranks, 1))
    domain = min(cluster.scale_up_domain_gpus, ranks)
    if cluster.scale_up_domain_gpus % ranks:
        cards = 1 if kind is Collective.ALL_TO_ALL else domain
        rate = min(rate, cards * cluster.network_share_bytes_per_second)
        crossing = cluster.kernels.low_latency.combine
        latency += crossing.across_seconds + crossing.doubling_seconds * np.log2(max(ranks / domain, 1))
        latency += max(cluster.scale_up.latency_seconds, cluster.scale_out.latency_seconds)
    else:
        latency += cluster.scale_up.latency_seconds
    seconds = through_port / (rate * kernel.scale_up_share) + latency
    if kernel.bulk is not None:
        started = latency + kernel.bulk.launch_seconds
        seconds = np.minimum(seconds, through_port / (rate * kernel.bulk.scale_up_share) + started)
    return np.where((total > 0) & (ranks > 1), seconds, 0.0)


def all_reduce_seconds(cluster: Cluster, total_bytes: ArrayLike, ranks: int, *, engine: bool) -> Array:
    """An all-reduce by NCCL, or as engines run it in decode: by their own one-shot kernel where that is faster.

    Args:
        total_bytes: that each rank holds.
        ranks: neighbours; beyond one scale-up domain there is only NCCL's.
        engine: whether it has such a kernel.
    """
    total, kernel = np.asarray(total_bytes, dtype=np.float64), cluster.kernels.collective.one_shot
    usual = collective_seconds(cluster, Collective.ALL_REDUCE, total, ranks)
    if not engine or kernel is None or cluster.scale_up_domain_gpus % ranks:
        return usual
    rate = cluster.scale_up.sustained_bytes_per_second * kernel.scale_up_share
    latency = kernel.launch_seconds + kernel.doubling_seconds * np.log2(max(ranks, 1))
    reading = (ranks - 1) * total / rate + latency + cluster.scale_up.latency_seconds
    return np.asarray(np.minimum(usual, reading))


def _kernel(cluster: Cluster, dispatcher: DispatcherKind) -> ExchangeKernel:
    hierarchical = dispatcher is DispatcherKind.HIERARCHICAL
    return cluster.kernels.normal if hierarchical else cluster.kernels.low_latency


def _constants(cluster: Cluster, dispatcher: DispatcherKind, phase: Phase) -> ExchangePhase:
    kernel = _kernel(cluster, dispatcher)
    return kernel.dispatch if phase is Phase.DISPATCH else kernel.combine


def _scale_up_rate(
    cluster: Cluster, dispatcher: DispatcherKind, phase: Phase, ranks: int, domains: int
) -> float:
    """The rate of the link, or that of the processors that copy, or that forward what other domains sent."""
    constants = _constants(cluster, dispatcher, phase)
    rate = cluster.scale_up.sustained_bytes_per_second * constants.scale_up_share
    if dispatcher is DispatcherKind.HIERARCHICAL:
        each = (
            constants.forward_bytes_per_second_per_processor
            if domains > 1
            else constants.copy_bytes_per_second_per_processor
        )
        rate = min(rate, cluster.kernels.normal.processors * each or rate)
    doublings = float(np.log2(max(min(ranks, cluster.scale_up_domain_gpus) / _FITTED_DOMAIN, 1.0)))
    return rate / (1 + _kernel(cluster, dispatcher).slower_per_doubling * doublings)


def _rack_seconds(cluster: Cluster, traffic: Traffic, scale_out: Array) -> Array:
    if cluster.racks is None or not traffic.rack_sent.shape[-1]:
        return np.zeros_like(scale_out)
    cards = cluster.racks.nodes_per_rack * cluster.network_cards_per_node
    way_up = cluster.scale_out.sustained_bytes_per_second * cards / cluster.racks.oversubscription
    return _busiest(traffic.rack_sent, traffic.rack_received) / way_up


def _latency(cluster: Cluster, constants: ExchangePhase, domains: int) -> float:
    if domains == 1:
        return constants.launch_seconds + cluster.scale_up.latency_seconds
    more = constants.across_seconds + constants.doubling_seconds * float(np.log2(domains))
    return constants.launch_seconds + more + cluster.scale_out.latency_seconds


def _busiest(sent: Array, received: Array) -> Array:
    busiest: Array = np.maximum(sent.max(-1), received.max(-1))
    return busiest
