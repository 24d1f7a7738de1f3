"""The server's routes, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from wingspan.errors import WingspanError
from wingspan.server import chat, completions, errors, openapi, pages
from wingspan.server.bodies import Detokenized, Health, ModelCard, ModelList, TokenIds, Version
from wingspan.server.fields import DetokenizeCall, TokenizeCall
from wingspan.server.guards import OPEN_PATHS, BodyLimit, Key, RequestName
from wingspan.server.live import Live
from wingspan.server.metrics import Metrics
from wingspan.server.served_model import ServedModel
from wingspan.version import __version__


@dataclass(frozen=True)
class Access:
    """Who may call, and with how much.

    Args:
        key: that calls must carry; None: anybody may call.
        origins: of pages whose scripts may call; `*` for all.
        most_body_bytes: of a call's body.
    """

    key: str | None = None
    origins: tuple[str, ...] = ()
    most_body_bytes: int = 4 * 1024 * 1024


def build(serving: ServedModel, metrics: Metrics, live: Live, access: Access) -> FastAPI:
    """The application over one model. Its engine steps from start-up to shut-down."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        working = [asyncio.create_task(serving.engine.run()), asyncio.create_task(live.run())]
        try:
            yield
        finally:
            for task in working:
                task.cancel()
                with suppress(asyncio.CancelledError, WingspanError):
                    await task

    app = FastAPI(
        title="Wingspan", version=__version__, lifespan=living, docs_url=None, redoc_url=None,
        description="OpenAI's API over a Mixture-of-Experts model whose experts are spread over ranks.",
        responses=openapi.errors(*(() if access.key is None else (401,))),
    )  # fmt: skip
    errors.install(app)
    app.include_router(completions.router(serving))
    app.include_router(chat.router(serving))
    app.include_router(pages.router(live))
    _add_model(app, serving)
    _add_text(app, serving)
    _add_state(app, serving, metrics)
    openapi.correct(app, OPEN_PATHS, keyed=access.key is not None)
    app.add_middleware(BodyLimit, most_bytes=access.most_body_bytes)
    if access.key is not None:
        app.add_middleware(Key, key=access.key)
    if access.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(access.origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(RequestName)
    return app


def _add_model(app: FastAPI, serving: ServedModel) -> None:
    card = ModelCard(id=serving.name, created=serving.started_seconds, max_model_len=serving.longest)

    @app.get("/v1/models")
    async def models() -> ModelList:
        """List what is served: one model."""
        return ModelList(data=[card])

    @app.get("/v1/models/{name:path}", responses=openapi.errors(404))
    async def model(name: str) -> ModelCard:
        """Describe one model."""
        serving.check_model(name)
        return card


def _add_text(app: FastAPI, serving: ServedModel) -> None:
    @app.post("/tokenize", responses=openapi.errors(400, 404, 413))
    async def tokenize(call: TokenizeCall) -> TokenIds:
        """Give the ids of a text."""
        serving.check_model(call.model)
        ids = serving.encode(call.prompt, "prompt")
        return TokenIds(count=len(ids), max_model_len=serving.longest, tokens=ids)

    @app.post("/detokenize", responses=openapi.errors(400, 404, 413))
    async def detokenize(call: DetokenizeCall) -> Detokenized:
        """Give the text of ids."""
        serving.check_model(call.model)
        serving.check_known(call.tokens, "tokens")
        if serving.tokenizer.why_no_text:
            raise errors.CallError(f"tokens: {serving.tokenizer.why_no_text}", "tokens")
        return Detokenized(prompt=serving.decode(call.tokens))


def _add_state(app: FastAPI, serving: ServedModel, metrics: Metrics) -> None:
    @app.get("/health", response_model=Health, responses=openapi.errors(503))
    async def health() -> Health | Response:
        """Say whether the engine lives."""
        failed = serving.engine.failed
        if failed is None:
            return Health(status="ok")
        return JSONResponse(errors.error_body(str(failed), 503, code="engine_ended"), 503)

    @app.get("/ready", response_model=Health, responses=openapi.errors(503))
    async def ready() -> Health | Response:
        """Say whether a call would find a place to wait."""
        engine = serving.engine
        if engine.failed is None and engine.waiting < engine.most_waiting:
            return Health(status="ready")
        return JSONResponse(errors.error_body("the queue is full", 503, code="queue_full"), 503)

    @app.get("/version")
    async def version() -> Version:
        """Give the server's version."""
        return Version(version=__version__)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Give all metrics in Prometheus's format."""
        text, kind = metrics.text()
        return Response(text, media_type=kind)
