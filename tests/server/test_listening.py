"""A server that was told to end before it listened for signals itself ends at once."""

from __future__ import annotations

import asyncio
import signal

import pytest
import uvicorn
from fastapi import FastAPI

from wingspan.server.listening import _Server


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
