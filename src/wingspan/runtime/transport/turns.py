"""An exchange between many nodes in turns: in each, a node sends to one other and receives from one other.

When all nodes send to all at once, some links have to wait for others that are full, and the last rows travel while
most links idle. In turns every link carries one pair's rows at its full rate. It costs a message round per node, so
it is for bulk only. No rank waits for more than its own partners of a turn.

Shapes: R ranks, W ranks per node, N rows, B bytes per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.work_handle import WorkHandle

_BULK_BYTES = 2**21
"""From this much per rank on an exchange is bulk. Of less, the links' queues hold so much that they stay busy anyway;
`docs/transports.md` has the measurement."""


@dataclass(frozen=True)
class Exchange:
    """One rank's rows to and from every rank, in rank order."""

    received_NB: torch.Tensor
    sent_NB: torch.Tensor
    received_R: Sequence[int]
    sent_R: Sequence[int]


def turns_help(world: World) -> bool:
    """Whether the nodes are so many that turns can help."""
    return world.size > 2 * world.ranks_per_node


def is_bulk(total_bytes: int, ranks: int) -> bool:
    """Whether that much among so many ranks is what `Transport.exchange_rows` calls bulk."""
    return total_bytes >= _BULK_BYTES * ranks


def turns(exchange: Exchange, world: World) -> list[Exchange]:
    """The exchange node by node: in turn i, to the i-th node after the own one and from the i-th before it."""
    W, nodes = world.ranks_per_node, world.size // world.ranks_per_node
    found = []
    for turn in range(nodes):
        to, of = (world.node + turn) % nodes, (world.node - turn) % nodes
        received_NB, received_R = _only_node(exchange.received_NB, exchange.received_R, of * W, W)
        sent_NB, sent_R = _only_node(exchange.sent_NB, exchange.sent_R, to * W, W)
        found.append(Exchange(received_NB, sent_NB, received_R, sent_R))
    return found


def _only_node(
    rows_NB: torch.Tensor, count_R: Sequence[int], first: int, ranks: int
) -> tuple[torch.Tensor, list[int]]:
    """The rows of `ranks` ranks from `first` on, and the counts with all others at zero."""
    ends = [0, *accumulate(count_R)]
    counts = [n if first <= r < first + ranks else 0 for r, n in enumerate(count_R)]
    return rows_NB[ends[first] : ends[first + ranks]], counts


class Turns:
    """Exchanges of which each starts when the one before it has ended.

    The first two, in the own node and with its neighbours, start at once: they share no link.

    Args:
        exchanges: in order, at least two.
        start: starts one.
    """

    def __init__(self, exchanges: Sequence[Exchange], start: Callable[[Exchange], WorkHandle]) -> None:
        self._start = start
        self._under_way = [start(exchange) for exchange in exchanges[:2]]
        self._later = list(exchanges[2:])

    def wait(self) -> None:
        """See `WorkHandle`. The later turns are started here."""
        for exchange in (*self._later, None):
            for pending in self._under_way:
                pending.wait()
            self._under_way = [] if exchange is None else [self._start(exchange)]
