import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.routing import shares


def test_uniform_shares() -> None:
    assert shares.uniform(2, 8, 2).tolist() == [[0.25] * 8] * 2


def test_what_exceeds_one_goes_to_the_others() -> None:
    assert shares.as_shares([[6, 1, 1]], 2).tolist() == [[1.0, 0.5, 0.5]]


@given(
    st.lists(st.floats(0, 1e6), min_size=4, max_size=40).filter(lambda c: sum(x > 1e-3 for x in c) >= 4),
    st.integers(1, 4),
)
def test_shares_sum_to_top_k_and_stay_probabilities(counts: list[float], top_k: int) -> None:
    got = shares.as_shares([counts], top_k)
    assert got.sum() == pytest.approx(top_k)
    assert got.min() >= 0
    assert got.max() <= 1 + 1e-9


def test_layers_differ_but_the_law_is_one() -> None:
    law = shares.power_law(3, 16, 2, exponent=1.0, seed=5)
    assert not np.array_equal(law[0], law[1])
    assert np.sort(law, axis=1)[0] == pytest.approx(np.sort(law, axis=1)[1])
    assert law[0].max() / np.sort(law[0])[-2] == pytest.approx(2.0)
    assert np.array_equal(law, shares.power_law(3, 16, 2, exponent=1.0, seed=5))


def test_no_spread_is_uniform() -> None:
    for got in (shares.power_law(2, 8, 2, 0.0, 1), shares.log_normal(2, 8, 2, 0.0, 1)):
        assert got == pytest.approx(shares.uniform(2, 8, 2))


def test_drawn_loads_keep_the_sum_and_approach_the_shares() -> None:
    wanted = shares.power_law(4, 16, 2, 0.7, seed=2)
    drawn = shares.draw_loads(wanted, tokens=100_000, parts=2, seed=3)
    assert drawn.shape == (2, 4, 16)
    assert drawn.sum(axis=(0, 2)).tolist() == [200_000.0] * 4
    assert drawn.sum(axis=0) / 100_000 == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(("counts", "words"), [([[1, -1, 1]], "at least 0"), ([[1, 0, 0]], "fewer experts")])
def test_unfit_counts_are_named(counts: list[list[float]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        shares.as_shares(counts, 2)
