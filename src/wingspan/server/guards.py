"""What stands before every call: its name, its key, and how long it may be."""

from __future__ import annotations

import hmac
import re
import secrets

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wingspan.report.live_page import FILES
from wingspan.server.errors import error_body
from wingspan.server.pages import FOLDER, PATH

OPEN_PATHS = frozenset({"/health", "/ready", "/version", PATH, *(f"{FOLDER}/{name}" for name in FILES)})
"""Paths that need no key: they give away nothing of what is served, asked and answered."""

_NAME = re.compile(r"[\x21-\x7e]{1,128}")


class RequestName:
    """Names every call: as its caller does in X-Request-Id, or anew; the answer carries the name too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        name = given if _NAME.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["id"] = name

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            await send(message)

        await self._app(scope, receive, named)


class Key:
    """Refuses calls without the server's key.

    Args:
        app: behind it.
        key: as `Authorization: Bearer KEY` must say.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._wanted):
                message = "no key, or a wrong one: send Authorization: Bearer KEY"
                await JSONResponse(error_body(message, 401, code="invalid_api_key"), 401)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses bodies above a size, by what they say of themselves and by what comes.

    Args:
        app: behind it.
        most_bytes: of a body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = said.isdigit() and int(said) > self._most_bytes
        body, more = b"", not too_long
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most_bytes:
                too_long, more = True, False
        if too_long:
            message_text = f"the body is longer than {self._most_bytes:,} bytes; send less"
            await JSONResponse(error_body(message_text, 413), 413)(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def read() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, read, send)
