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
from wingspan.runtime.dispatch.shared import SharedMemoryDispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.running import DispatchKind
from wingspan.specs.running import RowPrecision as Precision


@dataclass(frozen=True)
class DispatchOptions:
    """How tokens travel; the same on all ranks."""

    kind: DispatchKind = DispatchKind.AUTO
    precision: Precision = Precision.SAME


DEFAULT_DISPATCH = DispatchOptions()


def dispatch_options(kind: str, precision: str) -> DispatchOptions:
    """The options of command-line names; raises `InputError` for unknown ones."""
    for option, name, known in (("--dispatch", kind, DispatchKind), ("--precision", precision, Precision)):
        if name not in [member.value for member in known]:
            raise InputError(f"{option} {name}: use one of {', '.join(known)}")
    return DispatchOptions(DispatchKind(kind), Precision(precision))


class Dispatchers:
    """Makes every layer's dispatcher. Collective: all ranks make one, with the same arguments.

    Args:
        placement: over exactly the transport's ranks.
        transport: the group.
        buffers: shared by all layers.
        device: where the tokens live.
        options: the user's choice.
        training: gradients must flow; only the flat way of full precision lets them.
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
        world = transport.world
        several_nodes = 1 < world.ranks_per_node < world.size
        hierarchical = options.kind == DispatchKind.HIERARCHICAL or (
            options.kind == DispatchKind.AUTO and several_nodes
        )
        self._placement = placement
        self._transport = transport
        self._buffers = buffers
        self._device = device
        self._options = DispatchOptions(DispatchKind.FLAT) if training else options
        self._training = training
        self._levels = make_levels(transport) if hierarchical and several_nodes and not training else None

    @property
    def kind(self) -> DispatcherKind:
        """How rows travel between nodes."""
        if self._levels is not None:
            return DispatcherKind.HIERARCHICAL
        held = int((self._placement.slots_LRS != EMPTY).sum(axis=2).max())
        return DispatcherKind.DEDUPLICATED if held > 1 else DispatcherKind.FLAT

    def for_layer(self, layer: int, placement: Placement | None = None) -> Dispatcher[Any]:
        """The dispatcher of one MoE layer; under another placement than at the start, where one is given."""
        placement = placement or self._placement
        slots = SlotMap(placement, layer, self._transport.world, self._device)
        held_R = [len(placement.experts_on(layer, r)) for r in range(placement.num_ranks)]
        inner = self._full_precision(slots, held_R)
        if self._options.precision == Precision.SAME:
            return inner
        return PrecisionDispatcher(inner, self._options.precision)

    def _full_precision(self, slots: SlotMap, held_R: list[int]) -> Dispatcher[Any]:
        transport = self._transport
        if self._levels is not None:
            return HierarchicalDispatcher(self._levels, slots, held_R, self._buffers)
        if isinstance(transport, SharedMemoryTransport) and transport.covers_all and not self._training:
            return SharedMemoryDispatcher(transport.inside, slots, held_R)
        # Per (token, rank) where ranks hold several experts, else per expert: whichever sends least.
        if max(held_R) > 1:
            return DeduplicatingDispatcher(transport, slots, held_R, self._buffers)
        return FlatDispatcher(transport, slots, held_R, self._buffers)
