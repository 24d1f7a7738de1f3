"""Dispatchers of other packages, by the entry point that names them.

A package declares one in its `pyproject.toml`, and `DispatchOptions.plugin` asks for it by that name:

    [project.entry-points."wingspan.dispatchers"]
    gather = "gather_dispatcher:GatherDispatcher"
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from wingspan.errors import InputError
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.dispatcher import Capabilities, Dispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DISPATCHER_PLUGINS


class DispatcherFactory(Protocol):
    """What an entry point leads to: mostly a class whose `capabilities` stand beside its methods."""

    @property
    def capabilities(self) -> Capabilities:
        """What may be asked of the dispatchers it makes."""

    def __call__(
        self, transport: Transport, slots: SlotMap, local_slots_R: Sequence[int], buffers: Buffers
    ) -> Dispatcher[Any, Any]:
        """Make one layer's dispatcher.

        Args:
            transport: the group.
            slots: of the layer.
            local_slots_R: how many slots each rank fills.
            buffers: shared by all layers.
        """


def plugin(name: str) -> DispatcherFactory:
    """The dispatcher that another package calls so.

    Raises:
        InputError: there is none, it cannot be imported, or it does not say what may be asked of it.
    """
    found = entry_points(group=DISPATCHER_PLUGINS)
    if name not in found.names:
        known = (
            f"there are {', '.join(sorted(found.names))}" if found.names else "no installed package has one"
        )
        raise InputError(f"`plugin` {name}: no dispatcher of that name; {known}")
    entry = found[name]
    try:
        factory = entry.load()
    except Exception as error:  # whatever another package's import raises
        raise InputError(f"`plugin` {name}: {entry.value} cannot be imported ({error})") from error
    if not isinstance(getattr(factory, "capabilities", None), Capabilities):
        raise InputError(f"`plugin` {name}: {entry.value} has no `capabilities`; give it Capabilities(...)")
    return cast("DispatcherFactory", factory)
