"""What the kernel counted on each node's link, and how that compares with what the runtime says it sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.errors import RunError
from wingspan.testbed.iproute import ip_json
from wingspan.testbed.layout import INTERFACE, Layout

_HEADER_BYTES = 14 + 20 + 32
"""Headers of a packet: Ethernet, IPv4 (RFC 791), TCP with time stamps (RFC 7323); segments sent as one count once."""


@dataclass(frozen=True)
class LinkCount:
    """Bytes and packets through one node's link, headers included."""

    sent_bytes: int
    received_bytes: int
    sent_packets: int
    received_packets: int

    @property
    def sent_payload_bytes(self) -> int:
        """Sent bytes without the headers of Ethernet, IP and TCP; with what the transport says beside rows."""
        return self.sent_bytes - self.sent_packets * _HEADER_BYTES

    def since(self, before: LinkCount) -> LinkCount:
        """What came after an earlier reading."""
        return LinkCount(
            self.sent_bytes - before.sent_bytes,
            self.received_bytes - before.received_bytes,
            self.sent_packets - before.sent_packets,
            self.received_packets - before.received_packets,
        )


@dataclass(frozen=True)
class Reconciled:
    """One node's bytes to other nodes as the runtime counted its rows, beside the kernel's."""

    rows_bytes: int
    kernel_bytes: int

    @property
    def ratio(self) -> float | None:
        """Kernel over rows: headers, acknowledgements, counts, rendezvous and gathers are what is above 1."""
        return self.kernel_bytes / self.rows_bytes if self.rows_bytes else None


def read(layout: Layout) -> list[LinkCount]:
    """Each node's counters since the testbed was built, from the interfaces' own statistics."""
    return [_read(layout.node(i)) for i in range(layout.nodes)]


def own_link() -> LinkCount:
    """The counters of the node that this process is in, as its network namespace shows them.

    Raises:
        RunError: it is in none.
    """
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == INTERFACE:
            # Eight figures received, then eight sent; bytes and packets stand first.
            values = [int(figure) for figure in figures.split()]
            return LinkCount(values[8], values[0], values[9], values[1])
    raise RunError(f"this rank is in no node of a testbed: it has no {INTERFACE}")


def difference(before: Sequence[LinkCount], after: Sequence[LinkCount]) -> list[LinkCount]:
    """What each node's link carried between two readings."""
    return [late.since(early) for early, late in zip(before, after, strict=True)]


def reconcile(links: Sequence[LinkCount], reports: Sequence[dict[str, Any]]) -> list[Reconciled]:
    """The kernel's bytes beside the runtime's, per node.

    Args:
        links: what each node's link carried during the run.
        reports: the run's step reports (`StepReport` as JSON), one per phase; each holds means over its steps.
    """
    rows_N = [0] * len(links)
    for report in reports:
        for rank, sent in enumerate(report["sent_across_nodes_bytes"]):
            rows_N[rank // report["ranks_per_node"]] += sent * report["steps"]
    return [Reconciled(rows, link.sent_bytes) for rows, link in zip(rows_N, links, strict=True)]


def _read(namespace: str) -> LinkCount:
    statistics = ip_json("-n", namespace, "-s", "link", "show", "dev", INTERFACE)[0]["stats64"]
    sent, received = statistics["tx"], statistics["rx"]
    return LinkCount(sent["bytes"], received["bytes"], sent["packets"], received["packets"])
