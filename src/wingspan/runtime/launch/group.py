"""The ranks a command works with, wherever they come from: a launcher, a testbed, or its own fork.

To find them needs no torch, so that a wrong number of ranks is said before the seconds that importing it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wingspan.errors import InputError
from wingspan.runtime.ranks.capacity import check_room
from wingspan.runtime.ranks.nodes import Nodes, nodes_from_environment
from wingspan.runtime.ranks.world import Launch, check_ranks_per_node, launch_from_environment
from wingspan.specs.running import TransportKind, transport_kind

if TYPE_CHECKING:
    import torch

    from wingspan.runtime.launch.meeting.place import Place
    from wingspan.runtime.launch.meeting.protocol import Patience
    from wingspan.runtime.launch.start import Rest, Work
    from wingspan.runtime.transport.transport import Transport


@dataclass(frozen=True)
class Group:
    """Ranks that a launcher started (`launch`), or that will be forked (in `nodes`, or all on this host).

    How many ranks of a launch share a node is the launcher's word, or the hint, until they have met (`place`).
    """

    size: int
    ranks_per_node: int
    kind: TransportKind
    launch: Launch | None = None
    place: Place | None = None
    nodes: Nodes | None = None
    hint: int | None = None

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
            InputError: `ranks` is not the number that is there, does not fill nodes, or has no room on this machine;
                or the transport is unknown.
        """
        kind = transport_kind(transport)
        launch = launch_from_environment(environment)
        # A shell inside a launch, such as Slurm's for one task, is a place to start ranks from.
        if launch is not None and (launch.size > 1 or ranks in (None, 1)):
            _check_size(ranks, launch.size, f"{launch.launcher} started")
            if ranks_per_node is not None:
                check_ranks_per_node(launch.size, ranks_per_node)
            per_node = ranks_per_node or launch.local_size or launch.size
            return cls(launch.size, per_node, kind, launch, hint=ranks_per_node)
        if kind == TransportKind.MPI:
            raise InputError("`transport` mpi: start the ranks by MPI: mpirun -n 8 wingspan run ...")
        nodes = nodes_from_environment(environment)
        if nodes is not None:
            _check_size(ranks, nodes.size, "the testbed has")
            check_room(nodes.size)
            if ranks_per_node not in (None, nodes.ranks_per_node):
                raise InputError(
                    f"{ranks_per_node} ranks per node are wanted, but the testbed has {nodes.ranks_per_node}; leave "
                    "`ranks_per_node` out, or build another testbed"
                )
            return cls(nodes.size, nodes.ranks_per_node, kind, nodes=nodes)
        size = 1 if ranks is None else ranks
        if size < 1:
            raise InputError(f"`ranks` {size}: use 1 or more")
        per_node = size if ranks_per_node is None else min(ranks_per_node, size)
        check_ranks_per_node(size, per_node)
        check_room(size)
        return cls(size, per_node, kind)

    @property
    def rank(self) -> int | None:
        """This process's number where a launcher started it."""
        return None if self.launch is None else self.launch.rank

    def meet(
        self, environment: Mapping[str, str], device: torch.device, patience: Patience | None = None
    ) -> Group:
        """Collective: the group as its ranks find it when they meet; itself where they are forked later.

        Args:
            environment: usually `os.environ`.
            device: on which this rank computes.
            patience: how long to wait for others, and whom to tell.

        Raises:
            WingspanError: on every rank: one did not come, or cannot go on, or the ranks do not fit together.
        """
        if self.launch is None:
            return self
        from wingspan.runtime.launch.meeting.place import Place
        from wingspan.runtime.launch.meeting.protocol import Patience

        place = Place.find(
            environment,
            self.launch,
            device,
            patience or Patience(),
            ranks_per_node=self.hint,
            over_mpi=self.kind == TransportKind.MPI,
        )
        return replace(self, place=place, ranks_per_node=place.world.ranks_per_node)

    def run(
        self,
        work: Work,
        device: torch.device | None = None,
        given: Mapping[str, str] | None = None,
    ) -> None:
        """Run `work` on every rank of the group over its transport.

        Args:
            work: what a rank does; what it returns is done when the group has ended.
            device: where its tensors live (default: the CPU).
            given: what decides the outcome, as text by the names that people know: ranks that met compare it first.

        Raises:
            WingspanError: a rank fails, or was given something else than rank 0.
        """
        import torch

        from wingspan.runtime.launch.start import join_ranks, run_ranks
        from wingspan.runtime.transport.choice import chosen

        on = device or torch.device("cpu")

        def over_chosen(joined: Transport) -> Rest | None:
            with chosen(self.kind, joined, on) as transport:
                return work(transport)

        if self.place is not None:
            self.place.agree_on(given or {})
            join_ranks(over_chosen, self.place, on)
        else:
            run_ranks(over_chosen, self.size, self.ranks_per_node, on, self.nodes)


def _check_size(asked: int | None, there: int, said: str) -> None:
    if asked not in (None, there):
        raise InputError(f"{asked} ranks are wanted, but {said} {there}; leave `ranks` out, or start {asked}")
