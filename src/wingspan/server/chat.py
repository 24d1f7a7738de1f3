"""/v1/chat/completions: a conversation to be continued."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.server.errors import CallError
from wingspan.server.fields import ChatCall
from wingspan.server.served_model import ServedModel, until_gone
from wingspan.server.sse import events
from wingspan.server.templates import prompt_ids
from wingspan.server.together import Whole, pieces, usage, whole
from wingspan.server.tools import forced
from wingspan.writing import json_text


def router(serving: ServedModel) -> APIRouter:
    """The route, over one model."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat_completions(call: ChatCall, request: Request) -> Response:
        """Answer a conversation."""
        return await _Chat(serving, call, request.state.id).respond(request)

    return routes


class _Chat:
    def __init__(self, serving: ServedModel, call: ChatCall, request_id: str) -> None:
        serving.check_model(call.model)
        if call.top_logprobs is not None and not call.logprobs:
            raise CallError("top_logprobs: needs logprobs true", "top_logprobs")
        self._serving, self._call = serving, call
        self._forced = forced(call)
        if self._forced is not None and call.response_format is not None:
            raise CallError(
                "response_format: the answer is a tool's call already; leave one out", "response_format"
            )
        grammar = (
            serving.grammar(call.response_format)
            if self._forced is None
            else serving.schema_grammar(json_text(self._forced.schema), "tools")
        )
        tools = None if call.tool_choice == "none" else call.tools
        self._ids = prompt_ids(
            serving.tokenizer, call.messages, None if self._forced and not tools else tools
        )
        serving.check_ids(self._ids, "messages")
        room = serving.room(self._ids, call.max_completion_tokens or call.max_tokens, "messages")
        logprobs = (call.top_logprobs or 0) if call.logprobs else None
        self._answers = serving.answers(call, self._ids, room, logprobs, grammar)
        self._head = {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": serving.name}

    async def respond(self, request: Request) -> Response:
        serving = self._serving
        if self._call.stream:
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
        choices = [self._choice(place, one) for place, one in enumerate(found)]
        body = {"object": "chat.completion", "choices": choices, "usage": self._usage(found)}
        return JSONResponse(self._head | body)

    def _choice(self, place: int, one: Whole) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": one.text}
        if self._forced is not None:
            message |= {"content": None, "tool_calls": self._forced.calls(one.text)}
        return {
            "index": place,
            "message": message,
            "logprobs": self._logprobs(one.logprobs),
            "finish_reason": self._finish(one),
            "stop_reason": one.stop,
        }

    async def _streamed(self) -> AsyncIterator[dict[str, Any]]:
        head = self._head | {"object": "chat.completion.chunk"}
        usage_so_far = {"usage": None} if self._call.include_usage else {}
        told = [Whole() for _ in self._answers]
        try:
            for place in range(len(told)):
                yield head | {"choices": [_delta(place, {"role": "assistant", "content": ""})]} | usage_so_far
            async for place, piece in pieces(self._answers):
                one = told[place]
                one.add(piece)
                delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
                if self._forced is not None:
                    calls = self._forced.calls(one.text) if piece.finish_reason else []
                    delta = {"tool_calls": [{"index": 0} | call for call in calls]} if calls else {}
                if delta or piece.logprobs or piece.finish_reason:
                    choice = _delta(place, delta, self._logprobs(piece.logprobs), self._finish(one), one.stop)
                    yield head | {"choices": [choice]} | usage_so_far
            if self._call.include_usage:
                yield head | {"choices": [], "usage": self._usage(told)}
        finally:
            self._serving.engine.withdraw(self._answers)

    def _finish(self, one: Whole) -> str | None:
        """Why an answer ended; a call that is whole is an end of its own kind."""
        return "tool_calls" if self._forced is not None and one.finish_reason == "stop" else one.finish_reason

    def _logprobs(self, logprobs: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if not self._call.logprobs:
            return None
        return {
            "content": [
                self._likely(one.token, one.logprob)
                | {"top_logprobs": [self._likely(i, value) for i, value in one.top]}
                for one in logprobs
            ]
        }

    def _likely(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._serving.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def _usage(self, found: Sequence[Whole]) -> dict[str, Any]:
        return usage(len(self._ids), sum(len(one.tokens) for one in found))


def _delta(
    place: int,
    delta: dict[str, Any],
    logprobs: dict[str, Any] | None = None,
    finish: str | None = None,
    stop: str | None = None,
) -> dict[str, Any]:
    return {
        "index": place,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish,
        "stop_reason": stop,
    }
