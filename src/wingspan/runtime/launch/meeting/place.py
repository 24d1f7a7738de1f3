"""A launched rank's place among the others, as they found out when they met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from wingspan.runtime.launch.meeting.agreement import check_same, told, versions
from wingspan.runtime.launch.meeting.guest import Guest
from wingspan.runtime.launch.meeting.host import Host
from wingspan.runtime.launch.meeting.hosts import RankLayout, interface_of, look, places
from wingspan.runtime.launch.meeting.meet import meet
from wingspan.runtime.launch.meeting.protocol import AloneMeeting, MpiMeeting, Patience
from wingspan.runtime.ranks.world import Launch, World
from wingspan.runtime.transport.mpi import join_mpi


@dataclass(frozen=True)
class Place:
    """Attributes:
    world: this rank's number, and how the ranks lie on nodes.
    meeting: with all others, still open.
    interface: of this host, towards the others; None where it is not known.
    """

    world: World
    meeting: AloneMeeting | Host | Guest | MpiMeeting
    interface: str | None = None

    @classmethod
    def find(
        cls,
        environment: Mapping[str, str],
        launch: Launch,
        device: torch.device,
        patience: Patience,
        *,
        ranks_per_node: int | None = None,
        over_mpi: bool = False,
    ) -> Place:
        """Collective: meet the other ranks of a launch and see how all lie on hosts.

        Args:
            environment: usually `os.environ`.
            launch: what was read from it.
            device: on which this rank computes.
            patience: how long to wait for others, and whom to tell.
            ranks_per_node: the user's hint; it wins over what is seen.
            over_mpi: meet by MPI, which knows all ranks already.

        Raises:
            WingspanError: on every rank: one did not come, or cannot go on, or the ranks do not fit together.
        """
        guess = World(launch.rank, launch.size, launch.size, launch.local_rank or 0)
        meeting = (
            MpiMeeting(join_mpi(guess))
            if over_mpi
            else meet(environment, launch, guess, device.type, patience)
        )
        seen = look(meeting.own_address, meeting.rank_0_address, ranks_per_node)
        found = RankLayout(**meeting.agree(seen, places))
        local_rank = found.local_rank_R[launch.rank] if launch.local_rank is None else launch.local_rank
        world = World(launch.rank, launch.size, found.ranks_per_node, local_rank)
        return cls(world, meeting, interface_of(found.address_R[launch.rank]))

    @property
    def port(self) -> int:
        """Where rank 0 listens; 0 where it does not."""
        return getattr(self.meeting, "port", 0)

    def agree_on(self, given: Mapping[str, str]) -> None:
        """Collective: see to it that all ranks were given the same.

        Args:
            given: values by the names that people know.

        Raises:
            InputError: on every rank, where two differ.
        """

        def rule(values: list[dict[str, str]]) -> None:
            check_same(values)

        self.meeting.agree(told({**versions(), **given}), rule)
