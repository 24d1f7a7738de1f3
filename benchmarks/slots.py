"""Tokens per second of processor time where sequences come and go all the time: one rank, so many rows at a time.

It asks the engine by calls that do not change with how caches are kept, so two revisions can be compared: run it in a
checkout of each, in turn.

    python -m benchmarks.slots models/tiny --rows 16
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.model.engine import default_placement, describe, load
from wingspan.runtime.transport.transport import LocalTransport
from wingspan.schedule.batching import BatchLimits


def requests(number: int, prompt_tokens: int, longest: int) -> list[Request]:
    """Prompts of uneven lengths around `prompt_tokens`; answers log-uniform from 4 to `longest`."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(prompt_tokens // 2, prompt_tokens * 3 // 2, number, endpoint=True)
    answers = np.exp(rng.uniform(np.log(4), np.log(longest), number)).astype(int)
    return [
        Request(n, tuple(rng.integers(0, 90, length).tolist()), length=Length(int(new), ignore_eos=True))
        for n, (length, new) in enumerate(zip(prompts, answers, strict=True))
    ]


def main(
    model: Path,
    rows: int = 16,
    number: int = 96,
    prompt_tokens: int = 64,
    longest: int = 128,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print new tokens per second of processor time, each round, and of the clock."""
    torch.set_num_threads(1)
    described, transport = describe(model), LocalTransport()
    placement = default_placement(described.shape, 1, described.shape.num_experts)
    engine = load(described, placement, transport, torch.device("cpu"))
    asked = requests(number, prompt_tokens, longest)
    for round_number in range(rounds + 1):
        generator = Generator(engine, limits=BatchLimits(2**40, rows, 2**40))
        for request in asked if round_number else asked[:rows]:
            generator.submit(request)
        tokens, cpu, clock = 0, time.process_time(), time.perf_counter()
        while generator.unfinished:
            tokens += len(generator.step().tokens)
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        if round_number:  # the first one warms up
            print(
                f"{tokens / cpu:.1f} tokens per CPU second, {tokens / clock:.1f} by the clock, "
                f"caches {generator.cache_bytes / 1e6:.1f} MB"
            )


if __name__ == "__main__":
    typer.run(main)
