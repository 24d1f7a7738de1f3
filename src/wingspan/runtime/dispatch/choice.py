"""Which dispatcher a layer gets: from the user's choice, the placement, and what the transport can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from wingspan.errors import InputError
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.deduplicated import DeduplicatingDispatcher
from wingspan.runtime.dispatch.dispatcher import Dispatcher
from wingspan.runtime.dispatch.flat import FlatDispatcher
from wingspan.runtime.dispatch.hierarchical import HierarchicalDispatcher, make_levels
from wingspan.runtime.dispatch.precision import PrecisionDispatcher
from wingspan.runtime.dispatch.registry import DispatcherFactory, plugin
from wingspan.runtime.dispatch.shared import SharedMemoryDispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.running import RowPrecision as Precision


@dataclass(frozen=True)
class DispatchOptions:
    """How tokens travel; the same on all ranks."""

    kind: DispatcherKind | None = None
    """None: hierarchical where several nodes have several ranks, else the one that sends least."""
    precision: Precision = Precision.SAME
    plugin: str | None = None
    """A dispatcher of another package, by its name in `registry`; then `kind` is of no account."""


DEFAULT_DISPATCH = DispatchOptions()


class Dispatchers:
    """Makes every layer's dispatcher. Collective: all ranks make one, with the same arguments.

    Args:
        placement: over exactly the transport's ranks.
        transport: the group.
        buffers: shared by all layers.
        device: where the tokens live.
        options: the user's choice. Where no node has several ranks, or all ranks are of one, hierarchical is
            deduplicated: the same rows.
        training: gradients must flow; only the ways straight to the ranks in full precision let them.

    Raises:
        InputError: there is no such plug-in, or it cannot do what is asked.
    """

    def __init__(
        self,
        placement: Placement,
        transport: Transport,
        buffers: Buffers,
        device: torch.device,
        options: DispatchOptions,
        *,
        training: bool = False,
    ) -> None:
        self._plugin = None if options.plugin is None else _checked(options, training=training)
        world = transport.world
        levels = self._plugin is None and 1 < world.ranks_per_node < world.size and not training
        hierarchical = options.kind in (DispatcherKind.HIERARCHICAL, None)
        self._placement = placement
        self._transport = transport
        self._buffers = buffers
        self._device = device
        self._options = DispatchOptions() if training else options
        self._in_place = (
            isinstance(transport, SharedMemoryTransport)
            and transport.covers_all
            and options.kind in (DispatcherKind.FLAT, None)
            and not training
        )
        self._levels = make_levels(transport) if hierarchical and levels else None

    @property
    def kind(self) -> DispatcherKind:
        """How rows travel; between ranks that read each other's memory, how they are read."""
        if self._plugin is not None:
            return self._plugin.capabilities.kind
        if self._levels is not None:
            return DispatcherKind.HIERARCHICAL
        held = int((self._placement.slots_LRS != EMPTY).sum(axis=2).max())
        return DispatcherKind.FLAT if self._in_place else self._straight(held)

    def _straight(self, most_held: int) -> DispatcherKind:
        """Per (token, rank), unless that is asked otherwise or the same as per (token, expert): one on each rank."""
        flat = self._options.kind is DispatcherKind.FLAT or most_held <= 1
        return DispatcherKind.FLAT if flat else DispatcherKind.DEDUPLICATED

    def for_layer(self, layer: int, placement: Placement | None = None) -> Dispatcher[Any, Any]:
        """The dispatcher of one MoE layer; under another placement than at the start, where one is given."""
        placement = placement or self._placement
        slots = SlotMap(placement, layer, self._transport.world, self._device)
        held_R = [len(placement.experts_on(layer, r)) for r in range(placement.num_ranks)]
        inner = self._full_precision(slots, held_R)
        if self._options.precision == Precision.SAME:
            return inner
        return PrecisionDispatcher(inner, self._options.precision)

    def _full_precision(self, slots: SlotMap, held_R: list[int]) -> Dispatcher[Any, Any]:
        transport = self._transport
        if self._plugin is not None:
            return self._plugin(transport, slots, held_R, self._buffers)
        if self._levels is not None:
            return HierarchicalDispatcher(self._levels, slots, held_R, self._buffers)
        if self._in_place and isinstance(transport, SharedMemoryTransport):
            return SharedMemoryDispatcher(transport.inside, slots, held_R)
        if self._straight(max(held_R)) is DispatcherKind.DEDUPLICATED:
            return DeduplicatingDispatcher(transport, slots, held_R, self._buffers)
        return FlatDispatcher(transport, slots, held_R, self._buffers)


def _checked(options: DispatchOptions, *, training: bool) -> DispatcherFactory:
    """The plug-in that is asked for; raises `InputError` where it cannot do what is asked beside."""
    name = options.plugin or ""
    found = plugin(name)
    if training and not found.capabilities.training:
        raise InputError(f"`plugin` {name}: no gradients flow through this dispatcher; train with another")
    if options.precision not in found.capabilities.precisions:
        known = ", ".join(sorted(found.capabilities.precisions))
        raise InputError(f"`row_precision` {options.precision}: the dispatcher {name} has only {known}")
    return found
