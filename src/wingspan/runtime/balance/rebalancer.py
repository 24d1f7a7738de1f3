"""Live balancing on one rank, called after every step. All ranks make the same calls, so all take the same branches:
what to do depends only on the number of the step, on rank 0's word, and on tables that all have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import cast

import torch

from wingspan.balance.controller import BalanceController, Sizes
from wingspan.balance.load_report import LoadReport
from wingspan.balance.orders import Order
from wingspan.balance.settings import Rebalance
from wingspan.runtime.balance.migration import Migration, Site
from wingspan.runtime.balance.rates import measure_rates
from wingspan.runtime.balance.watch import Watch
from wingspan.runtime.balance.weight_channel import WeightChannel
from wingspan.runtime.dispatch.choice import Dispatchers
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.rebalance_result import RebalanceEvent
from wingspan.specs.placement import Placement
from wingspan.traffic.distinct import Choice


@dataclass(frozen=True)
class _Word:
    """Rank 0's, at a beat: what to do, and whether the planner is at work."""

    order: Order | None = None
    asked: bool = False


class Rebalancer:
    """Collective to make, and in every call.

    Args:
        settings: see `Rebalance`; the same on every rank.
        transport: of the steps; more than one rank.
        placement: in use.
        layers: in layer order.
        dispatchers: that made the layers' own.
        monitor: of the load; its observer is taken.
        recorder: of the steps.
        row_bytes: one token's hidden state as it travels.
        choice: what each token picks.
        device: where the steps' tensors live.
    """

    def __init__(
        self,
        settings: Rebalance,
        transport: Transport,
        placement: Placement,
        layers: Sequence[ExpertParallelLayer],
        dispatchers: Dispatchers,
        monitor: LoadMonitor,
        recorder: Recorder,
        row_bytes: int,
        choice: Choice,
        device: torch.device,
    ) -> None:
        self.placement = placement
        self.staging_bytes = 0
        """The most memory that experts under way took."""
        self._settings = settings
        self._transport = transport
        experts = [layer.experts for layer in layers]
        self._watch = Watch(experts, placement.num_experts, recorder, settings.sample_tokens)
        monitor.observer = self._watch.observe
        channel = WeightChannel()
        self._site = Site(layers, dispatchers, transport, channel)
        rates = measure_rates(transport, channel, device)
        sizes = Sizes(row_bytes, experts[0].slot_bytes, choice, dispatchers.kind)
        world = transport.world
        self._controller = (
            BalanceController(settings, world.size, world.ranks_per_node, rates, sizes)
            if world.rank == 0
            else None
        )
        self._step = 0
        self._asked = False
        self._migration: Migration | None = None
        self._next_tag = 0

    @property
    def events(self) -> list[RebalanceEvent]:
        """The log since it was last taken, on rank 0."""
        return [] if self._controller is None else self._controller.events

    def take_events(self) -> list[RebalanceEvent]:
        """Hand over the log, and begin another."""
        taken = self.events
        if self._controller is not None:
            self._controller.events = []
        return taken

    def forget(self) -> None:
        """What was seen so far (the prefill) says nothing about the steps to come (decode)."""
        self._watch.take()

    def beside_step(self, load_LE: torch.Tensor) -> None:
        """Take in what is computed beside a step of decode: the prompts of those who join."""
        self._watch.count_beside(load_LE)

    def after_step(self, load_LE: torch.Tensor, steps_left: int | None) -> None:
        """Take in one step, and every few steps do something about it.

        Args:
            load_LE: choices of this rank's own tokens in that step.
            steps_left: at most so many will follow; None: nobody knows.
        """
        start = monotonic()
        horizon = self._settings.horizon(steps_left)
        self._step += 1
        self._watch.count(load_LE)
        if self._migration is not None:
            self._advance(self._migration)
        elif self._watch.steps >= self._settings.beat_steps:
            self._beat(horizon)
        elif self._asked and self._watch.steps % self._settings.answer_steps == 0:
            order = None if self._controller is None else self._controller.look(self._step, horizon)
            self._obey(order)
        self._watch.busy_seconds += monotonic() - start

    def finish(self) -> list[RebalanceEvent]:
        """After the last step: end what is under way; the rest of the log, on rank 0."""
        reports = self._reports()
        if self._controller is not None and reports is not None:
            layer = None if self._migration is None else self._migration.layer
            self._controller.finish(self._step, reports, layer)
        return self.take_events()

    def _beat(self, horizon: int) -> None:
        reports = self._reports()
        order = None
        if self._controller is not None and reports is not None:
            order = self._controller.beat(self._step, reports, self.placement, horizon)
        self._obey(order)

    def _obey(self, order: Order | None) -> None:
        """Hear rank 0's word, and begin what it says."""
        word = _Word(order, self._controller is not None and self._controller.asked)
        word = cast("_Word", self._transport.broadcast(word))
        self._asked = word.asked
        if word.order is not None:
            self._migration = Migration(word.order, self.placement, self._site, self._step, self._next_tag)
            self._watch.begin_measuring()

    def _advance(self, migration: Migration) -> None:
        migration.after_step(self._step)
        self.placement = migration.placement
        self.staging_bytes = max(self.staging_bytes, migration.most_staging_bytes)
        if migration.layer is not None:
            return
        self._migration, self._next_tag = None, migration.next_tag
        reports = self._reports()
        if self._controller is not None and reports is not None:
            self._controller.migrated(self._step, reports, migration.outcome)

    def _reports(self) -> list[LoadReport] | None:
        """Every rank's report since the last, on rank 0."""
        return cast("list[LoadReport] | None", self._transport.gather(self._watch.take()))
