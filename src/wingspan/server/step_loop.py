"""The engine as the server's event loop sees it: answers join and leave between steps, tokens come as they are made.

Steps run in a thread of their own, so that HTTP goes on meanwhile. Where nobody waits there is no step, and the ranks
sleep.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from wingspan.errors import WingspanError
from wingspan.report.rebalance import happened, lines
from wingspan.runtime.generation.ledger import StepResult
from wingspan.runtime.llm import LLM
from wingspan.schedule.rebalance_result import RebalanceEvent
from wingspan.server.answers import Answer
from wingspan.server.watching import Watcher

_LOG = logging.getLogger(__name__)


class _Joining(NamedTuple):
    """Who waits for a place, in the order in which they get one."""

    priority: int
    arrival: int
    answer: Answer
    joined: asyncio.Future[None]


class QueueFullError(Exception):
    """More requests wait than the server lets wait."""


class StoppedError(Exception):
    """The engine has ended; nothing will be answered any more."""


@dataclass
class StepLoop:
    """Answers requests by stepping an `LLM`.

    Args:
        llm: whose ranks compute.
        most_waiting: answers that may wait for a place; more are refused.
        watcher: is told what happens.
    """

    llm: LLM
    most_waiting: int
    watcher: Watcher = field(default_factory=Watcher)
    failed: WingspanError | None = None
    """Why the engine ended; None while it works."""
    when_failed: Callable[[], None] = lambda: None
    """Called then."""

    def __post_init__(self) -> None:
        self._answers: dict[int, Answer] = {}
        self._unseen = False
        """There were steps since the watcher was last told what every rank did."""
        self._joining: list[_Joining] = []
        self._arrivals = 0
        self._leaving: list[Answer] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "engine-step")

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        return len(self._joining)

    @property
    def running(self) -> int:
        """Answers that are being computed."""
        return len(self._answers)

    async def submit(self, answers: Sequence[Answer]) -> None:
        """Let answers join before the next step: all of them, or none.

        Raises:
            QueueFullError: too many wait.
            StoppedError: the engine has ended.
            InputError: the engine cannot continue such a prompt.
        """
        if self.failed is not None:
            raise StoppedError(str(self.failed))
        if self.waiting + max(0, self.running + len(answers) - self.llm.slots) > self.most_waiting:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        joined = [loop.create_future() for _ in answers]
        for answer, future in zip(answers, joined, strict=True):
            self._arrivals += 1
            heapq.heappush(self._joining, _Joining(answer.ask.priority, self._arrivals, answer, future))
        self._wake.set()
        try:
            for future in joined:
                await future
        except BaseException:
            for future in joined:
                if future.done() and not future.cancelled():
                    future.exception()
            self.withdraw(answers)
            raise

    def withdraw(self, answers: Sequence[Answer]) -> None:
        """Forget answers that nobody waits for any more; from the next step on they cost nothing."""
        self._leaving.extend(answers)
        self._wake.set()

    def nudge(self) -> None:
        """Let the watcher have the figures that it wants, though nobody asks for a step."""
        self._wake.set()

    async def run(self) -> None:
        """Step as long as there is something to answer, until cancelled, or until the ranks end."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._take_in()
                await self._look()
                if not self.llm.unfinished:
                    self._wake.clear()
                    if not (self._joining or self._leaving):
                        await self._sleep()
                    continue
                begun = perf_counter()
                result = await loop.run_in_executor(self._thread, self.llm.step)
                self._give_out(result, perf_counter() - begun)
                # Let HTTP have its turn: what was given out is sent before the next step is asked for.
                await asyncio.sleep(0)
        except WingspanError as error:
            self._end(error)
        finally:
            self._thread.shutdown(wait=False)

    async def _sleep(self) -> None:
        """Until there is something to do; raises `WingspanError` where a rank ends meanwhile."""
        loop = asyncio.get_running_loop()
        words, heard = self.llm.words, list[int]()

        def hear(word: int) -> None:
            heard.append(word)
            self._wake.set()

        for each in words:
            loop.add_reader(each, hear, each)
        try:
            await self._wake.wait()
        finally:
            for each in words:
                loop.remove_reader(each)
        if heard:
            await loop.run_in_executor(self._thread, self.llm.check)

    async def _look(self) -> None:
        """Tell the watcher what every rank did, where it wants to know and there is something to tell."""
        if self._unseen and self.watcher.wants_figures():
            begun = perf_counter()
            loop = asyncio.get_running_loop()
            figures = await loop.run_in_executor(self._thread, self.llm.take_figures)
            self._unseen = False
            self.watcher.figures(figures, perf_counter() - begun)

    def _take_in(self) -> None:
        """Between steps: let answers join and leave."""
        while self._joining and len(self._answers) < self.llm.slots:
            _, _, answer, joined = heapq.heappop(self._joining)
            if joined.cancelled() or answer in self._leaving:
                continue
            ask = answer.ask
            try:
                number = self.llm.submit(
                    ask.ids,
                    ask.sampling,
                    ask.length,
                    stream=ask.stream,
                    logprobs=ask.logprobs,
                    prompt_logprobs=ask.prompt_logprobs,
                )
            except WingspanError as error:
                joined.set_exception(error)
                continue
            answer.number, answer.begun_seconds = number, perf_counter()
            self._answers[number] = answer
            self.watcher.begun(answer)
            joined.set_result(None)
        leaving, self._leaving = self._leaving, []
        for answer in leaving:
            if answer.number is not None and self._answers.pop(answer.number, None) is not None:
                self.llm.withdraw(answer.number)
                self.watcher.ended(answer, "abort", perf_counter())

    def _give_out(self, result: StepResult, seconds: float) -> None:
        now = perf_counter()
        self._unseen = True
        self.watcher.stepped(result, seconds)
        _say_what_moved(result.balancing)
        for number, cached in result.cached.items():
            if (begun := self._answers.get(number)) is not None:
                begun.cached_tokens = cached
        for number, found in result.prompt_logprobs.items():
            if number in self._answers:
                self._answers[number].take_prompt(found)
        for number, token in result.tokens.items():
            answer = self._answers.get(number)
            if answer is None:
                continue
            reason = result.finished.get(number)
            self.watcher.token(answer, now)
            if answer.first_token_seconds is None:
                answer.first_token_seconds = now
            answer.newest_token_seconds = now
            ended = answer.push(token, result.logprobs.get(number), reason)
            if ended:
                del self._answers[number]
                if reason is None:
                    self.llm.withdraw(number)
                self.watcher.ended(answer, reason or "stop", now)

    def _end(self, error: WingspanError) -> None:
        """Tell everybody that waits."""
        self.failed = error
        self.watcher.failed(error)
        self.when_failed()
        stopped = StoppedError(str(error))
        for answer in self._answers.values():
            answer.fail(stopped)
        self._answers = {}
        for _, _, _, joined in self._joining:
            if not joined.done():
                joined.set_exception(stopped)
        self._joining = []


def _say_what_moved(events: Sequence[RebalanceEvent]) -> None:
    """A line for what happened to experts; that they stay is decided every few steps."""
    for line in lines(happened(events)):
        _LOG.info("%s", line)
