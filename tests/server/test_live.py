"""What a watcher of the server is told, without ranks: a clock that stands still, and an engine that is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wingspan.errors import RunError
from wingspan.runtime.generation.ledger import StepResult
from wingspan.runtime.generation.requests import Length
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.measuring.figures import GroupFigures
from wingspan.schedule.rebalance_result import Rollback
from wingspan.schedule.result import Operation
from wingspan.server.answers import Answer, Ask
from wingspan.server.live import Live, ServedGroup
from wingspan.server.text import TextStream


class Moment:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def live(moment: Moment) -> Live:
    return Live(ServedGroup("tiny", 2, 2, 32), moment)


@pytest.fixture
def engine(live: Live) -> Iterator[Any]:
    engine = SimpleNamespace(running=0, waiting=0, failed=None)
    live.watch(engine)
    return engine


def answer(moment: Moment) -> Answer:
    ask = Ask((1, 2, 3), Sampling(), Length(10))
    return Answer(ask, TextStream(lambda ids: "x" * len(ids)), arrived_seconds=moment.now)


def give(live: Live, moment: Moment, one: Answer, after_seconds: float) -> None:
    """As the engine gives a token out."""
    moment.now += after_seconds
    live.stepped(StepResult(tokens={0: 1}), after_seconds)
    live.token(one, moment.now)
    one.first_token_seconds = one.first_token_seconds or moment.now
    one.newest_token_seconds = moment.now
    one.push(1, None, None)


def figures(seconds: float, rows: int = 1) -> GroupFigures:
    return GroupFigures(
        2, seconds, {Operation.EXPERT: np.array([seconds, seconds / 2])}, np.full((2, 2), 10 * rows),
        np.full((1, 4), rows), np.array([[3 * rows, rows]]),
    )  # fmt: skip


async def told(live: Live, count: int = 100) -> list[dict[str, Any]]:
    """What a watcher is told until the stream ends, or so many times."""
    bodies = []
    async for body in live.stream():
        bodies.append(body)
        if len(bodies) == count:
            break
    return bodies


def test_a_sample_says_what_happened_since_the_last(live, moment, engine):
    one = answer(moment)
    live.begun(one)
    for seconds in (0.5, 0.1, 0.3):
        give(live, moment, one, seconds)
    engine.running, engine.waiting = 1, 7
    moment.now += 1.1
    live.sample()
    moment.now += 61
    live.ended(one, "length", moment.now)
    live.sample()
    (first,) = asyncio.run(told(live, 1))
    busy, later = first["samples"]
    assert (busy["tokens_per_second"], busy["prompt_tokens_per_second"]) == (1.5, 1.5)
    assert (busy["running"], busy["waiting"]) == (1, 7)
    assert busy["ttft_seconds"] == [0.5] * 3
    assert busy["tpot_seconds"] == pytest.approx([0.2] * 3)
    # An answer counts by its mean once it has ended, its first token for a minute.
    assert (later["tokens_per_second"], later["ttft_seconds"]) == (0.0, None)
    assert later["tpot_seconds"] == pytest.approx([0.2] * 3)
    assert first["served"] | {"since_seconds": 0} == {
        "model": "tiny", "ranks": 2, "ranks_per_node": 2, "slots": 32, "since_seconds": 0,
    }  # fmt: skip


def test_ranks_are_asked_only_while_somebody_watches_and_for_a_hundredth_of_the_time(live, moment):
    async def watched() -> None:
        assert not live.wants_figures()
        live.join()
        assert live.wants_figures()
        live.figures(figures(1.0), 0.002)
        assert not live.wants_figures()
        moment.now += 1.0
        assert live.wants_figures()
        live.figures(figures(1.0), 0.03)
        moment.now += 2.9
        assert not live.wants_figures()
        moment.now += 0.2
        assert live.wants_figures()
        live.leave()
        assert not live.wants_figures()

    asyncio.run(watched())


def test_figures_are_of_the_latest_seconds(live):
    async def watched() -> list[dict[str, Any]]:
        found = []
        stream = live.stream()
        await anext(stream)
        # What was done while nobody watched counts only until there is something newer.
        for look in (figures(500.0, 100), *(figures(4.0, rows) for rows in (1, 2, 3))):
            live.figures(look, 0.001)
            live.sample()
            found.append((await anext(stream))["ranks"])
        live.sample()
        assert "ranks" not in await anext(stream)
        return found

    found = asyncio.run(watched())
    assert [ranks["seconds"] for ranks in found] == [500.0, 4.0, 8.0, 8.0]
    assert found[-1]["steps"] == 4
    assert found[-1]["spent_seconds"] == {"expert": [8.0, 4.0]}
    assert found[-1]["load_tokens"] == [[5] * 4]
    assert found[-1]["rows"] == [[15, 5]]
    assert found[-1]["sent_bytes"] == [[50, 50]] * 2
    assert found[-1]["imbalance"] == 1.5


def test_what_happens_is_told_once_and_who_comes_later_hears_of_it_too(live):
    event = Rollback(step=3, layer=1, expert=2, source=0, destination=1, reason="its bytes differ")

    async def watched() -> tuple[dict[str, Any], ...]:
        stream = live.stream()
        first = await anext(stream)
        live.stepped(StepResult(balancing=[event]), 0.1)
        live.sample()
        second = await anext(stream)
        live.sample()
        return first, second, await anext(stream), *(await told(live, 1))

    first, second, third, late = asyncio.run(watched())
    assert (first["events"], third["events"]) == ([], [])
    (said,) = second["events"]
    assert late["events"] == [said]
    assert said["kind"] == "rollback"
    assert said["text"].startswith("step 3: layer 1 rolled back: expert 2")


def test_the_stream_ends_with_the_last_answer_once_the_server_drains(live, moment, engine):
    one = answer(moment)
    live.begun(one)
    engine.running = 1

    async def watched() -> list[dict[str, Any]]:
        watching = asyncio.create_task(told(live))
        await asyncio.sleep(0)
        live.drain()
        live.drain()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not watching.done()
        engine.running = 0
        live.ended(one, "stop", moment.now)
        return await asyncio.wait_for(watching, 5)

    bodies = asyncio.run(watched())
    assert [event["kind"] for body in bodies for event in body["events"]] == ["drain"]


def test_the_stream_ends_with_the_engine_and_says_why(live, engine):
    async def watched() -> list[dict[str, Any]]:
        watching = asyncio.create_task(told(live))
        await asyncio.sleep(0)
        engine.failed = RunError("rank 1 was killed")
        live.failed(engine.failed)
        live.drain()
        return await asyncio.wait_for(watching, 5)

    (event,) = asyncio.run(watched())[-1]["events"]
    assert (event["kind"], event["text"]) == ("engine ended", "rank 1 was killed")
