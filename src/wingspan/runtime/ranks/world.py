"""Who this process is among the ranks, read from the environment of whichever launcher started it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from wingspan.errors import InputError

# Launchers in the order they are asked: (rank, world size, rank on this node, ranks on this node).
_LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_TASKS_PER_NODE"),
}


@dataclass(frozen=True)
class World:
    """One rank's view of the EP group: its number, how many there are, how they lie on nodes."""

    rank: int
    size: int
    ranks_per_node: int
    local_rank: int

    @property
    def node(self) -> int:
        """The node this rank is on."""
        return self.rank // self.ranks_per_node

    def node_of(self, rank: int) -> int:
        """The node another rank is on."""
        return rank // self.ranks_per_node


def within(world: World, members: list[int]) -> World:
    """A rank's place in a part of the group; it counts as one node unless every member is on another one.

    Args:
        world: its place in the whole group.
        members: the part's ranks in order, its own among them.
    """
    place = members.index(world.rank)
    if len({world.node_of(member) for member in members}) == len(members):
        return World(rank=place, size=len(members), ranks_per_node=1, local_rank=0)
    return World(rank=place, size=len(members), ranks_per_node=len(members), local_rank=place)


def world_from_environment(environment: Mapping[str, str], ranks_per_node: int | None = None) -> World | None:
    """This process's place as its launcher wrote it, or None where no launcher did.

    Args:
        environment: usually `os.environ`.
        ranks_per_node: the user's hint; it wins over the launcher's figure.

    Raises:
        InputError: the launcher's variables contradict each other or the hint.
    """
    for launcher, names in _LAUNCHERS.items():
        rank, size, local_rank, local_size = (environment.get(name) for name in names)
        if rank is None or size is None:
            continue
        per_node = ranks_per_node or _number(names[3], (local_size or size).split("(")[0])
        world = World(
            rank=_number(names[0], rank),
            size=_number(names[1], size),
            ranks_per_node=per_node,
            local_rank=_number(names[2], local_rank or rank),
        )
        check_ranks_per_node(world.size, per_node)
        if not 0 <= world.rank < world.size:
            raise InputError(f"{launcher}: {names[0]}={rank} is not below {names[1]}={size}")
        return world
    return None


def check_ranks_per_node(size: int, ranks_per_node: int) -> None:
    """Raise `InputError` unless the ranks fill whole nodes."""
    if ranks_per_node < 1 or size % min(ranks_per_node, size):
        raise InputError(
            f"--ranks-per-node {ranks_per_node} does not divide {size} ranks into whole nodes; "
            f"use a divisor of {size}"
        )


def export(world: World, address: str, port: int) -> None:
    """Write this process's place into its environment, torchrun's way, for the libraries that read it there."""
    os.environ.update(
        RANK=str(world.rank),
        WORLD_SIZE=str(world.size),
        LOCAL_RANK=str(world.local_rank),
        LOCAL_WORLD_SIZE=str(world.ranks_per_node),
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
    )


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"environment: {name}={text!r} is not a whole number") from None
