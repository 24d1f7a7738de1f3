"""One answer that the engine is giving: what was asked, and the events that its caller waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from wingspan.runtime.generation.ledger import FinishReason, PromptLogprobs, TokenLogprobs
from wingspan.runtime.generation.requests import Length
from wingspan.runtime.generation.sampling import Sampling
from wingspan.server.text import TextStream


@dataclass(frozen=True)
class Ask:
    """A sequence to continue.

    Args:
        ids: the prompt.
        sampling: how tokens are chosen.
        length: when the answer ends, beside a stop string.
        stream: which of several answers to one prompt this is.
        logprobs: how many of the likeliest tokens are named beside each.
        priority: among those that wait, the lowest goes first.
        prompt_logprobs: they are named beside each token of the prompt, too.
    """

    ids: tuple[int, ...]
    sampling: Sampling
    length: Length
    stream: int = 0
    logprobs: int | None = None
    priority: int = 0
    prompt_logprobs: bool = False


@dataclass(frozen=True)
class Origin:
    """The call that an answer belongs to.

    Args:
        id: of its body.
        operation: `text_completion` or `chat`.
        trace: its headers of W3C Trace Context.
    """

    id: str
    operation: str
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerPart:
    """What an answer gained: tokens, and the text that is certain since. `finish_reason` is set on the last."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stop: str | None = None
    """The stop string that ended the answer."""


@dataclass(eq=False)
class Answer:
    """An answer under way: filled by the engine between steps, read by one caller.

    Args:
        ask: what was asked.
        text: its text so far.
    """

    ask: Ask
    text: TextStream
    arrived_seconds: float = field(default_factory=time.perf_counter)
    begun_seconds: float | None = None
    """When it got a place; None while it waits for one."""
    cached_tokens: int | None = None
    """Tokens of its prompt that were found computed; None: nobody looked, or it is not begun."""
    first_token_seconds: float | None = None
    newest_token_seconds: float | None = None
    tokens: list[int] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """One for every token of the prompt but the first, once there is a token of the answer."""
    origin: Origin | None = None
    number: int | None = None
    """The engine's name for it; None before it was submitted, and after its end."""
    _pieces: asyncio.Queue[AnswerPart | Exception] = field(default_factory=asyncio.Queue)

    @property
    def ended(self) -> bool:
        """Whether no token will follow."""
        return self.text.stopped_by is not None

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time from token to token; None before the second."""
        if self.first_token_seconds is None or self.newest_token_seconds is None or len(self.tokens) < 2:
            return None
        return (self.newest_token_seconds - self.first_token_seconds) / (len(self.tokens) - 1)

    def take_prompt(self, found: PromptLogprobs) -> None:
        """Take in what was found of the prompt; again where it is computed again."""
        self.prompt_logprobs[found.begin - 1 :] = found.tokens

    def push(self, token: int, logprobs: TokenLogprobs | None, finish: FinishReason | None) -> bool:
        """Take in a token; returns whether the answer has ended with it."""
        self.tokens.append(token)
        # An end token is no text; a tokenizer may have characters for it.
        is_text = finish != "stop"
        new = self.text.push(token) if is_text else ""
        stopped = self.text.stopped_by
        if stopped is not None:
            finish = "stop"
        elif finish is not None:
            new += self.text.end()
            stopped = self.text.stopped_by
            finish = "stop" if stopped is not None else finish
        self._pieces.put_nowait(
            AnswerPart((token,), new, () if logprobs is None else (logprobs,), finish, stopped)
        )
        return finish is not None

    def fail(self, error: Exception) -> None:
        """Tell the caller that no more will come."""
        self._pieces.put_nowait(error)

    async def pieces(self) -> AsyncIterator[AnswerPart]:
        """Everything that the answer gains, as it comes; several steps at once where the caller was slow.

        Raises:
            Exception: the engine failed.
        """
        while True:
            several = [await self._pieces.get()]
            while not self._pieces.empty():
                several.append(self._pieces.get_nowait())
            piece = _joined(several)
            yield piece
            if piece.finish_reason is not None:
                return


def _joined(several: Sequence[AnswerPart | Exception]) -> AnswerPart:
    pieces = []
    for piece in several:
        if isinstance(piece, Exception):
            raise piece
        pieces.append(piece)
    return AnswerPart(
        tuple(token for piece in pieces for token in piece.tokens),
        "".join(piece.text for piece in pieces),
        tuple(one for piece in pieces for one in piece.logprobs),
        pieces[-1].finish_reason,
        pieces[-1].stop,
    )
