"""How a rank comes to its meeting: as rank 0 or another, where torchrun keeps a store at the port and where not."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from wingspan.errors import InputError, WingspanError
from wingspan.runtime.launch.meeting.address import MeetingPoint, check_interfaces, meeting_point
from wingspan.runtime.launch.meeting.guest import Guest, Where
from wingspan.runtime.launch.meeting.host import Host, listen
from wingspan.runtime.launch.meeting.line import Line, NotOursError
from wingspan.runtime.launch.meeting.protocol import AloneMeeting, Patience, hello, unwrapped
from wingspan.runtime.ranks.world import Launch, World
from wingspan.writing import json_text

_PROBE_SECONDS = 3.0
_PORT_AGAIN_SECONDS = 0.5
"""A rank that looks for rank 0 on the same host can hold the port for a moment."""


def meet(
    environment: Mapping[str, str], launch: Launch, world: World, device_type: str, patience: Patience
) -> AloneMeeting | Host | Guest:
    """Come to the meeting of a launch's ranks; only rank 0 is there for certain when this returns.

    Args:
        environment: usually `os.environ`.
        launch: what was read from it.
        world: this rank's place.
        device_type: of the device it computes on.
        patience: how long to wait for others, and whom to tell.

    Raises:
        WingspanError: the launch is incomplete, or rank 0 does not answer in time.
    """
    if world.size == 1:
        return AloneMeeting()
    point = meeting_point(environment, launch)
    meeting = _host(world, point, patience) if world.rank == 0 else _guest(world, point, patience)
    try:
        check_interfaces(environment, device_type)
    except WingspanError as error:
        meeting.fail(error)
        raise
    return meeting


def _host(world: World, point: MeetingPoint, patience: Patience) -> Host:
    if point.agent_store:
        listener = listen(MeetingPoint(point.address, 0, point.launch, only_here=point.only_here))
        _publish(point, listener.getsockname()[1])
        return Host(world, point, listener, patience)
    if not _is_own(point.address):
        _refuse_second(world, point)
        point = point.with_remark(f"{socket.gethostname()}, where rank 0 is, does not have that address")
    try:
        return Host(world, point, listen(point), patience)
    except InputError:
        _refuse_second(world, point)
        time.sleep(_PORT_AGAIN_SECONDS)
    return Host(world, point, listen(point), patience)


def _guest(world: World, point: MeetingPoint, patience: Patience) -> Guest:
    return Guest(world, point, patience, _where(point) if point.agent_store else None)


def _refuse_second(world: World, point: MeetingPoint) -> None:
    """Raise `InputError` where another process of this launch is rank 0 already; it ends with the same word."""
    end = time.monotonic() + _PROBE_SECONDS
    with (
        suppress(OSError, EOFError, NotOursError),
        socket.create_connection((point.address, point.port), _PROBE_SECONDS) as connection,
    ):
        line = Line(connection)
        line.send(hello(world, point))
        while time.monotonic() < end:
            for message in line.receive(end - time.monotonic()):
                if "failed" in message:
                    unwrapped(message)


def _is_own(address: str) -> bool:
    """Whether this host has the address; where nobody can say, yes."""
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind((where[0], 0, *where[2:]))
                return True
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                return True
    return False


def _agent_store(point: MeetingPoint) -> Any:
    """torchrun's own store, where its agents have met already."""
    store = dist.TCPStore(  # type: ignore[attr-defined]
        point.address,
        point.port,
        None,
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=30),
    )
    return dist.PrefixStore(f"wingspan {point.launch}", store)  # type: ignore[attr-defined]


def _publish(point: MeetingPoint, port: int) -> None:
    """Tell the other ranks where rank 0 listens: its address on the way to the agents' store."""
    with socket.create_connection((point.address, point.port), 10.0) as way:
        own = way.getsockname()[0].removeprefix("::ffff:")
    # Where the store is on rank 0's host too, others know it by the name that they have.
    address = point.address if own.startswith("127.") or own == "::1" else own
    _agent_store(point).set("rank 0", json_text([address, port]))


def _where(point: MeetingPoint) -> Where:
    store = _agent_store(point)

    def look() -> tuple[str, int] | None:
        if not store.check(["rank 0"]):
            return None
        address, port = json.loads(store.get("rank 0"))
        return address, port

    return look
