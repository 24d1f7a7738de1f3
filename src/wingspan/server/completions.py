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
from wingspan.server.effects import check_completion
from wingspan.server.errors import CallError
from wingspan.server.fields import CompletionCall
from wingspan.server.openapi import errors, in_pieces
from wingspan.server.reply import reply
from wingspan.server.served_model import ServedModel
from wingspan.server.text import TextStream
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

    operation = "text_completion"

    def __init__(self, serving: ServedModel, call: CompletionCall, request_id: str) -> None:
        serving.check_model(call.model)
        check_completion(call)
        self._serving, self._call = serving, call
        prompts = _prompts(serving, call)
        grammar = serving.grammar(call.response_format)
        self.answers: Sequence[Answer] = [
            answer
            for ids in prompts
            for answer in serving.answers(
                call,
                ids,
                serving.room(ids, call.max_tokens, "prompt"),
                call.logprobs,
                grammar,
                prompt_logprobs=call.echo and call.logprobs is not None,
            )
        ]
        self._texts = [TextStream(serving.decode) for _ in self.answers]
        self.prompt_tokens = sum(map(len, prompts))
        self._head = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": serving.name,
        }

    def head(self, *, in_pieces: bool) -> Mapping[str, Any]:  # noqa: ARG002 - the same in both
        return self._head

    def opening(self, place: int) -> dict[str, Any] | None:  # noqa: ARG002 - none has any
        return None

    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        return self._choice(place, answer, answer, first=True)

    def piece(self, place: int, gained: AnswerPart, so_far: Whole) -> dict[str, Any] | None:
        first = len(gained.tokens) == len(so_far.tokens)
        if not (gained.text or gained.logprobs or gained.finish_reason or (first and self._call.echo)):
            return None
        return self._choice(place, gained, so_far, first=first)

    def _choice(
        self, place: int, gained: AnswerPart | Whole, so_far: Whole, *, first: bool
    ) -> dict[str, Any]:
        """What an answer has gained, behind its prompt where that is to be repeated."""
        ids = self.answers[place].ask.ids if first and self._call.echo else ()
        return {
            "index": place,
            "text": self._serving.decode(ids) + gained.text if ids else gained.text,
            "logprobs": None if self._call.logprobs is None else self._logprobs(place, ids, gained.logprobs),
            "finish_reason": so_far.finish_reason,
            "stop_reason": so_far.stop,
        }

    def _logprobs(
        self, place: int, prompt: Sequence[int], of_answer: Sequence[TokenLogprobs]
    ) -> dict[str, Any]:
        """Those of the prompt, whose first token follows nothing and has none, and of the answer's newest tokens."""
        decode = self._serving.decode
        told = [*(self.answers[place].prompt_logprobs if prompt else ()), *of_answer]
        tokens = [*prompt[:1], *(one.token for one in told)]
        nothing = [None] * len(prompt[:1])
        return {
            "tokens": [decode([token]) for token in tokens],
            "token_logprobs": [*nothing, *(one.logprob for one in told)],
            "top_logprobs": [*nothing, *({decode([i]): value for i, value in one.top} for one in told)],
            "text_offset": [self._offset(place, token) for token in tokens],
        }

    def _offset(self, place: int, token: int) -> int:
        """Where the text of an answer's next token begins; asked of every token in order."""
        text = self._texts[place]
        begin = text.length
        text.push(token)
        return begin


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
