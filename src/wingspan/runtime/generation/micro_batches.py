"""Several forwards of one model that take turns: while one's rows travel, another computes.

Each forward runs in a greenlet, which gives way where a layer has started a transfer; no model code changes for it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import TypeVar

from greenlet import getcurrent, greenlet

from wingspan.runtime.model.step import Step, TokenRows, go_on

Result = TypeVar("Result")


def interleave(
    forwards: Sequence[Callable[[], Result]], tokens: Sequence[TokenRows | None], step: Step
) -> list[Result]:
    """Run the forwards, each until it pauses, in turn until all are done.

    Args:
        forwards: one per micro-batch; they meet `step.pause` equally often.
        tokens: for each, what `Step.tokens` is while it runs.
        step: what the model's layers read.
    """
    results: dict[int, Result] = {}

    def run(number: int) -> None:
        results[number] = forwards[number]()

    lanes = []
    for number in range(len(forwards)):
        lane = greenlet(lambda number=number: run(number))
        lane.gr_context = contextvars.copy_context()
        lanes.append(lane)
    step.pause = _give_way
    try:
        while len(results) < len(forwards):
            for number, lane in enumerate(lanes):
                step.micro_batch, step.tokens = number, tokens[number]
                lane.switch()
    finally:
        step.pause, step.micro_batch = go_on, 0
    return [results[number] for number in range(len(forwards))]


def _give_way() -> None:
    getcurrent().parent.switch()


def split_rows(rows: int, parts: int) -> list[slice]:
    """The rows of each micro-batch; where there are fewer rows than parts the last parts are empty."""
    size = -(-rows // parts)
    return [slice(min(rows, size * part), min(rows, size * (part + 1))) for part in range(parts)]
