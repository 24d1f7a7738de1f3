"""/v1/completions: text, or token ids, to be continued."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.server.answers import Answer
from wingspan.server.errors import CallError
from wingspan.server.fields import CompletionCall
from wingspan.server.served_model import ServedModel, until_gone
from wingspan.server.sse import events
from wingspan.server.together import Whole, pieces, usage, whole


def router(serving: ServedModel) -> APIRouter:
    """The route, over one model."""
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def completions(call: CompletionCall, request: Request) -> Response:
        """Continue one or several prompts."""
        return await _Completion(serving, call, request.state.id).respond(request)

    return routes


class _Completion:
    def __init__(self, serving: ServedModel, call: CompletionCall, request_id: str) -> None:
        serving.check_model(call.model)
        self._serving, self._call = serving, call
        self._prompts = _prompts(serving, call)
        if call.echo and call.logprobs is not None:
            raise CallError(
                "echo: cannot be had with logprobs, prompts have none here; leave one out", "echo"
            )
        grammar = serving.grammar(call.response_format)
        self._answers: list[Answer] = []
        for ids in self._prompts:
            room = serving.room(ids, call.max_tokens, "prompt")
            self._answers += serving.answers(call, ids, room, call.logprobs, grammar)
        self._head = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": serving.name,
        }

    async def respond(self, request: Request) -> Response:
        serving = self._serving
        if self._call.stream:
            # Joined before the first byte, so that a full queue is a status and no event.
            await serving.engine.submit(self._answers)
            return events(self._streamed())
        async with serving.answering(self._answers):
            found: list[Whole] = []

            async def collect() -> None:
                found.extend(await whole(self._answers))

            work = asyncio.create_task(collect())
            if await until_gone(request, work):
                return Response(status_code=499)
            work.result()
        choices = [self._choice(n, one.text, one.logprobs, one, first=True) for n, one in enumerate(found)]
        return JSONResponse(
            self._head | {"choices": choices, "usage": self._usage(len(o.tokens) for o in found)}
        )

    async def _streamed(self) -> AsyncIterator[dict[str, Any]]:
        call = self._call
        told = [Whole() for _ in self._answers]
        try:
            async for place, piece in pieces(self._answers):
                first = not told[place].tokens
                told[place].add(piece)
                if piece.text or piece.logprobs or piece.finish_reason or (first and call.echo):
                    choice = self._choice(place, piece.text, piece.logprobs, told[place], first=first)
                    yield self._head | {"choices": [choice]} | ({"usage": None} if call.include_usage else {})
            if call.include_usage:
                yield self._head | {"choices": [], "usage": self._usage(len(one.tokens) for one in told)}
        finally:
            self._serving.engine.withdraw(self._answers)

    def _choice(
        self, place: int, text: str, logprobs: Sequence[TokenLogprobs], so_far: Whole, *, first: bool
    ) -> dict[str, Any]:
        call = self._call
        echoed = self._serving.decode(self._prompts[place // call.n]) if call.echo and first else ""
        return {
            "index": place,
            "text": echoed + text,
            "logprobs": None if call.logprobs is None else self._logprobs(logprobs, so_far),
            "finish_reason": so_far.finish_reason,
            "stop_reason": so_far.stop,
        }

    def _logprobs(self, logprobs: Sequence[TokenLogprobs], so_far: Whole) -> dict[str, Any]:
        decode = self._serving.decode
        before = so_far.tokens[: len(so_far.tokens) - len(logprobs)]
        offsets = [len(decode([*before, *(one.token for one in logprobs[:n])])) for n in range(len(logprobs))]
        return {
            "tokens": [decode([one.token]) for one in logprobs],
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{decode([i]): value for i, value in one.top} for one in logprobs],
            "text_offset": offsets,
        }

    def _usage(self, completion_tokens: Any) -> dict[str, Any]:
        return usage(sum(map(len, self._prompts)), sum(completion_tokens))


def _prompts(serving: ServedModel, call: CompletionCall) -> list[list[int]]:
    """The ids of every prompt of a call."""
    given = call.prompt
    if isinstance(given, str):
        return [serving.encode(given, "prompt")]
    if not given:
        raise CallError("prompt: is empty; give a text or token ids", "prompt")
    if isinstance(given[0], int):
        several: list[Any] = [given]
    else:
        several = list(given)
    prompts = []
    for one in several:
        if isinstance(one, str):
            prompts.append(serving.encode(one, "prompt"))
        else:
            serving.check_ids(one, "prompt")
            prompts.append(list(one))
    return prompts
