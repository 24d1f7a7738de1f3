"""A server whose answers come at known times, so that what is measured can be judged."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse


@dataclass
class Stub:
    """What it was asked, and how many calls it had at once."""

    address: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    now: int = 0
    most: int = 0
    refuse_every: int = 0


@contextmanager
def stub(first_seconds: float, token_seconds: float, refuse_every: int = 0) -> Iterator[Stub]:
    """Answers with the first token after `first_seconds` and each later one after `token_seconds`."""
    seen = Stub(refuse_every=refuse_every)
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "stub"}]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Any:
        body = await request.json()
        seen.bodies.append(body)
        seen.keys.append(request.headers.get("Authorization"))
        if seen.refuse_every and len(seen.bodies) % seen.refuse_every == 0:
            return JSONResponse({"error": {"message": "no room"}}, 429)
        return StreamingResponse(tokens(body), media_type="text/event-stream")

    async def tokens(body: dict[str, Any]) -> AsyncIterator[str]:
        seen.now += 1
        seen.most = max(seen.most, seen.now)
        for n in range(body["max_tokens"]):
            await asyncio.sleep(token_seconds if n else first_seconds)
            yield f"data: {json.dumps({'choices': [{'text': 'x'}], 'usage': None})}\n\n"
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"
        seen.now -= 1

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    running = threading.Thread(target=server.run)
    running.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield seen
    finally:
        server.should_exit = True
        running.join(20)
