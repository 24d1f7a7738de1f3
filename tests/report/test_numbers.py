"""Numbers in words, tables and CSV rows."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from tests.report.examples import serving, step, sweep
from wingspan.report.palette import PAPER
from wingspan.report.rows import csv_text, serving_rows, step_rows, sweep_rows
from wingspan.report.sweep_figures import THROUGHPUT, best_points, heat_map, lines, reads_as_lines
from wingspan.report.terminal import sentences, serving_table, sweep_table
from wingspan.report.units import (
    bytes_text,
    count_text,
    full_rate_text,
    rate_text,
    seconds_text,
    share_text,
    time_scale,
    whole_text,
)
from wingspan.schedule.serving_result import Percentiles


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (1.5, "1.50 s"),
        (0.01234, "12.3 ms"),
        (0.99999, "1.00 s"),
        (123e-6, "123 µs"),
        (5e-9, "5.00 ns"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds_text(value) == text


def test_bytes_counts_and_shares() -> None:
    assert bytes_text(58_720_256) == "58.7 MB"
    assert bytes_text(999.9e6) == "1.00 GB"
    assert bytes_text(0) == "0 B"
    assert count_text(1_234_567) == "1.23 M"
    assert count_text(42) == "42.0"
    assert share_text(0.0512) == "5.1 %"
    assert time_scale(0.02) == (1000.0, "ms")
    assert time_scale(1e-9) == (1e6, "µs")


def printed(table: object) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_tables_fit_a_terminal_of_80_columns_uncut() -> None:
    for table in (sweep_table(sweep(), 80), serving_table(serving((4, 256)), 80)):
        shown = printed(table)
        assert max(len(line.rstrip()) for line in shown) <= 80
        assert "…" not in "".join(shown)


def test_an_overloaded_and_priced_table_is_not_cut_either() -> None:
    report = serving((4, 256))
    hard = [
        point.model_copy(
            update={
                "offered_requests_per_second": 123_456.7,
                "ttft_seconds": Percentiles(mean=1, p50=1234.5, p90=12345.6, p99=99999.0, highest=1),
                "tpot_seconds": Percentiles(mean=1, p50=1.2345, p90=9.9, p99=99.9, highest=1),
                "price_per_million_output_tokens": 1234.5,
            }
        )
        for point in report.points
    ]
    shown = printed(serving_table(report.model_copy(update={"points": hard}), 80))
    assert max(len(line.rstrip()) for line in shown) <= 80
    assert "…" not in "".join(shown)
    for digits in ("123,457", "12,346", "99,999", "1,234", "99.90", "1.23", "1,234"):
        assert digits in "".join(shown)


def test_equal_sentences_become_one_with_their_count() -> None:
    assert [text.plain for text in sentences(["a", "b", "a", "a"])] == ["- a (3 times)", "- b"]


def test_csv_has_every_rank_point_and_load_in_full() -> None:
    report, _ = step()
    ranks = list(csv.DictReader(io.StringIO(csv_text(step_rows(report)))))
    assert [int(row["rank"]) for row in ranks] == list(range(16))
    assert float(ranks[3]["expert_seconds"]) == report.operation_seconds["expert"][3]  # type: ignore[index]
    result = sweep()
    points = list(csv.DictReader(io.StringIO(csv_text(sweep_rows(result)))))
    assert [row["cluster"] for row in points] == [p.at["cluster"] for p in result.points]
    assert float(points[4]["step_seconds"]) == result.points[4].step_seconds
    loads = list(csv.DictReader(io.StringIO(csv_text(serving_rows(serving((4, 64)))))))
    assert len(loads) == 2
    assert float(loads[1]["ttft_seconds.p99"]) > float(loads[0]["ttft_seconds.p50"]) > 0
    assert csv_text([]) == ""


def test_lines_draw_every_point_once_and_mark_what_does_not_fit() -> None:
    result = sweep()
    along = result.axes[1]
    drawn = lines(result, THROUGHPUT, along, [result.axes[0]])["data"]
    assert [line["name"] for line in drawn] == ["ideal", "h100-sxm"]
    assert [len(line["x"]) for line in drawn] == [5, 5]
    hollow = [colour for line in drawn for colour in line["marker"]["color"] if colour == PAPER]
    assert len(hollow) == sum(not point.fits for point in result.points) == 1
    assert reads_as_lines(result, along)


def test_a_heat_map_has_a_cell_for_each_pair_and_a_gap_where_there_is_none() -> None:
    result = sweep()
    across, down = result.axes[1], result.axes[0]
    cells = heat_map(result, result.points[1:], THROUGHPUT, across, down)
    (heat,) = cells["data"]
    assert heat["z"][0][0] is None
    assert heat["z"][1][4] == result.points[9].tokens_per_second_per_gpu
    texts = [text for row in heat["text"] for text in row if text]
    assert len(texts) == 9
    assert sum("✗" in text for text in texts) == 1


def test_the_best_point_fits_if_any_does() -> None:
    result = sweep()
    fast_but_unfit = result.points[4].model_copy(update={"tokens_per_second_per_gpu": 1e9})
    changed = result.model_copy(update={"points": [*result.points[:4], fast_but_unfit, *result.points[5:]]})
    best = best_points(changed, [result.axes[0]])
    assert [point.at["ranks"] for point in best] == [16, 16]


def test_a_rate_is_never_nothing() -> None:
    assert [rate_text(rate) for rate in (0, 0.00321, 0.5, 123.4, 12345)] == [
        "0",
        "0.0032",
        "0.50",
        "123",
        "12.3 k",
    ]
    assert [full_rate_text(rate) for rate in (0.00321, 5.25, 99.96, 12345.6)] == [
        "0.0032",
        "5.25",
        "100",
        "12,346",
    ]
    assert [whole_text(count) for count in (0, 42, 1_234_567)] == ["0", "42", "1.23 M"]
