"""Requests from files and from a Poisson process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.specs.requests import Requests, poisson_requests, read_requests


def test_poisson_has_the_rate_the_lengths_and_the_spread_asked_for() -> None:
    drawn = poisson_requests(50.0, 20_000, 1000, 200, spread=0.5, seed=4)
    gaps = np.diff(drawn.arrival_seconds_N)
    assert drawn.rate_per_second == pytest.approx(50, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential: deviation equals mean
    for tokens, mean in ((drawn.prompt_tokens_N, 1000), (drawn.output_tokens_N, 200)):
        assert tokens.mean() == pytest.approx(mean, rel=0.03)
        assert tokens.std() / tokens.mean() == pytest.approx(0.5, rel=0.05)


def test_no_spread_makes_all_equal_and_a_seed_repeats() -> None:
    drawn = poisson_requests(1.0, 10, 7, 3, seed=2)
    assert set(drawn.prompt_tokens_N.tolist()) == {7}
    assert set(drawn.output_tokens_N.tolist()) == {3}
    again = poisson_requests(2.0, 10, 7, 3, seed=2)
    assert again.arrival_seconds_N * 2 == pytest.approx(drawn.arrival_seconds_N)


def test_another_rate_keeps_the_rhythm() -> None:
    drawn = poisson_requests(1.0, 100, 7, 3, seed=2)
    faster = drawn.at_rate(40.0)
    assert faster.rate_per_second == pytest.approx(40)
    assert np.diff(faster.arrival_seconds_N) == pytest.approx(
        np.diff(drawn.arrival_seconds_N) * drawn.rate_per_second / 40
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0, 10, 5, 5, 0.0), "rate 0.0"),
        ((float("nan"), 10, 5, 5, 0.0), "rate nan"),
        ((1.0, 0, 5, 5, 0.0), "0 requests"),
        ((1.0, 5, 5, 0, 0.0), "0 output"),
        ((1.0, 5, 5, 5, -1.0), "spread -1.0"),
    ],
)
def test_bad_arrivals_are_refused(arguments: tuple[float, int, int, int, float], words: str) -> None:
    *first, spread = arguments
    with pytest.raises(InputError, match=words):
        poisson_requests(*first, spread=spread)  # type: ignore[arg-type]


def test_files_are_read_and_sorted(tmp_path: Path) -> None:
    table = tmp_path / "r.csv"
    table.write_text("id,arrival_seconds,prompt_tokens,output_tokens\nb,2.5,20,2\na,1,10,1\n")
    lines = tmp_path / "r.jsonl"
    lines.write_text(
        '{"arrival_seconds": 2.5, "prompt_tokens": 20, "output_tokens": 2}\n\n'
        '{"arrival_seconds": 1, "prompt_tokens": 10, "output_tokens": 1}\n'
    )
    for path in (table, lines):
        read = read_requests(path)
        assert read.arrival_seconds_N.tolist() == [1.0, 2.5]
        assert read.prompt_tokens_N.tolist() == [10, 20]
        assert read.output_tokens_N.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.txt", "", "not .txt"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n", "holds no request"),
        ("r.csv", "arrival_seconds,prompt_tokens\n1,2\n", "r.csv:2: lacks output_tokens"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,many,2\n", "r.csv:2: .*many"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,2,inf\n", "finite"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,0,2\n", "prompt_tokens = 0"),
        (
            "r.csv",
            "arrival_seconds,prompt_tokens,output_tokens\n1,1.5,2\n",
            "prompt_tokens = 1.5; use a whole",
        ),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,1e30,2\n", "from 1 to"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n-1,3,2\n", "at least 0"),
        ("r.jsonl", "{oops\n", "r.jsonl:1: not JSON"),
        ("r.jsonl", "[1, 2, 3]\n", "r.jsonl:1: expected an object"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_requests(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_requests(tmp_path / "gone.csv")


def test_requests_that_come_at_once_have_no_rhythm() -> None:
    crowd = Requests(np.zeros(3), np.ones(3, dtype=int), np.ones(3, dtype=int))
    with pytest.raises(InputError, match="one instant"):
        crowd.at_rate(1.0)


@given(st.integers(2, 3000), st.integers(0, 5))
def test_none_is_longer_than_it_is_cut_to_and_shorter_ones_stay(longest: int, seed: int) -> None:
    drawn = poisson_requests(1.0, 200, 500, 200, spread=1.0, seed=seed)
    cut = drawn.cut_to(longest)
    assert not cut.longer_than(longest).any()
    kept = ~drawn.longer_than(longest)
    assert (cut.prompt_tokens_N[kept] == drawn.prompt_tokens_N[kept]).all()
    assert (cut.output_tokens_N[kept] == drawn.output_tokens_N[kept]).all()
