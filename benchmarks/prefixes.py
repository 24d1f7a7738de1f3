"""Requests that begin alike, with and without prefix caching, and ones that share nothing; all in one run.

python -m benchmarks.prefixes models/tiny --ranks 2 --rounds 3
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.continuous import Spent, spent
from wingspan.runtime.generation.requests import Length
from wingspan.runtime.llm import LLM, Completion


def prompts(number: int, shared: int, own: int, seed: int) -> list[list[int]]:
    """So many tokens in common, and so many of each."""
    rng = np.random.default_rng(seed)
    common = rng.integers(0, 96, shared).tolist()
    return [common + rng.integers(0, 96, own).tolist() for _ in range(number)]


def _answer(llm: LLM, given: list[list[int]], length: Length, into: list[list[Completion]]) -> None:
    into.append(llm.generate(given, length=length))


def main(
    model: Path,
    ranks: int = 2,
    requests: int = 32,
    shared: int = 512,
    own: int = 32,
    new: int = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print seconds and CPU seconds of a request, medians; each round draws other prompts, the same for both ways."""
    length = Length(new, ignore_eos=True)
    cases = {f"{shared} tokens shared, {own} own": (shared, own), f"{shared + own} own": (0, shared + own)}
    taken: dict[tuple[str, bool], list[Spent]] = {}
    engines = {on: LLM(model, ranks, dtype="float32", prefix_caching=on) for on in (False, True)}
    try:
        for llm in engines.values():
            llm.generate(prompts(ranks, 8, 8, seed=0), length=length)  # warms up
        for number in range(rounds):
            for place, (case, (in_common, of_each)) in enumerate(cases.items()):
                given = prompts(requests, in_common, of_each, seed=len(cases) * number + place + 1)
                answers: list[list[Completion]] = []
                for on, llm in engines.items():
                    work = partial(_answer, llm, given, length, answers)
                    taken.setdefault((case, on), []).append(spent(work))
                same = sum(a.token_ids == b.token_ids for a, b in zip(*answers, strict=True))
                print(f"round {number}, {case}: {same} of {requests} answers the same", flush=True)
    finally:
        for llm in engines.values():
            llm.close()
    for case in cases:
        for caching_on in (False, True):
            each = taken[case, caching_on]
            seconds, cpu_seconds = (
                float(np.median([getattr(one, name) for one in each])) / requests
                for name in ("seconds", "cpu_seconds")
            )
            way = "with prefix caching" if caching_on else "without"
            print(f"{case}, {way}: {seconds * 1e3:.0f} ms, {cpu_seconds * 1e3:.0f} CPU ms a request")


if __name__ == "__main__":
    typer.run(main)
