"""/v1/completions: text, or token ids, to be continued."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.server.answers import Answer, AnswerPart
from wingspan.server.bodies import CompletionPiece, TextCompletion
from wingspan.server.errors import CallError
from wingspan.server.fields import CompletionCall
from wingspan.server.openapi import errors, in_pieces
from wingspan.server.reply import reply
from wingspan.server.served_model import ServedModel
from wingspan.server.together import Whole


def router(serving: ServedModel) -> APIRouter:
    """The route, over one model."""
    routes = APIRouter()

    @routes.post(
        "/v1/completions",
        response_model=TextCompletion,
        responses=in_pieces(CompletionPiece) | errors(400, 404, 413, 429, 503),
    )
    async def completions(call: CompletionCall, request: Request) -> Response:
        """Continue one or several prompts."""
        return await reply(_Completion(serving, call, request.state.id), call, serving, request)

    return routes


class _Completion:
    """OpenAI's text completion; see `Form`."""

    def __init__(self, serving: ServedModel, call: CompletionCall, request_id: str) -> None:
        serving.check_model(call.model)
        self._serving, self._call = serving, call
        self._prompts = _prompts(serving, call)
        if call.echo and call.logprobs is not None:
            raise CallError(
                "echo: cannot be had with logprobs, prompts have none here; leave one out", "echo"
            )
        grammar = serving.grammar(call.response_format)
        self.answers: Sequence[Answer] = [
            answer
            for ids in self._prompts
            for answer in serving.answers(
                call, ids, serving.room(ids, call.max_tokens, "prompt"), call.logprobs, grammar
            )
        ]
        self.prompt_tokens = sum(map(len, self._prompts))
        self._head = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": serving.name,
        }

    def head(self, *, in_pieces: bool) -> Mapping[str, Any]:  # noqa: ARG002 - the same in both
        return self._head

    def opening(self, place: int) -> dict[str, Any] | None:
        if not self._call.echo:
            return None
        return self._choice(place, self._prompt(place), (), Whole())

    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        echoed = self._prompt(place) if self._call.echo else ""
        return self._choice(place, echoed + answer.text, answer.logprobs, answer)

    def piece(self, place: int, gained: AnswerPart, so_far: Whole) -> dict[str, Any] | None:
        if not (gained.text or gained.logprobs or gained.finish_reason):
            return None
        return self._choice(place, gained.text, gained.logprobs, so_far)

    def _prompt(self, place: int) -> str:
        return self._serving.decode(self._prompts[place // self._call.n])

    def _choice(
        self, place: int, text: str, logprobs: Sequence[TokenLogprobs], so_far: Whole
    ) -> dict[str, Any]:
        return {
            "index": place,
            "text": text,
            "logprobs": None if self._call.logprobs is None else self._logprobs(logprobs, so_far),
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


def _prompts(serving: ServedModel, call: CompletionCall) -> list[list[int]]:
    """The ids of every prompt of a call."""
    given = call.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        several: Sequence[Any] = [given]
    else:
        several = given
    prompts = [serving.encode(one, "prompt") if isinstance(one, str) else list(one) for one in several]
    if not prompts:
        raise CallError("prompt: is empty; give a text or token ids", "prompt")
    for ids in prompts:
        serving.check_prompt(ids, "prompt")
    return prompts
