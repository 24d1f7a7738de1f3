"""How a step is executed: the order of its operations, and how rows travel."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import entry_points
from typing import Annotated

from pydantic import AfterValidator

from wingspan.errors import InputError

MOST_CHUNKS = 64
"""Parts of a layer's rows; each pays the latency of its own exchange."""


class ScheduleKind(StrEnum):
    """The order of operations in a step."""

    SEQUENTIAL = "sequential"
    CHUNKS = "chunks"
    TWO_BATCH = "two-batch"
    SINGLE_BATCH = "single-batch"
    """Rows return while later experts' down product is computed: kernels signal each expert that is done."""
    FUSED = "fused"
    """One kernel dispatches, computes and combines, expert by expert."""


TRIED = (ScheduleKind.SEQUENTIAL, ScheduleKind.CHUNKS, ScheduleKind.TWO_BATCH)
"""What a search tries, and ranks can run. The others need kernels of one engine: predicted where they are asked for."""
STREAMED = (ScheduleKind.SINGLE_BATCH, ScheduleKind.FUSED)
"""Experts and transfers work on one layer's rows at once, expert by expert."""

USUAL_CHUNKS = 2
"""Where nobody says how many: the fewest that overlap."""


def schedule_text(kind: ScheduleKind, chunks: int = USUAL_CHUNKS) -> str:
    """How a schedule is written wherever a person reads it: `sequential`, `chunks:4`, `two-batch`."""
    return f"{kind}:{chunks}" if kind is ScheduleKind.CHUNKS else kind.value


def parse_schedule(text: str) -> tuple[ScheduleKind, int]:
    """Read what `schedule_text` writes.

    Returns:
        The kind, and its chunks (1 where it has none).

    Raises:
        InputError: another text, or chunks that are not from 1 to `MOST_CHUNKS`.
    """
    kind, _, count = text.partition(":")
    if kind == ScheduleKind.CHUNKS:
        if count.isascii() and count.isdigit() and len(count) <= 3 and 1 <= int(count) <= MOST_CHUNKS:
            return ScheduleKind.CHUNKS, int(count)
    elif text in [*ScheduleKind]:
        return ScheduleKind(text), 1
    raise InputError(
        f"`schedule` {text}: use sequential, chunks:N (N from 1 to {MOST_CHUNKS}), two-batch, single-batch or fused"
    )


def parse_runnable_schedule(text: str) -> tuple[ScheduleKind, int]:
    """Read a schedule that ranks are to run; also raises `InputError` for one that is only predicted."""
    kind, chunks = parse_schedule(text)
    if kind in STREAMED:
        raise InputError(
            f"`schedule` {text}: needs kernels that hand rows on expert by expert, which ranks here do not have; use "
            "sequential, chunks:N or two-batch, or predict it"
        )
    return kind, chunks


def _checked(text: str) -> str:
    try:
        return schedule_text(*parse_schedule(text))
    except InputError as error:
        raise ValueError(str(error).partition(": ")[2]) from None


ScheduleText = Annotated[str, AfterValidator(_checked)]
"""A schedule as a file has it: the text that `parse_schedule` reads."""

DISPATCHER_PLUGINS = "wingspan.dispatchers"
"""The entry point group under which other packages name dispatchers of theirs."""


class DispatcherKind(StrEnum):
    """How rows travel from a token's home to the ranks of its experts, and back."""

    FLAT = "flat"
    """One row per (token, expert), straight to its rank: low-latency kernels, for small batches."""
    DEDUPLICATED = "deduplicated"
    """One row per (token, rank), straight to it: sums of a rank come back as one row."""
    HIERARCHICAL = "hierarchical"
    """One row per (token, node), forwarded inside; sums of a node come back as one row. For large batches."""


def plugin_names() -> list[str]:
    """The dispatchers that other installed packages bring."""
    return sorted(entry_points(group=DISPATCHER_PLUGINS).names - {"auto", *DispatcherKind})
