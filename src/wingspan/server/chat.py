"""/v1/chat/completions: a conversation to be continued."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.server.answers import Answer, AnswerPart
from wingspan.server.bodies import ChatCompletion, ChatPiece
from wingspan.server.effects import check_chat
from wingspan.server.errors import CallError
from wingspan.server.fields import ChatCall
from wingspan.server.openapi import errors, in_pieces
from wingspan.server.reply import reply
from wingspan.server.served_model import ServedModel
from wingspan.server.templates import prompt_ids
from wingspan.server.together import Whole
from wingspan.server.tools import forced
from wingspan.writing import json_text


def router(serving: ServedModel) -> APIRouter:
    """The route, over one model."""
    routes = APIRouter()

    @routes.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=in_pieces(ChatPiece) | errors(400, 404, 413, 429, 503),
    )
    async def chat_completions(call: ChatCall, request: Request) -> Response:
        """Answer a conversation."""
        return await reply(_Chat(serving, call, request.state.id), call, serving, request)

    return routes


class _Chat:
    """OpenAI's chat completion; see `Form`."""

    operation = "chat"

    def __init__(self, serving: ServedModel, call: ChatCall, request_id: str) -> None:
        serving.check_model(call.model)
        check_chat(call)
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
        ids = prompt_ids(serving.tokenizer, call.messages, None if self._forced and not tools else tools)
        serving.check_prompt(ids, "messages")
        room = serving.room(ids, call.max_completion_tokens or call.max_tokens, "messages")
        logprobs = (call.top_logprobs or 0) if call.logprobs else None
        self.answers: Sequence[Answer] = serving.answers(call, ids, room, logprobs, grammar)
        self.prompt_tokens = len(ids)
        self._head = {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": serving.name}

    def head(self, *, in_pieces: bool) -> Mapping[str, Any]:
        return self._head | {"object": "chat.completion.chunk" if in_pieces else "chat.completion"}

    def opening(self, place: int) -> dict[str, Any] | None:
        return _delta(place, {"role": "assistant", "content": ""})

    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if self._forced is not None:
            message |= {"content": None, "tool_calls": self._forced.calls(answer.text)}
        return {
            "index": place,
            "message": message,
            "logprobs": self._logprobs(answer.logprobs),
            "finish_reason": self._finish(answer),
            "stop_reason": answer.stop,
        }

    def piece(self, place: int, gained: AnswerPart, so_far: Whole) -> dict[str, Any] | None:
        delta: dict[str, Any] = {"content": gained.text} if gained.text else {}
        if self._forced is not None:
            calls = self._forced.calls(so_far.text) if gained.finish_reason else []
            delta = {"tool_calls": [{"index": 0} | call for call in calls]} if calls else {}
        if not (delta or gained.logprobs or gained.finish_reason):
            return None
        return _delta(place, delta, self._logprobs(gained.logprobs), self._finish(so_far), so_far.stop)

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
