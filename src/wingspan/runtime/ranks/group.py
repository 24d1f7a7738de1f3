"""The ranks a command works with, wherever they come from: a launcher, a testbed, or its own fork.

To find them needs no torch, so that a wrong number of ranks is said before the seconds that importing it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wingspan.errors import InputError
from wingspan.runtime.ranks.nodes import Nodes, nodes_from_environment
from wingspan.runtime.ranks.world import World, check_ranks_per_node, world_from_environment
from wingspan.specs.running import TransportKind, transport_kind

if TYPE_CHECKING:
    import torch

    from wingspan.runtime.transport.transport import Transport


@dataclass(frozen=True)
class Group:
    """Ranks that are there (`world`), or that will be forked (in `nodes`, or all on this host)."""

    size: int
    ranks_per_node: int
    kind: TransportKind
    world: World | None = None
    nodes: Nodes | None = None

    @classmethod
    def find(
        cls,
        environment: Mapping[str, str],
        ranks: int | None,
        ranks_per_node: int | None,
        transport: str = "auto",
    ) -> Group:
        """The group that the environment names, else one of `ranks` ranks (default 1) to fork.

        Raises:
            InputError: `ranks` is not the number that is there, or does not fill nodes, or the transport is unknown.
        """
        kind = transport_kind(transport)
        world = world_from_environment(environment, ranks_per_node)
        if world is not None:
            _check_size(ranks, world.size, "the launcher started")
            return cls(world.size, world.ranks_per_node, kind, world=world)
        if kind == TransportKind.MPI:
            raise InputError("--transport mpi: start the ranks by MPI: mpirun -n 8 wingspan run ...")
        nodes = nodes_from_environment(environment)
        if nodes is not None:
            _check_size(ranks, nodes.size, "the testbed has")
            if ranks_per_node not in (None, nodes.ranks_per_node):
                raise InputError(
                    f"{ranks_per_node} ranks per node are wanted, but the testbed has {nodes.ranks_per_node}; leave "
                    "--ranks-per-node out, or build another testbed"
                )
            return cls(nodes.size, nodes.ranks_per_node, kind, nodes=nodes)
        size = 1 if ranks is None else ranks
        if size < 1:
            raise InputError(f"--ranks {size}: use 1 or more")
        per_node = size if ranks_per_node is None else ranks_per_node
        check_ranks_per_node(size, per_node)
        return cls(size, per_node, kind)

    def run(self, work: Callable[[Transport], None], device: torch.device | None = None) -> None:
        """Run `work` on every rank of the group over its transport, with tensors on `device` (default: the CPU).

        Raises:
            WingspanError: a rank failed.
        """
        import torch

        from wingspan.runtime.ranks.launch import join_mpi_ranks, join_ranks, run_ranks
        from wingspan.runtime.transport.choice import chosen

        on = device or torch.device("cpu")

        def over_chosen(joined: Transport) -> None:
            with chosen(self.kind, joined, on) as transport:
                work(transport)

        if self.world is not None and self.kind == TransportKind.MPI:
            join_mpi_ranks(over_chosen, self.world)
        elif self.world is not None:
            join_ranks(over_chosen, self.world, on)
        else:
            run_ranks(over_chosen, self.size, self.ranks_per_node, on, self.nodes)


def _check_size(asked: int | None, there: int, said: str) -> None:
    if asked not in (None, there):
        raise InputError(f"{asked} ranks are wanted, but {said} {there}; leave --ranks out, or start {asked}")
