"""A server that was told to end before it listened for signals itself ends at once; its connections do not wait."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
import uvicorn
from fastapi import FastAPI

from wingspan.server.listening import _Server, send_at_once


@pytest.mark.parametrize("came", [[], [signal.SIGINT]])
def test_what_came_before_ends_it(came: list[int]) -> None:
    config = uvicorn.Config(FastAPI(), port=0, log_level="warning")

    async def served() -> bool:
        server = _Server(config, lambda: None, came)
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({serving}, timeout=1)
        ended = serving.done()
        server.stop()
        await serving
        return ended

    assert asyncio.run(served()) == bool(came)


def test_connections_send_small_pieces_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        send_at_once(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
