"""The routes of the live page: the page, its files, and the stream that fills it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from wingspan.report.live_page import FILES, POLICY, live_page, page_file
from wingspan.server.errors import CallError
from wingspan.server.live import Live
from wingspan.server.sse import events

PATH = "/"
FOLDER = "/page"
"""Where the page's files lie."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router(live: Live) -> APIRouter:
    """The routes, over what goes on in one server."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(PATH)
    async def page() -> HTMLResponse:
        """Show what goes on."""
        return HTMLResponse(live_page(FOLDER), headers=_HEADERS)

    @routes.get(f"{FOLDER}/{{name}}")
    async def file(name: str) -> Response:
        """Give a file of the page; its address changes with the version."""
        if name not in FILES:
            raise CallError(f"{name}: the page has no such file", status=404)
        kind, text = page_file(name)
        headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(text, media_type=kind, headers=headers)

    @routes.get("/live")
    async def stream() -> StreamingResponse:
        """Tell what goes on, every second."""
        live.join()
        return events(live.stream(), live.leave)

    return routes
