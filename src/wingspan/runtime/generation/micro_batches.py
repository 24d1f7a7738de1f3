"""Several forwards of one model that take turns: while one's rows travel, another computes.

Each forward runs in a greenlet, which gives way where a layer has started a transfer; no model code changes for it.

Shapes: P sequences of a rank, S length so far.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet

from wingspan.runtime.generation.prompts import Batch
from wingspan.runtime.model.step import Step, go_on

Result = TypeVar("Result")


def take_turns(
    forwards: Sequence[Callable[[], Result]], valid: Sequence[torch.Tensor | None], step: Step
) -> list[Result]:
    """Run the forwards, each until it pauses, in turn until all are done.

    Args:
        forwards: one per micro-batch; they meet `step.pause` equally often.
        valid: for each, what `Step.valid_T` is while it runs.
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
                step.micro_batch, step.valid_T = number, valid[number]
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


def part_of(batch: Batch, rows: slice) -> Batch:
    """These sequences; without any, one lone row of padding, so that the micro-batch still takes every step."""
    if rows.start < rows.stop:
        return Batch(batch.ids_PS[rows], batch.valid_PS[rows])
    return Batch(torch.zeros_like(batch.ids_PS[:1]), torch.zeros_like(batch.valid_PS[:1]))


class Caches:
    """The KV caches of a rank's sequences, one per micro-batch; they follow a change of the schedule between steps."""

    def __init__(self) -> None:
        self.parts: list[Any] = [None]

    def regroup(self, parts: int, rows: int) -> None:
        """Make it `parts` caches of `rows` sequences in all."""
        if parts == len(self.parts):
            return
        if all(part is None for part in self.parts):
            self.parts = [None] * parts
        elif parts == 1:
            self.parts = [_joined(self.parts, split_rows(rows, len(self.parts)))]
        else:
            self.parts = [_selected(self.parts[0], part) for part in split_rows(rows, parts)]

    @property
    def size_bytes(self) -> int:
        """Memory of all of them."""
        return sum(
            tensor.nbytes
            for part in self.parts
            for layer in _layers(part)
            for tensor in _tensors(layer).values()
        )


def _selected(cache: Any, rows: slice) -> Any:
    """A copy with these rows; with any one row where they are none, as padding stands for it."""
    part = copy.deepcopy(cache)
    part.batch_select_indices(
        torch.arange(rows.start, rows.stop) if rows.start < rows.stop else torch.zeros(1, dtype=torch.int64)
    )
    return part


def _joined(parts: Sequence[Any], rows: Sequence[slice]) -> Any:
    """The first cache with the sequences of all; those that only stand for an empty part are left out."""
    whole = parts[0]
    held = [part for part, of_part in zip(parts, rows, strict=True) if of_part.start < of_part.stop]
    for number, layer in enumerate(_layers(whole)):
        for name in _tensors(layer):
            setattr(
                layer, name, torch.cat([getattr(_layers(part)[number], name) for part in held or parts[:1]])
            )
    return whole


def _rows_of(cache: Any) -> int:
    return next(len(tensor) for layer in _layers(cache) for tensor in _tensors(layer).values())


def _layers(cache: Any) -> list[Any]:
    return list(getattr(cache, "layers", []))


def _tensors(layer: Any) -> dict[str, torch.Tensor]:
    """The cache's tensors, all of which have the sequences along dimension 0."""
    return {
        name: value for name, value in vars(layer).items() if isinstance(value, torch.Tensor) and value.dim()
    }
