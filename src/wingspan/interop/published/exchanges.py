"""Predictions for published times and bandwidths of exchange libraries.

Bandwidths are *logical*: bytes of all copies, those that stay at home included, over time. A copy is one per (token,
node) between nodes, one per (token, rank) inside a scale-up domain. Kernels for small batches send one per (token,
expert). Rows count 8 of 256 experts and 7,168 values a token, as the libraries' own benchmarks do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from wingspan.cost.exchange import Phase, exchange_seconds
from wingspan.cost.uncertainty import relative_error
from wingspan.errors import InputError
from wingspan.interop.published.rows import PublishedRow
from wingspan.routing.distinct import expected_distinct
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision
from wingspan.traffic.links import row_bytes, uniform_traffic

_HIDDEN, _EXPERTS, _TOP_K = 7168, 256, 8
_LARGE_BATCH = 1024
"""Tokens per GPU from which libraries use their kernels for throughput."""


@dataclass(frozen=True)
class ExchangeFigure:
    """A predicted exchange in the unit of its row, and how far it may be off."""

    value: float
    relative_error: float


def exchange_figure(row: PublishedRow, cluster: Cluster) -> ExchangeFigure:
    """One dispatch or combine of the row's batch.

    Args:
        row: of a library's own benchmark, in `us` or `GB/s`.
        cluster: the row's machine.

    Raises:
        InputError: the row is of something else.
    """
    if row.unit not in ("us", "GB/s") or row.batch is None or row.ep is None:
        raise InputError(f"{row.id}: no exchange of one batch on one number of ranks")
    phase = next((p for p in Phase if p.value in row.metric.lower()), None)
    if phase is None:
        raise InputError(f"{row.id}: {row.metric} is neither dispatch nor combine")
    machine = cluster.part(row.ep)
    kind = _kind(row)
    size = row_bytes(_HIDDEN, _precision(row, phase))
    limited = 4 if "top-4 groups" in row.notes else None
    traffic = uniform_traffic(machine, row.ep, float(row.batch), size, _EXPERTS, _TOP_K, kind, limited)
    seconds = float(exchange_seconds(machine, traffic, kind, phase).seconds)
    error = float(relative_error(machine, phase.value, row.ep))
    if row.unit == "us":
        return ExchangeFigure(seconds * 1e6, error)
    domains = row.ep // min(machine.scale_up_domain_gpus, row.ep)
    reach = _EXPERTS * min(limited or domains, domains) // domains
    copies = expected_distinct(reach, _TOP_K, min(limited or domains, domains) if domains > 1 else row.ep)
    return ExchangeFigure(row.batch * copies * size / seconds / 1e9, error)


def speed_kept(row: PublishedRow, cluster: Cluster) -> float:
    """What an exchange keeps of its speed on few ranks where there are many, with as many tokens on each.

    Args:
        row: that says `kept from EP8 to EP64` or alike, and its tokens in the system's name.
        cluster: the row's machine.

    Raises:
        InputError: the row does not say so.
    """
    ranks = re.search(r"kept from EP ?(\d+) to EP ?(\d+)", row.metric)
    tokens = re.search(r"\b(\d+) tok", row.system)
    if ranks is None or tokens is None:
        raise InputError(f"{row.id}: what is kept from how many ranks to how many, of how many tokens?")

    def seconds(count: str) -> float:
        exchange = replace(row, ep=int(count), batch=float(tokens[1]), unit="us")
        return sum(exchange_figure(replace(exchange, metric=of.value), cluster).value for of in Phase)

    return seconds(ranks[1]) / seconds(ranks[2])


def _kind(row: PublishedRow) -> DispatcherKind:
    if "rank-major" in row.notes or re.search("one-?sided", row.system, re.IGNORECASE):
        return DispatcherKind.DEDUPLICATED
    if "pplx" in row.system:
        return DispatcherKind.FLAT  # It has no others: its rows go straight at any batch.
    large = row.batch is not None and row.batch >= _LARGE_BATCH
    return DispatcherKind.HIERARCHICAL if large else DispatcherKind.FLAT


def _precision(row: PublishedRow, phase: Phase) -> Precision:
    """FP8 out where the row says nothing else; a metric's own word goes before the row's."""
    if phase is Phase.DISPATCH and "NVFP4 dispatch" in row.precision:
        return Precision.NVFP4
    if phase is Phase.COMBINE or "bf16" in row.metric.lower() or "BF16 dispatch" in row.precision:
        return Precision.BF16
    return Precision.FP8
