"""Ranks that a launcher started meet at rank 0 before anything else, agree on what all must have, and say who is late.

Rank 0 listens at the launch's address and port; every other rank holds a connection to it and sends JSON, one message a
line. torch.distributed's own way of meeting is silent for minutes where a rank never comes, and a rank that reaches a
stranger's port there waits for ever. Its store follows on the same port once all are known.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch.distributed as dist

from wingspan.errors import InputError, RunError, WingspanError
from wingspan.runtime.launch.meeting.address import MeetingPoint
from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.mpi import MpiTransport

T = TypeVar("T")

DEFAULT_WAIT_SECONDS = 120.0


def _nothing(_: str) -> None:
    return


@dataclass(frozen=True)
class Patience:
    """How long ranks wait for each other, and whom they tell that they do: first after `word_seconds`."""

    limit_seconds: float = DEFAULT_WAIT_SECONDS
    tell: Callable[[str], None] = _nothing
    word_seconds: float = 5.0


class Meeting(Protocol):
    """All ranks of a launch, before they exchange rows. Every rank makes the same calls in the same order."""

    own_address: str
    """This rank's, on the way to rank 0; empty where it is not known."""
    rank_0_address: str
    """Rank 0's, as this rank reaches it; empty where it is not known."""

    def agree(self, value: Any, rule: Callable[[list[Any]], Any]) -> Any:
        """What `rule` makes, on rank 0, of the values of all ranks in their order; the same result everywhere.

        Args:
            value: this rank's; of JSON's types, as the rule's result.
            rule: raises `WingspanError` where the values do not go together.

        Raises:
            WingspanError: the rule's, on every rank; another rank's, that could not go on; or a rank did not come.
        """

    def fail(self, error: WingspanError) -> None:
        """Let the other ranks know that this one cannot go on, as far as they can be told."""


class MpiMeeting:
    """Ranks that MPI has brought together already."""

    own_address = ""
    rank_0_address = ""

    def __init__(self, transport: MpiTransport) -> None:
        self._transport = transport

    def transport(self, world: World) -> MpiTransport:
        """The ranks' transport, with their places as they are known now."""
        self._transport.world = world
        return self._transport

    def agree(self, value: Any, rule: Callable[[list[Any]], Any]) -> Any:
        """See `Meeting`."""
        values = self._transport.gather(value)
        verdict: Any = None
        if values is not None:
            try:
                verdict = {"verdict": rule(values)}
            except WingspanError as error:
                verdict = failure(error)
        return unwrapped(self._transport.broadcast(verdict))

    def fail(self, error: WingspanError) -> None:
        """See `Meeting`: mpirun ends the others when this one leaves."""


class AloneMeeting:
    """A launch of one rank."""

    own_address = "127.0.0.1"
    rank_0_address = "127.0.0.1"

    def agree(self, value: Any, rule: Callable[[list[Any]], Any]) -> Any:
        """See `Meeting`."""
        return rule([value])

    def fail(self, error: WingspanError) -> None:
        """See `Meeting`."""


def failure(error: WingspanError) -> dict[str, Any]:
    """An error as it travels."""
    return {"wingspan": "meeting", "failed": str(error), "exit_code": error.exit_code}


def unwrapped(message: Any) -> Any:
    """A verdict that came; raises the error that came instead."""
    if "failed" in message:
        kind = InputError if message["exit_code"] == InputError.exit_code else RunError
        raise kind(message["failed"])
    return message["verdict"]


def this_process() -> str:
    """For people, and the same for no two processes."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def hello(world: World, point: MeetingPoint) -> dict[str, Any]:
    """What a rank says first."""
    return {
        "wingspan": "meeting",
        "launch": point.launch,
        "rank": world.rank,
        "size": world.size,
        "who": this_process(),
    }


def store_of(world: World, address: str, port: int, listener: socket.socket | None) -> Any:
    """Collective: torch.distributed's store on rank 0, which gives its listening socket to it.

    Args:
        world: this rank's place.
        address: rank 0's.
        port: where it listens.
        listener: rank 0's socket; None elsewhere.
    """
    return dist.TCPStore(  # type: ignore[attr-defined]
        address,
        port,
        world.size,
        is_master=listener is not None,
        master_listen_fd=None if listener is None else listener.detach(),
        timeout=timedelta(seconds=DEFAULT_WAIT_SECONDS),
    )
