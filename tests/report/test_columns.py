"""Columns of figures: one unit, one number of decimals, nothing cut, whatever the figures are."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.report.examples import sweep
from wingspan.report.columns import Column, aligned, bytes_column, counts_column, seconds_column, table
from wingspan.report.terminal import sweep_table
from wingspan.schedule.sweep_result import SweepAxis, SweepResult

FIGURES = st.floats(1e-4, 1e9) | st.just(0.0)


def printed(shown: object, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(shown)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.208, 11.5], ["0.208", "11.500"]),
        ([48.1, 266.03], ["48.1", "266.0"]),
        ([1234.5, 2.0], ["1,234", "2"]),
        ([0.0, 5.0], ["0.00", "5.00"]),
        ([], []),
    ],
)
def test_figures_of_a_column(values: list[float], texts: list[str]) -> None:
    assert aligned(values) == texts


@given(st.lists(FIGURES, min_size=1, max_size=8), st.integers(5, 9))
def test_a_column_has_one_number_of_decimals_and_no_more_than_rounding_is_lost(
    values: list[float], widest: int
) -> None:
    texts = aligned(values, widest=widest)
    decimals = {len(text.partition(".")[2]) for text in texts}
    assert len(decimals) == 1
    places = decimals.pop()
    for value, text in zip(values, texts, strict=True):
        assert number(text) == pytest.approx(value, abs=0.5 * 10**-places * 1.0001)
    if places:
        assert max(map(len, texts)) <= widest


@given(st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=8))
def test_units_are_those_of_the_largest(seconds: list[float]) -> None:
    unit, texts = seconds_column(seconds)
    assert unit == ("s" if max(seconds) >= 10 else "ms")
    assert number(texts[seconds.index(max(seconds))]) == pytest.approx(
        max(seconds) * (1 if unit == "s" else 1e3), rel=0.006, abs=6e-4
    )


def test_units_of_bytes_and_counts() -> None:
    assert bytes_column([6.76e9, 220e6]) == ("GB", ["6.760", "0.220"])
    assert counts_column([1234567.0, 5e5]) == ("k ", ["1,235", "500"])
    assert counts_column([12.0, 3.4]) == ("", ["12.00", "3.40"])


def test_what_finds_no_room_is_left_out_before_a_digit_is_cut() -> None:
    columns = [
        Column("name", ["x" * 8], words=True),
        *(Column(f"c{n}", ["123,456"], spared=n) for n in range(9)),
    ]
    wide, narrow = (printed(table(columns, [None], width), width) for width in (80, 40))
    assert wide[-1].count("123,456") == 9
    assert narrow[-1].count("123,456") == 4
    assert narrow[0].split() == ["name", "c0", "c1", "c2", "c3"]
    assert "…" not in "".join(narrow)


@given(
    axes=st.lists(st.sampled_from(("cluster", "routing", "schedule", "context", "bandwidth")), unique=True),
    scale=st.floats(1e-3, 1e3),
    price=st.none() | st.floats(1e-3, 1e3),
)
def test_no_digit_of_a_sweep_is_cut(axes: list[str], scale: float, price: float | None) -> None:
    """Axes of words and of numbers, figures from a small model's to a slow cluster's."""
    words = {"cluster": "gb200-nvl72+efa", "routing": "log-normal:0.6", "schedule": "chunks:16"}
    at = {name: words.get(name, 131072.0) for name in axes}
    base = sweep()
    points = [
        point.model_copy(
            update={
                "at": point.at | at,
                "step_seconds": point.step_seconds * scale,
                "tokens_per_second_per_gpu": point.tokens_per_second_per_gpu / scale,
                "peak_memory_bytes": point.peak_memory_bytes * 30,
                "price_per_million_tokens": price,
            }
        )
        for point in base.points
    ]
    named = [axis for axis in base.axes if axis.name not in at]
    more = [SweepAxis(name=name, label=name, values=[value]) for name, value in at.items()]
    shown = printed(
        sweep_table(SweepResult.model_validate({**dict(base), "axes": named + more, "points": points}), 80)
    )
    text = "\n".join(shown)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in shown) <= 80
    for name in ("step", "/GPU", *(["price"] if price else [])):
        assert name in text
    rates = counts_column([point.tokens_per_second_per_gpu for point in points], widest=7)[1]
    assert set(rates) <= set(text.split())


def test_what_is_not_finite_is_a_dash() -> None:
    assert aligned([float("inf"), 2.5, float("nan")]) == ["-", "2.50", "-"]
    assert aligned([float("inf")]) == ["-"]
    assert seconds_column([float("inf"), 0.5]) == ("ms", ["-", "500"])
