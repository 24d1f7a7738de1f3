"""A schedule's text reads as it is written, and nothing else reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.schedule.schedule import Layers, schedule_of
from wingspan.specs.execution import (
    MOST_CHUNKS,
    STREAMED,
    TRIED,
    ScheduleKind,
    parse_runnable_schedule,
    parse_schedule,
    schedule_text,
)


@given(st.sampled_from(ScheduleKind), st.integers(2, MOST_CHUNKS))
def test_what_is_written_is_read(kind: ScheduleKind, chunks: int) -> None:
    text = schedule_text(kind, chunks)
    assert parse_schedule(text) == (kind, chunks if kind is ScheduleKind.CHUNKS else 1)
    assert schedule_of(kind, chunks, Layers(1)).name == text


@pytest.mark.parametrize(
    "text", ["", "chunks", "chunks:", "chunks:0", "chunks:65", "chunks:x", "chunks:²", "two-batch:2", "three"]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="use sequential, chunks:N"):
        parse_schedule(text)


def test_ranks_run_what_a_search_tries_and_nothing_else() -> None:
    assert {*TRIED, *STREAMED} == {*ScheduleKind}
    for kind in TRIED:
        assert parse_runnable_schedule(schedule_text(kind))[0] is kind
    for kind in STREAMED:
        with pytest.raises(
            InputError, match=f"`schedule` {kind}: needs kernels .* use sequential, chunks:N or two-batch"
        ):
            parse_runnable_schedule(kind)
