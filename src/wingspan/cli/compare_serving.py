"""`wingspan compare --serving`: a server under load, beside the simulation of it with step times measured on it."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wingspan.cli.outputs import check_outputs
from wingspan.cli.serve_job import need_server
from wingspan.cli.values import numbers
from wingspan.errors import InputError, RunError
from wingspan.runtime.setup.setup import Asked, read_setup
from wingspan.schedule.batching import UNLIMITED, BatchLimits
from wingspan.schedule.serving_comparison import ComparedLoad, ComparedRound, ServingComparison, StepFigures
from wingspan.simulate.serving.beside import simulated
from wingspan.simulate.serving.group import GroupSpec
from wingspan.simulate.serving.measured import MeasuredStep, MeasuredTimes, RecordedTimes, fitted
from wingspan.specs.requests import Requests, poisson_requests

if TYPE_CHECKING:
    from wingspan.client.call import Timed
    from wingspan.runtime.llm import LLM
    from wingspan.server.step_records import ServedStep, StepRecorder

SHARES = (0.4, 0.6, 0.8)
"""Shares of the highest load that are sent where no rates are given."""


@dataclass(frozen=True)
class ServingCompared:
    """What `wingspan compare --serving` is asked for."""

    asked: Asked
    rate: str | None
    num_requests: int
    prompt_tokens: int
    output_tokens: int
    length_spread: float
    max_sequences: int
    step_tokens: int
    rounds: int
    seed: int
    as_json: bool
    html: Path | None

    @property
    def rates(self) -> list[float]:
        """The loads that are asked for, lowest first; none: shares of the highest.

        Raises:
            InputError: what is no number above 0.
        """
        return [] if self.rate is None else sorted(numbers(self.rate, "--rate"))


def compare_serving(given: ServingCompared) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    check_outputs(given.html)
    if (rates := given.rates) and rates[0] <= 0:
        raise InputError(f"--rate {given.rate}: every rate must be above 0")
    BatchLimits(UNLIMITED.kv_tokens_per_home, given.max_sequences, given.step_tokens)
    setup = read_setup(given.asked, os.environ)
    ranks = setup.own_group(os.environ).size
    name = setup.folder.resolve().name
    need_server()
    from wingspan.cli.compare_serving_view import finish
    from wingspan.runtime.llm import LLM
    from wingspan.server.app import Access
    from wingspan.server.listening import serve
    from wingspan.server.step_records import StepRecorder

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        _say(f"loading {name} on {ranks} rank{'s' * (ranks > 1)}")
        with LLM(
            **{field.name: getattr(given.asked, field.name) for field in fields(Asked)},
            sequences_per_rank=given.max_sequences,
            tokens_per_step=given.step_tokens,
        ) as llm:
            comparing = _Comparing(given, llm, StepRecorder(), name, url)
            serve(
                llm,
                name,
                listener,
                Access(),
                most_waiting=2**31,
                recorder=comparing.recorder,
                beside=comparing.measure,
            )
            found = comparing.compared(ranks)
    finish(found, as_json=given.as_json, html=given.html)


@dataclass(frozen=True)
class _Sent:
    """A load that was sent: what its client saw, and the server's steps meanwhile."""

    answers: list[Timed]
    steps: list[ServedStep]
    server_first_seconds: list[float]
    others_share: float

    @property
    def requests(self) -> Requests:
        """The requests, at the times at which they were sent."""
        by_time = sorted(self.answers, key=lambda one: one.sent_seconds)
        return Requests(
            np.array([one.sent_seconds - by_time[0].sent_seconds for one in by_time]),
            np.array([one.prompt_tokens for one in by_time]),
            np.array([one.output_tokens for one in by_time]),
        )

    @property
    def step_seconds(self) -> list[float]:
        """Every step until the next began; where nobody was left, until its own end."""
        following = [*(step.begun_seconds for step in self.steps[1:]), self.steps[-1].ended_seconds]
        return [
            (step.ended_seconds if step.is_last else begun) - step.begun_seconds
            for step, begun in zip(self.steps, following, strict=True)
        ]

    @property
    def cycles(self) -> list[MeasuredStep]:
        """Steps, each until the next began, as long as they would take with all processors to themselves.

        Those after which nobody was left are left out.
        """
        steps = zip(self.steps, self.step_seconds, strict=True)
        alone = 1 - self.others_share
        return [MeasuredStep(step.load, seconds * alone) for step, seconds in steps if not step.is_last]

    @property
    def http_seconds(self) -> float:
        """What the client waited longer for each first token than the server, in the mean of this load."""
        client = [one.token_seconds[0] - one.sent_seconds for one in self.answers]
        return statistics.fmean(client) - statistics.fmean(self.server_first_seconds)

    @property
    def figures(self) -> StepFigures:
        """What its steps were like."""
        decoding = [sum(step.load.decoding_H) for step in self.steps]
        return StepFigures(
            step_seconds=statistics.fmean(self.step_seconds),
            decoding_sequences=statistics.fmean([rows for rows in decoding if rows] or [0]),
        )


_Send = Callable[[Requests, int | None], Awaitable[_Sent]]


@dataclass
class _Round:
    """Loads to measure steps by, and between them the loads that are compared."""

    by_steps: list[_Sent] = field(default_factory=list)
    compared: list[_Sent] = field(default_factory=list)


class _Comparing:
    """Sends the loads while the server serves; afterwards simulates them."""

    def __init__(self, given: ServingCompared, llm: LLM, recorder: StepRecorder, name: str, url: str) -> None:
        self.recorder = recorder
        self._given, self._llm, self._name, self._url = given, llm, name, url
        self._rounds: list[_Round] = []
        self._rates: list[float] = []
        self._highest = 0.0
        self._prompts = given.seed

    async def measure(self) -> None:
        """Send everything. The client is a process of its own, as users' are."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

            async def send(requests: Requests, concurrency: int | None) -> _Sent:
                return await self._send(pool, requests, concurrency)

            _say("warming up")
            await send(self._drawn(1.0, 8, 10**6), 4)
            top = await send(self._drawn(1.0, 3 * self._llm.slots, 10**6 + 1), self._llm.slots)
            self._highest = _highest_rate(top, self._llm.slots)
            self._rates = list(self._given.rates) or [share * self._highest for share in SHARES]
            for number in range(self._given.rounds):
                self._rounds.append(await self._measure_round(send, number))

    async def _measure_round(self, send: _Send, number: int) -> _Round:
        """Steps are measured before each load, so that both see the same machine."""
        done, levels = _Round(), _levels(self._llm.slots)
        loads = len(self._rates)
        for place, rate in enumerate(self._rates):
            for level in levels[place::loads]:
                seed = self._given.seed + 1000 * (number + 1) + level
                done.by_steps.append(await send(self._drawn(1.0, max(6, 2 * level), seed), level))
            seed = self._given.seed + number
            done.compared.append(await send(self._drawn(rate, self._given.num_requests, seed), None))
            _say(f"round {number + 1} of {self._given.rounds}: {rate:.3g} requests/s sent")
        return done

    def _drawn(self, rate: float, count: int, seed: int) -> Requests:
        given = self._given
        drawn = poisson_requests(
            rate, count, given.prompt_tokens, given.output_tokens, spread=given.length_spread, seed=seed
        )
        longest = getattr(self._llm.config.get_text_config(), "max_position_embeddings", None)
        return drawn if longest is None else drawn.cut_to(longest)

    async def _send(self, pool: ProcessPoolExecutor, requests: Requests, concurrency: int | None) -> _Sent:
        # psutil comes with the runtime.
        from wingspan.cli.other_work import OtherWork

        recorder = self.recorder
        recorder.steps, recorder.first_token_seconds = [], []
        loop = asyncio.get_running_loop()
        self._prompts += 1  # new ones in each load: the server would find those of one before computed
        others = OtherWork()
        answers = await loop.run_in_executor(
            pool, _drive, self._url, self._name, requests, concurrency, self._prompts
        )
        if failed := [one.error for one in answers if one.error is not None]:
            raise RunError(f"{len(failed)} of {len(answers)} requests failed; the first: {failed[0]}")
        return _Sent(answers, recorder.steps, recorder.first_token_seconds, others.share())

    def compared(self, ranks: int) -> ServingComparison:
        """Every load beside its simulation."""
        given, limits = self._given, self._llm.limits
        rounds: list[list[ComparedRound]] = [[] for _ in self._rates]
        http: list[float] = []
        measured_steps = 0
        for one in self._rounds:
            steps = [step for sent in one.by_steps for step in sent.cycles]
            measured_steps += len(steps)
            times = fitted(steps)
            group = GroupSpec(
                "prefill and decode", times, ranks, ranks, limits.kv_tokens_per_home,
                limits.sequences_per_home, limits.tokens_per_step,
            )  # fmt: skip
            http.append(statistics.median(sent.http_seconds for sent in one.by_steps))
            for place, sent in enumerate(one.compared):
                rounds[place].append(_beside(sent, group, times, http[-1]))
        return ServingComparison(
            conditions={
                "Model": f"{self._name} on {ranks} ranks, each with up to {given.max_sequences} sequences and "
                f"{given.step_tokens} tokens of a step",
                "Requests": f"Poisson, {given.num_requests} in each of {given.rounds} rounds per load; mean "
                f"{given.prompt_tokens} prompt and {given.output_tokens} output tokens, spread {given.length_spread:g}",
            },
            highest_requests_per_second=self._highest,
            http_seconds=statistics.median(http),
            measured_steps=measured_steps,
            others_share=statistics.fmean(sent.others_share for one in self._rounds for sent in one.by_steps),
            loads=[
                ComparedLoad(requests_per_second=rate, share=rate / self._highest, rounds=of_rate)
                for rate, of_rate in zip(self._rates, rounds, strict=True)
            ],
        )


def _beside(sent: _Sent, group: GroupSpec, times: MeasuredTimes, http_seconds: float) -> ComparedRound:
    from wingspan.client.report import report
    from wingspan.schedule.serving_result import ServingLimits

    busy = replace(group, times=times.slower(1 / (1 - sent.others_share)))
    predicted = simulated(sent.requests, busy, http_seconds)
    own = replace(group, times=RecordedTimes(sent.step_seconds))
    return ComparedRound(
        others_share=sent.others_share,
        replayed=simulated(sent.requests, own, sent.http_seconds).met,
        predicted=predicted.met,
        measured=report(sent.answers, ServingLimits()),
        predicted_steps=predicted.steps,
        measured_steps=sent.figures,
    )


def _highest_rate(sent: _Sent, slots: int) -> float:
    """Requests a second while nearly every place is taken."""
    full = [step for step in sent.cycles if sum(step.load.decoding_H) >= 0.8 * slots]
    if not full:
        raise RunError("the places of the server were never all taken; send longer answers")
    tokens = sum(sum(step.load.decoding_H) for step in full)
    mean_output = statistics.fmean(one.output_tokens for one in sent.answers)
    return tokens / sum(step.seconds for step in full) / (mean_output - 1)


def _levels(slots: int) -> list[int]:
    """How many requests at a time steps are measured with."""
    levels = [1]
    while levels[-1] < slots:
        levels.append(min(2 * levels[-1], slots))
    return levels


def _drive(url: str, model: str, requests: Requests, concurrency: int | None, seed: int) -> list[Timed]:
    """In the client's process."""
    from wingspan.client.call import Endpoint
    from wingspan.client.load import Load, drive

    return drive(Endpoint(url, model), Load(requests, concurrency, seed=seed))


def _say(line: str) -> None:
    print(f"wingspan: {line}", file=sys.stderr, flush=True)
