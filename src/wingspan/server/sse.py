"""Server-sent events, as OpenAI's streams use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from wingspan.server.errors import error_body
from wingspan.server.step_loop import StoppedError
from wingspan.writing import json_text

_END = "data: [DONE]\n\n"


def events(bodies: AsyncIterator[dict[str, Any]], ended: Callable[[], None]) -> StreamingResponse:
    """An answer whose bodies are sent as they come, and then the end.

    Args:
        bodies: of the events.
        ended: called when nothing will be sent any more, also where the caller leaves before the first event.
    """
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    response = _Events(_lines(bodies), media_type="text/event-stream", headers=headers)
    response.ended = ended
    return response


class _Events(StreamingResponse):
    ended: Callable[[], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.ended()


async def _lines(bodies: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for body in bodies:
            yield f"data: {json_text(body)}\n\n"
    except StoppedError as error:
        yield f"data: {json_text(error_body(f'the engine has ended: {error}', 503, code='engine_ended'))}\n\n"
        return
    yield _END
