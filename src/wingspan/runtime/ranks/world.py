"""Who this process is among the ranks, read from the environment of whichever launcher started it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
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

_MAY_BE_ALONE = {"SLURM_PROCID", "SLURM_TASKS_PER_NODE", "PMI_SIZE"}
"""What is also set where no rank was started: Slurm numbers its batch script too, whose tasks srun starts later."""

_RUNS_SHOWN = 6


@dataclass(frozen=True)
class Launch:
    """What a launcher wrote into this process's environment; None where it did not say.

    `rank_name` and `size_name` are the variables that hold the first two.
    """

    launcher: str
    rank_name: str
    size_name: str
    rank: int
    size: int
    local_rank: int | None
    local_size: int | None

    @property
    def on_several_hosts(self) -> bool:
        """Whether the launcher says that it started ranks elsewhere too."""
        return self.local_size is not None and self.local_size < self.size


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


def launch_from_environment(environment: Mapping[str, str]) -> Launch | None:
    """What this process's launcher wrote, or None where none did.

    How ranks lie on nodes is its word here; `meeting.hosts` has what ranks see.

    Raises:
        InputError: its variables are incomplete, no numbers, or contradict each other.
    """
    for launcher, names in _LAUNCHERS.items():
        rank, size, local_rank, local_size = (environment.get(name) for name in names)
        if rank is None or size is None:
            continue
        found = Launch(
            launcher,
            names[0],
            names[1],
            _number(names[0], rank),
            _number(names[1], size),
            None if local_rank is None else _number(names[2], local_rank),
            # Slurm's has a figure per node: "4(x2),3".
            None if local_size is None else _number(names[3], re.split(r"[(,]", local_size)[0]),
        )
        if not 0 <= found.rank < found.size:
            raise InputError(
                f"environment: {names[0]}={rank} is not below {names[1]}={size}; ranks count from 0 to "
                f"{found.size - 1}"
            )
        return found
    _check_none_is_alone(environment)
    return None


def check_ranks_per_node(size: int, ranks_per_node: int) -> None:
    """Raise `InputError` unless the ranks fill whole nodes."""
    if ranks_per_node < 1 or size % min(ranks_per_node, size):
        raise InputError(
            f"`ranks_per_node` {ranks_per_node} does not divide {size} ranks into whole nodes; "
            f"use a divisor of {size}"
        )


def named(ranks: Sequence[int]) -> str:
    """Rising rank numbers for people: `rank 1`, `ranks 0-3, 5`."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], rank]
        else:
            runs.append([rank])
    shown = ", ".join("-".join(str(end) for end in run) for run in runs[:_RUNS_SHOWN])
    more = ", ..." if len(runs) > _RUNS_SHOWN else ""
    return f"rank{'' if len(ranks) == 1 else 's'} {shown}{more}"


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


def _check_none_is_alone(environment: Mapping[str, str]) -> None:
    for launcher, (rank, size, *_) in _LAUNCHERS.items():
        for there, missing in ((rank, size), (size, rank)):
            if there in environment and there not in _MAY_BE_ALONE:
                raise InputError(
                    f"environment: {there}={environment[there]} without {missing}: half of what {launcher} gives a "
                    f"rank; set both, or neither to start ranks here"
                )


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"environment: {name}={text!r} is not a whole number") from None
