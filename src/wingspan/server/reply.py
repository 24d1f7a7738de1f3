"""What a call gets back: its answers as one body, or piece by piece; in whichever of OpenAI's objects tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from wingspan.server.answers import Answer, AnswerPart, Origin
from wingspan.server.fields import CallFields
from wingspan.server.served_model import ServedModel
from wingspan.server.sse import events
from wingspan.server.together import Whole, pieces, usage, whole

_CALLER_LEFT = 499
"""A status that nobody will read; nginx's name for it is "client closed request"."""

Found = TypeVar("Found")


class Form(Protocol):
    """One of OpenAI's objects, told of the answers to one call. A choice is what the object says of one answer."""

    prompt_tokens: int
    operation: str
    """What OpenTelemetry calls it."""

    @property
    def answers(self) -> Sequence[Answer]:
        """All answers to the call; an answer's place is its place here."""

    def head(self, *, in_pieces: bool) -> Mapping[str, Any]:
        """What stands before the choices, in a body or in each piece."""

    def opening(self, place: int) -> dict[str, Any] | None:
        """The choice that is sent before an answer's first token, if any."""

    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        """The choice of a whole answer."""

    def piece(self, place: int, gained: AnswerPart, so_far: Whole) -> dict[str, Any] | None:
        """The choice of what an answer has gained; None: nothing to tell."""


async def reply(form: Form, call: CallFields, serving: ServedModel, request: Request) -> Response:
    """Let a call's answers be computed, and tell them. Who leaves early frees what the answers hold.

    Raises:
        QueueFullError, StoppedError, InputError: see `StepLoop.submit`; also for a stream, whose status is still open.
    """
    engine, answers = serving.engine, form.answers
    origin = _origin(form, request)
    for answer in answers:
        answer.origin = origin
    told = False
    try:
        if not await _while_there(request, _all(engine.submit(answers))):
            return Response(status_code=_CALLER_LEFT)
        if call.stream:
            told = True
            return events(_told_in_pieces(form, call), lambda: engine.withdraw(answers))
        found = await _while_there(request, whole(answers))
        if found is None:
            return Response(status_code=_CALLER_LEFT)
        choices = [form.choice(place, one) for place, one in enumerate(found)]
        return JSONResponse({**form.head(in_pieces=False), "choices": choices, "usage": _usage(form, found)})
    finally:
        if not told:
            engine.withdraw(answers)


def _origin(form: Form, request: Request) -> Origin:
    trace = {name: request.headers[name] for name in ("traceparent", "tracestate") if name in request.headers}
    return Origin(form.head(in_pieces=False)["id"], form.operation, trace)


async def _told_in_pieces(form: Form, call: CallFields) -> AsyncIterator[dict[str, Any]]:
    """The bodies of a stream."""
    head = dict(form.head(in_pieces=True))
    no_usage_yet = {"usage": None} if call.include_usage else {}
    so_far = [Whole() for _ in form.answers]
    for place in range(len(so_far)):
        if (choice := form.opening(place)) is not None:
            yield head | {"choices": [choice]} | no_usage_yet
    async for place, gained in pieces(form.answers):
        so_far[place].add(gained)
        if (choice := form.piece(place, gained, so_far[place])) is not None:
            yield head | {"choices": [choice]} | no_usage_yet
    if call.include_usage:
        yield head | {"choices": [], "usage": _usage(form, so_far)}


def _usage(form: Form, found: Sequence[Whole]) -> dict[str, Any]:
    # Of several answers to a prompt the first: that the others find what it computed spared the caller nothing.
    cached = [answer.cached_tokens for answer in form.answers if not answer.ask.stream]
    known = [tokens for tokens in cached if tokens is not None]
    cached_tokens = sum(known) if len(known) == len(cached) else None
    return usage(form.prompt_tokens, sum(len(one.tokens) for one in found), cached_tokens)


async def _while_there(request: Request, work: Coroutine[Any, Any, Found]) -> Found | None:
    """What work gives; it is broken off, and gives None, where its caller leaves first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()


async def _all(work: Coroutine[Any, Any, None]) -> bool:
    """Whether work was done to its end."""
    await work
    return True
