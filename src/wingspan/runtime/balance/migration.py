"""From the present placement to another, layer by layer; all ranks in step, and every layer either whole or not at all.

After each step the ranks tell each other how far they are (four numbers each). All see the same table, so all do the
same: commit the layer, give it up, or let it travel on. Until a layer is committed, its old placement serves.

Shapes: R ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wingspan.balance.moves import changed_layers, kept_slots, moves, with_layer
from wingspan.balance.orders import MigrationOutcome, Order
from wingspan.runtime.balance.transfer import State, Transfer
from wingspan.runtime.balance.weight_channel import WeightChannel
from wingspan.runtime.dispatch.choice import Dispatchers
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.rebalance_result import Rollback
from wingspan.specs.placement import Placement

_REASONS = {
    State.CORRUPTED: "its bytes arrived with another checksum than they left with",
    State.LOST: "its bytes did not arrive in time",
}


@dataclass(frozen=True)
class Site:
    """What a migration works on, on one rank; `layers` in layer order."""

    layers: Sequence[ExpertParallelLayer]
    dispatchers: Dispatchers
    transport: Transport
    channel: WeightChannel


class Migration:
    """One order being carried out.

    Args:
        order: the same on every rank.
        placement: in use now.
        site: this rank.
        first_step: the step after which it begins.
        first_tag: of its messages; no other migration of the run may use the same.
    """

    def __init__(
        self, order: Order, placement: Placement, site: Site, first_step: int, first_tag: int
    ) -> None:
        self.placement = placement
        self.first_step = first_step
        self.next_tag = first_tag
        self.committed: list[int] = []
        self.rollbacks: list[Rollback] = []
        self._experts_moved = 0
        self._busiest_experts = 0
        self.most_staging_bytes = 0
        self._order = order
        self._site = site
        self._left = changed_layers(placement, order.target)
        self._transfer: Transfer | None = None
        self._begin_next()

    @property
    def layer(self) -> int | None:
        """The layer on its way; None once all are done."""
        return None if self._transfer is None else self._transfer.layer

    @property
    def outcome(self) -> MigrationOutcome:
        """How it has gone so far."""
        return MigrationOutcome(
            self.first_step,
            len(self.committed),
            tuple(self.rollbacks),
            self._experts_moved,
            self._busiest_experts,
        )

    def after_step(self, step: int) -> None:
        """Take the next decision together. Collective."""
        if self._transfer is None:
            return
        table_R4 = self._site.transport.share(_row(self._transfer))
        states = table_R4[:, 0]
        failed_R = (states >= State.CORRUPTED).nonzero().flatten()
        if len(failed_R):
            self._transfer.abandon()
            self.rollbacks.append(_rollback(step, self._transfer.layer, table_R4[failed_R[0]].tolist()))
            self._begin_next()
        elif bool((states == State.READY).all()):
            self._commit(self._transfer)
            self._begin_next()
        else:
            self._transfer.release()

    def _begin_next(self) -> None:
        self._transfer = None
        if not self._left:
            return
        layer, site = self._left.pop(0), self._site
        world = site.transport.world
        wanted = moves(self.placement, self._order.target, layer, world.ranks_per_node)
        self._transfer = Transfer(
            layer,
            wanted,
            world.rank,
            site.layers[layer].experts,
            site.channel,
            self.next_tag,
            self._order.step_bytes,
            self._order.arrival_seconds,
        )
        self.next_tag += len(wanted)
        self.most_staging_bytes = max(self.most_staging_bytes, self._transfer.staging_bytes)
        self._transfer.release()

    def _commit(self, transfer: Transfer) -> None:
        site, layer = self._site, transfer.layer
        kept = kept_slots(self.placement, self._order.target, layer, site.transport.world.rank)
        slots = [transfer.prepared[s] if k is None else k for s, k in enumerate(kept)]
        self._experts_moved += len(transfer.moves)
        arrivals = Counter(move.destination for move in transfer.moves)
        self._busiest_experts += max(arrivals.values(), default=0)
        self.placement = with_layer(self.placement, self._order.target, layer)
        # The model's parameters are ordinary tensors, and stay so where generation runs in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            site.layers[layer].experts.replace(slots)
        site.layers[layer].dispatcher = site.dispatchers.for_layer(layer, self.placement)
        self.committed.append(layer)


def _row(transfer: Transfer) -> torch.Tensor:
    """State, and of what went wrong: expert, source, destination."""
    state, move = transfer.status()
    return torch.tensor([state, *((move.expert, move.source, move.destination) if move else (0, 0, 0))])


def _rollback(step: int, layer: int, row: list[int]) -> Rollback:
    state, expert, source, destination = row
    return Rollback(
        step=step,
        layer=layer,
        expert=expert,
        source=source,
        destination=destination,
        reason=_REASONS[State(state)],
    )
