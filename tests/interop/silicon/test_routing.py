"""The rebuilt synthetic routing keeps its own rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.interop.silicon.routing import power_law_rows, uniform_rows


@given(
    tokens=st.integers(1, 3000),
    ranks=st.sampled_from([1, 2, 8, 32]),
    exponent=st.sampled_from([0.6, 1.01, 1.2]),
    seed=st.integers(0, 100),
)
def test_the_fullest_rank(tokens: int, ranks: int, exponent: float, seed: int):
    rows_NS = power_law_rows(tokens, 32, 4, ranks, exponent, draws=3, seed=seed)
    assert rows_NS.shape == (3, 32 // ranks)
    assert (rows_NS == np.rint(rows_NS)).all()
    assert rows_NS.min() >= 0
    assert rows_NS.max() <= tokens
    # No rank has more than the fullest: it holds at least the mean.
    assert (rows_NS.sum(axis=1) >= tokens * 4 / ranks).all()


def test_all_rows_are_there_on_one_rank():
    assert power_law_rows(1000, 32, 4, 1, 1.2, draws=5).sum(axis=1).tolist() == [4000] * 5


def test_a_steeper_law_is_more_skewed():
    flat, steep = (power_law_rows(4096, 256, 8, 256, a, draws=20).mean() for a in (0.6, 1.2))
    assert steep > 1.5 * flat


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (64, [2.0, 2.0, 2.0, 2.0]),  # 64 rows over 32 experts
        (16, [1.0, 1.0, 0.0, 0.0]),  # fewer rows than experts: 2 for each of 8 ranks, on their first slots
    ],
)
def test_uniform_rows(tokens: int, expected: list[float]):
    assert uniform_rows(tokens, 32, 1, 8).tolist() == [expected]
