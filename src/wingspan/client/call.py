"""One streamed completion, and when its tokens came."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

_EVENT = "data: "


@dataclass(frozen=True)
class Endpoint:
    """A server and the model that it serves.

    Args:
        url: up to and without /v1.
        model: its name in calls.
        key: that calls carry; None: none.
    """

    url: str
    model: str
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every call carries."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


@dataclass
class Timed:
    """One call: when it was sent and its tokens came, in seconds of one clock, or why it failed."""

    sent_seconds: float
    prompt_tokens: int
    token_seconds: list[float] = field(default_factory=list)
    output_tokens: int = 0
    """As the server counts them: several may come at once."""
    text: str = ""
    error: str | None = None


async def complete(
    client: httpx.AsyncClient,
    target: Endpoint,
    ids: Sequence[int],
    output_tokens: int,
    clock: Callable[[], float],
) -> Timed:
    """Send a prompt, and read its answer to the end; exactly so many tokens are asked for."""
    body = {
        "model": target.model,
        "prompt": list(ids),
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    timed = Timed(clock(), len(ids))
    try:
        async with client.stream(
            "POST", f"{target.url}/v1/completions", json=body, headers=target.headers
        ) as answer:
            if answer.status_code != 200:
                timed.error = f"status {answer.status_code}: {_message(await answer.aread())}"
                return timed
            async for line in answer.aiter_lines():
                if line.startswith(_EVENT) and not line.endswith("[DONE]"):
                    _take(timed, json.loads(line[len(_EVENT) :]), clock())
    except (httpx.HTTPError, ValueError) as error:
        timed.error = f"{type(error).__name__}: {error}"
    if timed.error is None and not timed.token_seconds:
        timed.error = "no token came"
    return timed


def _take(timed: Timed, event: dict[str, Any], now: float) -> None:
    if event.get("error"):
        timed.error = str(event["error"].get("message", event["error"]))
        return
    if event.get("choices"):
        # Also where its text is empty: a part of a character is a token too.
        timed.token_seconds.append(now)
        timed.text += event["choices"][0].get("text") or ""
    if event.get("usage"):
        timed.output_tokens = int(event["usage"]["completion_tokens"])
        timed.prompt_tokens = int(event["usage"]["prompt_tokens"])


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
