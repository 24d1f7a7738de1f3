"""Requests that leave when they end, against a closed batch, on answers of mixed lengths; both in one run.

The closed batch admits so many requests, and the next ones only when all of them have ended; until then those that
ended go on as rows of the batch. Both are the same engine on the same ranks, so only the batching differs.

    python -m benchmarks.continuous models/tiny --ranks 2 --rounds 3
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from numpy.typing import NDArray

from wingspan.runtime.generation.requests import Length
from wingspan.runtime.llm import LLM

_PROMPT_TOKENS = 12


@dataclass(frozen=True)
class Spent:
    """What a way of batching took: by the clock, and of all ranks' processors."""

    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.cpu_seconds:.1f} CPU s"


def spent(work: Callable[[], None]) -> Spent:
    """Time it. The ranks are this process's children."""
    begin, cpu = time.monotonic(), _cpu_seconds()
    work()
    return Spent(time.monotonic() - begin, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    times = [rank.cpu_times() for rank in psutil.Process().children()]
    return sum(of_rank.user + of_rank.system for of_rank in times)


def closed(llm: LLM, new_N: NDArray[np.int64], together: int) -> None:
    """Answer all requests, `together` at a time, each group as long as its longest."""
    for first in range(0, len(new_N), together):
        group = new_N[first : first + together]
        llm.generate(_prompts(len(group)), length=Length(int(group.max()), ignore_eos=True))


def continuous(llm: LLM, new_N: NDArray[np.int64]) -> None:
    """Answer all requests, each admitted as soon as a row is free."""
    llm.generate(_prompts(len(new_N)), length=[Length(int(new), ignore_eos=True) for new in new_N])


def _prompts(number: int) -> list[list[int]]:
    return [[(7 * n + i) % 96 for i in range(_PROMPT_TOKENS)] for n in range(number)]


def main(
    model: Path,
    ranks: int = 2,
    requests: int = 64,
    sequences_per_rank: int = 8,
    longest: int = 128,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print tokens per second, by the clock and of CPU time: lengths are log-uniform from 4 to `longest`."""
    rng = np.random.default_rng(0)
    new_N = np.exp(rng.uniform(np.log(4), np.log(longest), requests)).astype(np.int64)
    with LLM(model, ranks, sequences_per_rank=sequences_per_rank) as llm:
        continuous(llm, new_N[:sequences_per_rank])  # warms up
        ways: tuple[list[Spent], list[Spent]] = ([], [])
        for number in range(rounds):
            ways[0].append(spent(lambda: closed(llm, new_N, sequences_per_rank * ranks)))
            ways[1].append(spent(lambda: continuous(llm, new_N)))
            print(f"round {number}: closed {ways[0][-1]}; continuous {ways[1][-1]}", flush=True)
    for name, value in (("tokens/s", attrgetter("seconds")), ("tokens/CPU s", attrgetter("cpu_seconds"))):
        of_closed, of_continuous = (new_N.sum() / np.median([value(each) for each in way]) for way in ways)
        ratio = of_continuous / of_closed
        print(f"{name}, medians: closed {of_closed:.0f}, continuous {of_continuous:.0f}: {ratio:.2f} x")
    print(f"{new_N.sum()} tokens in {requests} answers of 4 to {new_N.max()}")


if __name__ == "__main__":
    typer.run(main)
