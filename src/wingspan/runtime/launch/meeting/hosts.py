"""Which ranks share a node, from what they see of their hosts; the launcher's word and guesses count for less.

Ranks share a node that run on one machine in one network: containers and network namespaces of a machine are nodes of
their own where their network is. Whether they can also open each other's memory is tried where it is wanted.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from wingspan.errors import InputError
from wingspan.runtime.ranks.world import check_ranks_per_node, named

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


@dataclass(frozen=True)
class Seen:
    """What one rank sees.

    Attributes:
        identity: equal on two ranks exactly where they are on one machine in one network.
        name: the host's.
        address: its own, on the way to rank 0; empty where it is not known.
        rank_0: rank 0's, as seen from there.
        ranks_per_node: the user's hint.
    """

    identity: str
    name: str
    address: str
    rank_0: str
    ranks_per_node: int | None


@dataclass(frozen=True)
class RankLayout:
    """How the ranks lie.

    Attributes:
        ranks_per_node: of them, on each node; node n has the n-th so many.
        local_rank_R: each rank's number on its own host.
        address_R: each rank's address towards the other hosts; empty where it is not known.
    """

    ranks_per_node: int
    local_rank_R: list[int]
    address_R: list[str]


def look(address: str, rank_0: str, ranks_per_node: int | None) -> dict[str, Any]:
    """This rank's `Seen`, as the ranks tell it each other."""
    return asdict(Seen(_identity(), socket.gethostname(), address, rank_0, ranks_per_node))


def places(seen_R: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `RankLayout` of ranks that see this.

    Raises:
        InputError: hosts have unequal numbers of ranks, or ranks that do not follow each other, and no hint says
            what a node is; or ranks have different hints.
    """
    seen = [Seen(**one) for one in seen_R]
    hosts: dict[str, list[int]] = {}
    for rank, one in enumerate(seen):
        hosts.setdefault(one.identity, []).append(rank)
    local_rank_R = [hosts[one.identity].index(rank) for rank, one in enumerate(seen)]
    address_R = [one.address for one in seen]
    # On rank 0's own host the way to it may be the loopback; others know it by the address that they reached.
    elsewhere = [one.rank_0 for one in seen if one.identity != seen[0].identity]
    if elsewhere:
        for rank in hosts[seen[0].identity]:
            address_R[rank] = elsewhere[0]
    return asdict(RankLayout(_ranks_per_node(seen, list(hosts.values())), local_rank_R, address_R))


def interface_of(address: str) -> str | None:
    """The network interface of this host that has the address, or None."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(_same(address, one.address) for one in addresses):
            return name
    return None


def _ranks_per_node(seen: list[Seen], hosts: list[list[int]]) -> int:
    hints = [one.ranks_per_node for one in seen]
    for rank, hint in enumerate(hints):
        if hint != hints[0]:
            raise InputError(
                f"ranks per node: {hints[0] or 'not given'} on rank 0 and {hint or 'not given'} on rank {rank}; give "
                "every rank the same"
            )
    if hints[0] is not None:
        check_ranks_per_node(len(seen), hints[0])
        return hints[0]
    lie = "; ".join(f"{named(ranks)} on {seen[ranks[0]].name}" for ranks in hosts[:4])
    lie += "; ..." if len(hosts) > 4 else ""
    if any(ranks != list(range(ranks[0], ranks[0] + len(ranks))) for ranks in hosts):
        raise InputError(
            f"ranks of one host must follow each other, but there are {lie}; with mpirun --map-by slot, with srun "
            "--distribution=block, or let each rank count as a node of its own (1 rank per node)"
        )
    if len({len(ranks) for ranks in hosts}) > 1:
        raise InputError(
            f"hosts have unequal numbers of ranks: {lie}; start equally many on each, or let each rank count as a "
            "node of its own (1 rank per node)"
        )
    return len(hosts[0])


def _identity() -> str:
    try:
        machine = _BOOT_ID.read_text().strip()
    except OSError:
        machine = f"{uuid.getnode():x}"
    try:
        network = os.readlink(_NETWORK)
    except OSError:
        network = ""
    return f"{machine} {socket.gethostname()} {network}"


def _same(one: str, two: str) -> bool:
    try:
        first, second = (ipaddress.ip_address(text.partition("%")[0]) for text in (one, two))
    except ValueError:
        return False
    return _plain(first) == _plain(second)


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address that came in IPv6's notation as itself."""
    return getattr(address, "ipv4_mapped", None) or address
