"""Traces: what a viewer of the Trace Event Format needs, of predicted, measured and balanced timelines."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from wingspan.report.perfetto import trace_events
from wingspan.schedule.rebalance_result import Migrated, Rollback
from wingspan.schedule.result import Operation, Span, StepSpan, Stream
from wingspan.schedule.run_timeline import RunTimeline

MS = 1e-3


def check_trace(events: list[dict[str, Any]]) -> None:
    """Whether a viewer takes these events: named tracks, order of time, slices that nest, arrows between slices."""
    moments = [event for event in events if event["ph"] != "M"]
    assert [event["ts"] for event in moments] == sorted(event["ts"] for event in moments)
    assert moments[0]["ts"] >= 0
    named = {(e["pid"], e.get("tid")) for e in events if e["name"] in ("process_name", "thread_name")}
    ordered = {(e["pid"], e.get("tid")) for e in events if e["name"].endswith("_sort_index")}
    used = {(e["pid"], e["tid"]) for e in moments} | {(e["pid"], None) for e in moments}
    assert used <= named == ordered
    open_slices: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    arrows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in moments:
        stack = open_slices[event["pid"], event["tid"]]
        while stack and end(stack[-1]) <= nanoseconds(event["ts"]):
            stack.pop()
        if event["ph"] == "X":
            assert event["dur"] > 0
            assert not stack or end(event) <= end(stack[-1]), (stack[-1], event)
            stack.append(event)
        elif event["ph"] in "sf":
            assert stack, "an arrow binds to the slice that is open at its moment"
            assert stack[-1]["name"] == event["cat"]
            arrows[event["id"]].append(event)
    for both in arrows.values():
        assert [event["ph"] for event in both] == ["s", "f"]
        assert both[0]["pid"] != both[1]["pid"]
        assert both[1]["bp"] == "e"


def nanoseconds(microseconds: float) -> int:
    return round(microseconds * 1e3)


def end(event: dict[str, Any]) -> int:
    return nanoseconds(event["ts"]) + nanoseconds(event["dur"])


def timeline(steps: int = 2) -> RunTimeline:
    """A prefill and steps of decode of one layer on two ranks: rank 1 comes late, and rank 0 waits for it."""
    spans, found = [], []
    for number in range(steps + 1):
        for rank in (0, 1):
            start, late = 100.0 + 10 * MS * number, rank * 2 * MS
            phase = "decode" if number else "prefill"
            found.append(
                StepSpan(
                    rank=rank, phase=phase, number=max(1, number), tokens=3, start_seconds=start,
                    end_seconds=start + 9 * MS,
                )
            )  # fmt: skip
            places = [
                (Operation.ATTENTION, 0.0, 1 * MS + late),
                (Operation.DISPATCH, 1 * MS + late, 5 * MS),
                (Operation.EXPERT, 5 * MS, 6 * MS),
                (Operation.COMBINE, 6 * MS, 8 * MS),
                *([] if rank else [(Operation.WAIT, 1 * MS, 3 * MS)]),
            ]
            for operation, begin, finish in places:
                travels = operation in (Operation.DISPATCH, Operation.COMBINE)
                spans.append(
                    Span(
                        rank=rank, stream=Stream.COMMUNICATION if travels else Stream.COMPUTE, operation=operation,
                        start_seconds=start + begin, end_seconds=start + finish, layer=4,
                        micro_batch=None if travels else number % 2, peers=(1 - rank,) if travels else (),
                        peer_bytes=(70 + rank,) if travels else (), sent_bytes=70 + rank if travels else None,
                        received_bytes=71 - rank if travels else None,
                    )
                )  # fmt: skip
    return RunTimeline(spans, found)


def moved() -> Migrated:
    return Migrated(
        first_step=1, last_step=2, layers=1, layers_rolled_back=0, experts_moved=3, moved_bytes=9, added_seconds=0.1,
        longest_step_seconds=0.2, imbalance_before=2.0, imbalance_after=1.5, imbalance_predicted=1.4,
        step_seconds_before=0.01, step_seconds_after=0.009,
    )  # fmt: skip


def test_slices_nest_by_phase_step_and_micro_batch_and_arrows_join_ranks() -> None:
    events = trace_events(timeline())
    check_trace(events)
    slices = [e for e in events if e["ph"] == "X" and e["pid"] == 0]
    assert Counter(e["name"] for e in slices) == {
        "prefill": 1, "prefill step": 1, "decode": 1, "decode step": 2, "micro-batch 0": 2, "micro-batch 1": 1,
        "attention": 3, "wait": 3, "expert": 3, "dispatch": 3, "combine": 3,
    }  # fmt: skip
    assert all(e["args"]["layer"] == 4 for e in slices if e["name"] in ("attention", "wait", "dispatch"))
    assert [e["args"]["step"] for e in slices if e["name"] == "decode step"] == [1, 2]
    (sent, *_) = [e["args"] for e in events if e["ph"] == "X" and e["name"] == "dispatch" and e["pid"] == 1]
    assert (sent["sent_bytes"], sent["received_bytes"], sent["sent_bytes_to"]) == (71, 70, {"rank 0": 71})
    assert Counter((e["ph"], e["cat"], e["pid"]) for e in events if e["ph"] in "sf") == {
        (ph, kind, rank): 3 for ph in "sf" for kind in ("dispatch", "combine") for rank in (0, 1)
    }


def test_transfers_at_once_lie_on_threads_of_their_own() -> None:
    both = [
        Span(rank=0, stream=Stream.COMMUNICATION, operation=Operation.DISPATCH, start_seconds=a, end_seconds=b, chunk=c)
        for c, (a, b) in enumerate([(0.0, 2.0), (1.0, 3.0), (2.5, 4.0)])
    ]  # fmt: skip
    events = trace_events(RunTimeline(both))
    check_trace(events)
    assert [e["tid"] for e in events if e["ph"] == "X"] == [2, 3, 2]
    assert "communication 2" in {e["args"].get("name") for e in events}


def test_migrations_and_rollbacks_stand_beside_the_steps() -> None:
    lost = Rollback(step=3, layer=4, expert=1, source=0, destination=1, reason="lost")
    events = trace_events(timeline(3), [moved(), lost])
    check_trace(events)
    (migration,) = [e for e in events if e["name"] == "migration"]
    ends = [end(e) for e in events if e["name"] == "decode step" and e["pid"] == 0]
    assert (nanoseconds(migration["ts"]), end(migration)) == (ends[0], ends[1])
    assert migration["args"]["experts_moved"] == 3
    (instant,) = [e for e in events if e["ph"] == "i"]
    assert (instant["name"], nanoseconds(instant["ts"])) == ("rollback", ends[2])
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == [
        "rank 0",
        "rank 1",
        "balancing",
    ]


def test_no_spans_are_an_empty_trace() -> None:
    assert trace_events(RunTimeline()) == []


def test_the_median_step_is_found_and_cut_out() -> None:
    run = timeline(3)
    longer = [
        s.model_copy(update={"end_seconds": s.end_seconds + 0.1 * MS * (s.number % 3)}) for s in run.steps
    ]
    run = RunTimeline(run.spans, longer)
    assert list(run.step_seconds("decode").values()) == pytest.approx([9.1 * MS, 9.2 * MS, 9 * MS])
    assert (run.median_step("decode"), run.median_step("mixed")) == (1, None)
    one = run.only("decode", 2)
    assert {(s.rank, s.number) for s in one.steps} == {(0, 2), (1, 2)}
    assert len(one.spans) == len(run.spans) / 4
    assert {s.rank for s in one.of_ranks([1]).spans} == {1}


def test_a_wait_that_is_a_rounding_error_is_not_drawn_and_a_transfer_of_no_time_is() -> None:
    run = timeline(1)
    short = [
        span.model_copy(update={"end_seconds": span.start_seconds + 1e-10})
        if span.operation in (Operation.WAIT, Operation.COMBINE)
        else span
        for span in run.spans
    ]
    events = trace_events(RunTimeline(short, run.steps))
    check_trace(events)
    names = Counter(e["name"] for e in events if e["ph"] == "X")
    assert (names["wait"], names["combine"], names["expert"]) == (0, 4, 4)
    assert Counter(e["cat"] for e in events if e["ph"] == "f") == {"dispatch": 4, "combine": 4}
