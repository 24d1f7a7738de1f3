"""Requests that leave when they end, against a closed batch, on answers of mixed lengths; both in one run.

The closed batch admits so many requests, and the next ones only when all of them have ended; until then those that
ended go on as rows of the batch. Both are the same engine on the same ranks, so only the batching differs.

    python -m benchmarks.continuous models/tiny --ranks 2 --rounds 3
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from wingspan.runtime.generation.requests import Length
from wingspan.runtime.llm import LLM

_PROMPT_TOKENS = 12


def closed(llm: LLM, new_N: NDArray[np.int64], together: int) -> float:
    """Seconds for all requests, `together` at a time, each group as long as its longest."""
    begin = time.monotonic()
    for first in range(0, len(new_N), together):
        group = new_N[first : first + together]
        llm.generate(_prompts(len(group)), length=Length(int(group.max()), ignore_eos=True))
    return time.monotonic() - begin


def continuous(llm: LLM, new_N: NDArray[np.int64]) -> float:
    """Seconds for all requests, each admitted as soon as a row is free."""
    begin = time.monotonic()
    llm.generate(_prompts(len(new_N)), length=[Length(int(new), ignore_eos=True) for new in new_N])
    return time.monotonic() - begin


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
    """Print tokens per second of each round: lengths are log-uniform from 4 to `longest`."""
    rng = np.random.default_rng(0)
    new_N = np.exp(rng.uniform(np.log(4), np.log(longest), requests)).astype(np.int64)
    with LLM(model, ranks, sequences_per_rank=sequences_per_rank) as llm:
        continuous(llm, new_N[:sequences_per_rank])  # warms up
        ratios = []
        for number in range(rounds):
            of_closed = new_N.sum() / closed(llm, new_N, sequences_per_rank * ranks)
            of_continuous = new_N.sum() / continuous(llm, new_N)
            ratios.append(of_continuous / of_closed)
            print(
                f"round {number}: closed {of_closed:.0f}, continuous {of_continuous:.0f} tokens/s, {ratios[-1]:.2f} x"
            )
    print(
        f"median {np.median(ratios):.2f} x, {new_N.sum()} tokens in {requests} answers of 4 to {new_N.max()}"
    )


if __name__ == "__main__":
    typer.run(main)
