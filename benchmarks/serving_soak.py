"""Many short calls of every sort to one server: nothing that it holds may grow, and no answer may change.

A call is a text or a conversation, in pieces or whole, of one answer or several, with probabilities, a stop string or
a schema to follow; some callers leave, and some ask for what cannot be. The same question is asked again and again,
and must get the same answer each time.

First come twice as many at once as ever will, and as long ones: caches are as large as the largest batch that was, so
they would grow by chance later. After each tenth of the calls the idle server and each of its ranks are looked at.
From the second tenth to the last resident memory may grow by some MB, descriptors and threads not at all. The exit
code is 1 where anything was not as it must be.

    python -m benchmarks.serving_soak --calls 10000
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx2 as httpx
import psutil
import typer
from tests.server.running import Server, server

from benchmarks.soak import Held

_PROMPTS = ("def main():", "import ", "class Node:", "The quick", "for x in", "return ", "# ", "x")
_SCHEMA = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}},
    "required": ["n"],
    "additionalProperties": False,
}
_JSON = {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}}
_END = "data: [DONE]\n\n"
_LEAVES_SECONDS = 0.02
_LONGEST_TOKENS = 200
_IDLE_SECONDS = 60.0
"""For the server to be done with everybody who left."""


@dataclass(frozen=True)
class Call:
    """What is asked, and how its caller behaves."""

    path: str
    body: dict[str, Any]
    leaves: bool = False

    @property
    def question(self) -> str:
        """What the answer follows from: not from how it is told."""
        told = ("stream", "logprobs")
        return json.dumps(
            {name: value for name, value in self.body.items() if name not in told}, sort_keys=True
        )


def calls(number: int, seed: int) -> Iterator[Call]:
    """So many, drawn at random; the same for a seed."""
    draw = random.Random(seed)
    for _ in range(number):
        body: dict[str, Any] = {
            "temperature": 0,
            "max_tokens": draw.choice((1, 2, 4, 8)),
            "stream": draw.random() < 0.5,
        }
        body |= draw.choice(
            ({}, {}, {"n": 2}, {"stop": "e"}, {"temperature": 1.2, "seed": 7}, {"frequency_penalty": 1.0})
        )
        prompt = draw.choice(_PROMPTS)
        if draw.random() < 0.4:
            body |= {"messages": [{"role": "user", "content": prompt}]}
            body |= draw.choice(({}, {"logprobs": True}, {"response_format": _JSON}))
            path = "/v1/chat/completions"
        else:
            body |= {"prompt": prompt} | draw.choice(({}, {"logprobs": 2}, {"echo": True}))
            path = "/v1/completions"
        fate = draw.random()
        if fate < 0.03:
            body |= {"max_tokens": 10**6}
        yield Call(path, body | ({"max_tokens": _LONGEST_TOKENS} if fate > 0.97 else {}), leaves=fate > 0.97)


def heaviest(at_once: int) -> list[Call]:
    """Twice as many as there are later, each of the most and longest answers."""
    body = {"n": 2, "max_tokens": _LONGEST_TOKENS, "temperature": 0, "ignore_eos": True}
    conversation = [{"role": "user", "content": max(_PROMPTS, key=len)}]
    return [Call("/v1/chat/completions", body | {"messages": conversation})] * (2 * at_once)


@dataclass
class Caller:
    """Makes calls, and keeps the first answer to each question.

    Args:
        client: to the server.
    """

    client: httpx.AsyncClient
    answered: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    async def make(self, call: Call) -> None:
        """Make one call; what is not as it must be is kept in `wrong`."""
        try:
            answer = await self.client.post(
                call.path, json=call.body, timeout=_LEAVES_SECONDS if call.leaves else 120
            )
        except httpx.TimeoutException:
            if not call.leaves:
                self.wrong.append(f"{call.question}: no answer")
            return
        expected = 400 if call.body["max_tokens"] == 10**6 else 200
        if answer.status_code != expected:
            self.wrong.append(f"{call.question}: status {answer.status_code}: {answer.text}")
            return
        told = _told(answer.text)
        if self.answered.setdefault(call.question, told) != told:
            self.wrong.append(f"{call.question}: {told} and once {self.answered[call.question]}")


def _told(answer: str) -> list[str]:
    """The text of each answer and why it ended, however it was told."""
    if answer.startswith("data: "):
        events = answer.removesuffix(_END).splitlines() if answer.endswith(_END) else []
        bodies = [json.loads(line.removeprefix("data: ")) for line in events if line]
    else:
        bodies = [json.loads(answer)]
    joined: dict[int, str] = {}
    for choice in (choice for body in bodies for choice in body.get("choices", ())):
        said = choice.get("delta") or choice.get("message") or choice
        text = said.get("content", said.get("text")) or ""
        joined[choice["index"]] = joined.get(choice["index"], "") + text + (choice["finish_reason"] or "")
    return [joined[n] for n in sorted(joined)]


def held(running: Server) -> list[Held]:
    """What the server and each of its ranks hold of the machine."""
    front = psutil.Process(running.process.pid)
    return [
        Held(process.memory_info().rss, process.num_fds(), process.num_threads())
        for process in (front, *sorted(front.children(), key=lambda child: child.pid))
    ]


async def answer_all(
    running: Server, asked: Sequence[Call], at_once: int, answered: dict[str, Any]
) -> list[str]:
    """Make calls, so many at a time, and wait until the server is idle; returns what went wrong."""
    left = iter(asked)
    async with httpx.AsyncClient(base_url=running.address) as client:
        caller = Caller(client, answered)

        async def work() -> None:
            for call in left:
                await caller.make(call)

        await asyncio.gather(*(work() for _ in range(at_once)))
        deadline = time.monotonic() + _IDLE_SECONDS
        while not re.search(r"num_requests_running\{[^}]*\} 0\.0", (await client.get("/metrics")).text):
            if time.monotonic() > deadline:
                return [*caller.wrong, "answers of callers that left are still computed"]
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # connections that were just closed
    return caller.wrong


def growth(early: Sequence[Held], late: Sequence[Held], most_growth_bytes: int) -> list[str]:
    """What has grown too much of the server and its ranks."""
    problems = []
    for number, (was, now) in enumerate(zip(early, late, strict=True)):
        name = "the server" if number == 0 else f"rank {number - 1}"
        grew = now.resident_bytes - was.resident_bytes
        if grew > most_growth_bytes:
            problems.append(f"{name} grew by {grew} bytes, more than {most_growth_bytes}")
        if now.descriptors > was.descriptors or now.threads > was.threads:
            problems.append(f"{name} holds more descriptors or threads: {was}, then {now}")
    return problems


def soak(
    number: int, ranks: int, at_once: int, most_growth_bytes: int, seed: int = 1, options: Sequence[str] = ()
) -> list[str]:
    """Make all calls to a server of its own, with options; returns what was not as it must be."""
    asked, answered = list(calls(number, seed)), dict[str, Any]()
    seen: list[list[Held]] = []
    problems: list[str] = []
    with server("--ranks", str(ranks), "--dtype", "float32", *options) as running:
        problems += asyncio.run(answer_all(running, heaviest(at_once), 2 * at_once, answered))
        for tenth in range(10):
            begun = time.monotonic()
            part = asked[number * tenth // 10 : number * (tenth + 1) // 10]
            problems += asyncio.run(answer_all(running, part, at_once, answered))
            seconds = time.monotonic() - begun
            seen.append(held(running))
            so_far, rate = number * (tenth + 1) // 10, len(part) / seconds
            print(f"{so_far:6} calls, {rate:5.1f} per second; {_line(seen[-1])}", flush=True)
        print(f"{len(answered)} different questions; each was answered alike every time: {not problems}")
        problems += growth(seen[1], seen[-1], most_growth_bytes)
        if running.end():
            problems.append("the server did not end in good order")
    return problems


def _line(seen: Sequence[Held]) -> str:
    resident = " ".join(f"{one.resident_bytes / 1e6:.1f}" for one in seen)
    descriptors = " ".join(str(one.descriptors) for one in seen)
    threads = " ".join(str(one.threads) for one in seen)
    return f"resident {resident} MB, descriptors {descriptors}, threads {threads}"


def main(
    calls: Annotated[int, typer.Option(min=50)] = 10_000,
    ranks: int = 2,
    at_once: int = 24,
    most_growth_mb: float = 8.0,
    prefix_caching: Annotated[
        bool, typer.Option(help="What ranks keep for others that begin alike grows up to its bound.")
    ] = True,
) -> None:
    """Print what grew; exit code 1 where anything was not as it must be."""
    options = () if prefix_caching else ("--no-prefix-caching",)
    problems = soak(calls, ranks, at_once, int(most_growth_mb * 1e6), options=options)
    for problem in problems[:20]:
        print(f"FAILED: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    typer.run(main)
