"""Which ranks and spans a timeline shows."""

from __future__ import annotations

import pytest

from tests.report.examples import step
from wingspan.report.ranks import busy_seconds, representative
from wingspan.report.step_figures import breakdown, operation_rows
from wingspan.report.timeline import close_up, whole_step
from wingspan.schedule.result import Operation, Span, Stream


def span(
    rank: int, operation: Operation, layer: int, start: float, end: float, peers: tuple[int, ...] = ()
) -> Span:
    return Span(
        rank=rank, stream=Stream.COMMUNICATION if peers else Stream.COMPUTE, operation=operation,
        layer=layer, start_seconds=start, end_seconds=end, peers=peers, peer_bytes=(1_000_000,) * len(peers),
        sent_bytes=1_000_000 * len(peers) if peers else None, received_bytes=2_000_000 if peers else None,
    )  # fmt: skip


def test_slowest_median_and_fastest_are_chosen_by_busy_time() -> None:
    report, _ = step(ranks=16)
    chosen = representative(report)
    busy = busy_seconds(report)
    assert list(chosen.values()) == ["slowest", "median", "fastest"]
    slowest, median, fastest = chosen
    assert slowest == report.slowest_rank
    assert busy[fastest] == min(busy)
    assert busy[fastest] < busy[median] < busy[slowest]


def test_fewer_ranks_than_names() -> None:
    report, _ = step(ranks=16)
    assert representative(report, {3}) == {3: "slowest"}
    assert len(representative(report, {3, 4})) == 2
    assert representative(report, set()) == {}


def test_waiting_is_not_busy() -> None:
    report, _ = step(ranks=8)
    waits = report.model_copy(
        update={"operation_seconds": {**report.operation_seconds, Operation.WAIT: [1.0] * 8}}
    )
    assert busy_seconds(waits) == busy_seconds(report)


def test_a_transfer_is_one_bar_with_all_its_bytes() -> None:
    bars = whole_step([span(0, Operation.DISPATCH, 1, 0.0, 0.5, (1, 2, 3))], {0: "slowest"})["data"]
    assert len(bars) == 1
    assert bars[0]["x"] == [500.0]  # ms
    assert "sent 3.00 MB" in bars[0]["hovertext"][0]
    assert "received 2.00 MB" in bars[0]["hovertext"][0]


def test_a_close_up_shows_two_layers_and_what_overlaps_them() -> None:
    spans = [span(0, Operation.EXPERT, layer, layer, layer + 1.0) for layer in range(6)]
    spans.append(span(0, Operation.COMBINE, 1, 1.5, 2.5, (1,)))
    near = close_up(spans, {0: "slowest"})
    assert near is not None
    figure, first, last = near
    assert (first, last) == (2, 3)
    shown = {bar["name"]: bar["base"] for bar in figure["data"]}
    assert shown == {"expert": [2.0, 3.0], "combine": [1.5]}
    low, high = figure["layout"]["xaxis"]["range"]
    assert low == pytest.approx(2, abs=0.02)
    assert high == pytest.approx(4, abs=0.02)
    assert close_up([span(0, Operation.DENSE, 0, 0, 1)], {0: "slowest"}) is None


def test_micro_batches_are_told_apart_only_where_there_are_several() -> None:
    one = span(0, Operation.EXPERT, 0, 0, 1).model_copy(update={"micro_batch": 0})
    other = span(0, Operation.EXPERT, 0, 1, 2).model_copy(update={"micro_batch": 1})
    labels = [close_up(spans, {0: "slowest"})[0]["data"][0]["text"] for spans in ([one], [one, other])]  # type: ignore[index]
    assert labels == [["expert"], ["expert a", "expert b"]]


def test_the_breakdown_holds_every_second_and_leaves_out_roundings() -> None:
    report, _ = step()
    noisy = report.model_copy(
        update={"operation_seconds": {**report.operation_seconds, Operation.WAIT: [1e-18] * report.ranks}}
    )
    ranks = list(representative(report))
    total = sum(sum(bar["x"]) for bar in breakdown(noisy)["data"])
    assert total == pytest.approx(sum(busy_seconds(report)[rank] for rank in ranks) * 1e3)
    assert "wait" not in {bar["name"] for bar in breakdown(noisy)["data"]}
    assert operation_rows(noisy)[0][0] == "attention"
    assert "wait" not in {row[0] for row in operation_rows(noisy)}
