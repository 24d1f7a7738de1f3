"""What goes on in the server, second by second, for whoever watches; the last minutes are kept for who comes later.

What the engine tells costs an addition a token, and is counted always. What every rank did costs the ranks an exchange
between two steps; they are asked only while somebody watches, at most once a second and for at most a hundredth of
the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wingspan.errors import WingspanError
from wingspan.report.rebalance import happened, lines
from wingspan.routing.load import imbalance
from wingspan.runtime.generation.ledger import StepResult
from wingspan.runtime.measuring.figures import GroupFigures
from wingspan.server.answers import Answer
from wingspan.server.step_loop import StepLoop
from wingspan.server.watching import Watcher

EVERY_SECONDS = 1.0
"""Between two samples."""
KEPT_SAMPLES = 600
KEPT_EVENTS = 200
LATENCY_SECONDS = 60.0
"""Percentiles are of what happened in so long a time."""
WINDOW_SECONDS = 10.0
"""Figures of the ranks are sums over steps of about so long a time."""
MOST_SHARE = 0.01
"""The share of the time for which looks may hold the steps up."""
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class ServedGroup:
    """What a watcher is told first.

    Args:
        model: its name.
        ranks: of the group.
        ranks_per_node: of them.
        slots: sequences that are continued at a time.
    """

    model: str
    ranks: int
    ranks_per_node: int
    slots: int


class Live(Watcher):
    """Counts and samples; `stream` is what a watcher reads.

    Args:
        served: by the engine.
        clock: seconds that only grow, as `Answer` has them.
    """

    def __init__(self, served: ServedGroup, clock: Callable[[], float] = time.perf_counter) -> None:
        self._served = served
        self._clock = clock
        self._engine: StepLoop | None = None
        self._begun_seconds = time.time()
        self._watchers = 0
        self._closing = False
        self._news = asyncio.Event()
        self._samples: deque[dict[str, Any]] = deque(maxlen=KEPT_SAMPLES)
        self._sampled = 0
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        self._happened = 0
        self._latencies = _Latencies(clock)
        self._generated = self._prompted = 0
        self._last_sample = clock()
        self._looks: deque[GroupFigures] = deque()
        self._looked = 0
        self._next_look = 0.0

    def watch(self, engine: StepLoop) -> None:
        """Sample this engine's queue."""
        self._engine = engine

    def stepped(self, result: StepResult, seconds: float) -> None:  # noqa: ARG002 - see `Watcher`
        """Count tokens, and keep what happened to experts."""
        self._generated += len(result.tokens)
        for event in happened(result.balancing):
            self._keep(event.kind, lines([event])[0])

    def begun(self, answer: Answer) -> None:
        """Count a prompt."""
        self._prompted += len(answer.ask.ids)
        self._latencies.begun(answer)

    def token(self, answer: Answer, now: float) -> None:
        """Time the first token."""
        self._latencies.token(answer, now)

    def ended(self, answer: Answer, reason: str, now: float) -> None:  # noqa: ARG002 - see `Watcher`
        """Time the tokens of the whole answer."""
        self._latencies.ended(answer, now)
        if self._over:
            self.sample()

    def failed(self, error: WingspanError) -> None:
        """Say why it is over."""
        self._closing = True
        self._keep("engine ended", str(error))
        self.sample()

    def drain(self) -> None:
        """No more calls are taken; those under way are answered."""
        if not self._closing:
            self._closing = True
            self._keep("drain", "no new calls are taken; those under way are answered")
            self.sample()

    def wants_figures(self) -> bool:
        """Whether somebody watches, and the last look is long enough ago."""
        return self._watchers > 0 and self._clock() >= self._next_look

    def figures(self, figures: GroupFigures, seconds: float) -> None:
        """Keep the looks of the last seconds; an older one counts no more as soon as there are newer ones."""
        self._next_look = self._clock() + max(EVERY_SECONDS, seconds / MOST_SHARE)
        self._looks.append(figures)
        while len(self._looks) > 1 and sum(look.seconds for look in self._looks) > WINDOW_SECONDS:
            self._looks.popleft()
        self._looked += 1

    async def run(self) -> None:
        """Sample every second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self.sample()
            if self._engine is not None and self.wants_figures():
                self._engine.nudge()

    def sample(self) -> None:
        """Keep what happened since the last sample, and wake the watchers."""
        now = self._clock()
        seconds, self._last_sample = max(now - self._last_sample, 1e-9), now
        engine = self._engine
        self._samples.append(
            {
                "time_seconds": round(time.time(), 3),
                "tokens_per_second": round(self._generated / seconds, 3),
                "prompt_tokens_per_second": round(self._prompted / seconds, 3),
                "running": 0 if engine is None else engine.running,
                "waiting": 0 if engine is None else engine.waiting,
                "ttft_seconds": self._latencies.first(now),
                "tpot_seconds": self._latencies.per_token(now),
            }
        )
        self._sampled += 1
        self._generated = self._prompted = 0
        self._news.set()
        self._news = asyncio.Event()

    def join(self) -> None:
        """Somebody watches from now on."""
        self._watchers += 1

    def leave(self) -> None:
        """Somebody who joined watches no more."""
        self._watchers -= 1

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """What is served and what was sampled so far, then what is new, until the server ends."""
        sampled, happened_before, looked = self._sampled, self._happened, 0
        yield {
            "served": vars(self._served) | {"since_seconds": round(self._begun_seconds, 3)},
            "samples": list(self._samples),
            "events": list(self._events),
            "percentiles": PERCENTILES,
        }
        while True:
            if sampled == self._sampled:
                if self._over:
                    return
                await self._news.wait()
                continue
            body: dict[str, Any] = {
                "samples": _newest(self._samples, self._sampled - sampled),
                "events": _newest(self._events, self._happened - happened_before),
            }
            if self._looked != looked:
                body["ranks"] = _ranks(self._looks)
            sampled, happened_before, looked = self._sampled, self._happened, self._looked
            yield body

    @property
    def _over(self) -> bool:
        """Whether nothing will happen any more: who watches must not keep the server from ending."""
        engine = self._engine
        return self._closing and (
            engine is None or engine.failed is not None or not engine.running + engine.waiting
        )

    def _keep(self, kind: str, text: str) -> None:
        self._events.append({"time_seconds": round(time.time(), 3), "kind": kind, "text": text})
        self._happened += 1


class _Latencies:
    """Times to the first token and per token of the last minute's answers, those under way too."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._under_way: set[Answer] = set()
        self._first: deque[tuple[float, float]] = deque()
        self._per_token: deque[tuple[float, float]] = deque()

    def begun(self, answer: Answer) -> None:
        self._under_way.add(answer)

    def token(self, answer: Answer, now: float) -> None:
        if answer.first_token_seconds is None:
            self._first.append((now, now - answer.arrived_seconds))

    def ended(self, answer: Answer, now: float) -> None:
        self._under_way.discard(answer)
        if (seconds := answer.seconds_per_token) is not None:
            self._per_token.append((now, seconds))

    def first(self, now: float) -> list[float] | None:
        return _percentiles(_recent(self._first, now))

    def per_token(self, now: float) -> list[float] | None:
        under_way = [s for answer in self._under_way if (s := answer.seconds_per_token) is not None]
        return _percentiles(_recent(self._per_token, now) + under_way)


def _recent(timed: deque[tuple[float, float]], now: float) -> list[float]:
    """What is recent enough; the rest is forgotten."""
    while timed and timed[0][0] < now - LATENCY_SECONDS:
        timed.popleft()
    return [value for _, value in timed]


def _percentiles(values: Sequence[float]) -> list[float] | None:
    return [round(float(value), 6) for value in np.percentile(values, PERCENTILES)] if values else None


def _newest(kept: deque[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return list(kept)[-count:] if count else []


def _ranks(looks: Sequence[GroupFigures]) -> dict[str, Any]:
    """All looks together, as JSON."""
    total = looks[0]
    for look in list(looks)[1:]:
        total += look
    return {
        "steps": total.steps,
        "seconds": round(total.seconds, 6),
        "spent_seconds": {op.value: np.round(spent_R, 6).tolist() for op, spent_R in total.spent_R.items()},
        "sent_bytes": total.sent_RR.tolist(),
        "load_tokens": total.load_LE.tolist(),
        "rows": total.rows_LR.tolist(),
        "imbalance": round(imbalance(total.rows_LR), 4),
    }
