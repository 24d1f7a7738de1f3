"""A load on a server: requests at their times, or so many at a time.

Shapes: N requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx2 as httpx
import numpy as np

from wingspan.client.call import Endpoint, Timed, complete
from wingspan.errors import InputError, RunError
from wingspan.specs.requests import Requests

_LOWEST_ID, _HIGHEST_ID = 32, 126
"""Token ids that every vocabulary has; what a prompt says does not matter here."""

Watch = Callable[[int, int], None]
"""Told how many of how many requests have ended."""


@dataclass(frozen=True)
class Load:
    """What is sent.

    Args:
        requests: arrivals and lengths.
        concurrency: send the next as soon as fewer than so many are under way, whatever the arrivals say;
            None: each at its time.
        most_under_way: with arrivals, wait where so many are; None: never.
        seed: of the prompts' tokens.
    """

    requests: Requests
    concurrency: int | None = None
    most_under_way: int | None = None
    seed: int = 0


def drive(target: Endpoint, load: Load, watch: Watch = lambda _done, _of: None) -> list[Timed]:
    """Send all requests, and wait for all answers.

    Returns:
        One for each request, in order; times count from the start.
    """
    return asyncio.run(_drive(target, load, watch))


def served_model(url: str, key: str | None) -> str:
    """The first model that a server lists.

    Raises:
        InputError: nobody answers there, or nothing is listed.
    """
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except httpx.HTTPStatusError as error:
        raise InputError(
            f"{url}/v1/models: status {error.response.status_code}; a key may be needed"
        ) from None
    except httpx.HTTPError as error:
        raise InputError(f"{url}: no answer ({error}); start the server, or correct the address") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise InputError(
            f"{url}/v1/models: lists no model; name the address of an OpenAI-compatible server"
        ) from None


async def _drive(target: Endpoint, load: Load, watch: Watch) -> list[Timed]:
    requests = load.requests
    rng = np.random.default_rng(load.seed)
    prompts = [rng.integers(_LOWEST_ID, _HIGHEST_ID, n).tolist() for n in requests.prompt_tokens_N]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    gate = asyncio.Semaphore(load.concurrency or load.most_under_way or len(requests))
    begun, done = time.perf_counter(), 0

    def clock() -> float:
        return time.perf_counter() - begun

    async with httpx.AsyncClient(timeout=None, limits=limits) as client:

        async def one(n: int) -> Timed:
            nonlocal done
            if load.concurrency is None:
                await asyncio.sleep(max(0.0, float(requests.arrival_seconds_N[n]) - clock()))
            async with gate:
                timed = await complete(client, target, prompts[n], int(requests.output_tokens_N[n]), clock)
            done += 1
            watch(done, len(requests))
            return timed

        answers = await asyncio.gather(*(one(n) for n in range(len(requests))))
    if all(answer.error is not None for answer in answers):
        raise RunError(f"no request was answered; the first: {answers[0].error}")
    return list(answers)
