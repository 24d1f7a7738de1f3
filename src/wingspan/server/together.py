"""The pieces of several answers in the order in which they come, and what they add up to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.server.answers import Answer, AnswerPart


@dataclass
class Whole:
    """An answer that has come to its end."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: str | None = None
    stop: str | None = None

    def add(self, piece: AnswerPart) -> None:
        """Take in the next piece."""
        self.text += piece.text
        self.tokens.extend(piece.tokens)
        self.logprobs.extend(piece.logprobs)
        self.finish_reason, self.stop = piece.finish_reason, piece.stop


async def pieces(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, AnswerPart]]:
    """The pieces of all answers with their answers' places."""
    streams = {place: answer.pieces() for place, answer in enumerate(answers)}
    waiting = {asyncio.ensure_future(anext(stream)): place for place, stream in streams.items()}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = waiting.pop(task)
                piece = task.result()
                if piece.finish_reason is None:
                    waiting[asyncio.ensure_future(anext(streams[place]))] = place
                yield place, piece
    finally:
        for task in waiting:
            task.cancel()


async def whole(answers: Sequence[Answer]) -> list[Whole]:
    """Every answer, once all have ended."""
    found = [Whole() for _ in answers]
    async for place, piece in pieces(answers):
        found[place].add(piece)
    return found


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None) -> dict[str, Any]:
    """How many tokens went in and came out, and how many were found computed; None: nobody looked."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": None if cached_tokens is None else {"cached_tokens": cached_tokens},
    }
