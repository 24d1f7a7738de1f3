"""Error bars: as measured inside the range, wider outside, none where none is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.cost.uncertainty import relative_error
from wingspan.specs.cluster import load_cluster

H100 = load_cluster("h100-sxm")


def test_inside_and_one_doubling_beyond():
    measured = H100.kernels.accuracy["dispatch"]
    inside, beyond = relative_error(H100, "dispatch", [measured.high, 2 * measured.high])
    assert inside == measured.relative_error
    assert beyond == pytest.approx(inside + 0.1)


@given(st.floats(1, 1e6), st.floats(1, 1e3))
def test_further_out_is_never_narrower(ranks: float, factor: float):
    high = H100.kernels.accuracy["dispatch"].high
    near, far = relative_error(H100, "dispatch", np.array([1, factor]) * max(ranks, high))
    assert far >= near


def test_what_was_not_measured_has_wider_bars_or_none():
    assert relative_error(load_cluster("b200"), "dispatch", 64) > relative_error(H100, "dispatch", 64)
    assert relative_error(load_cluster("seed-ideal"), "dispatch", 64) == 0


def test_a_variant_of_the_network_widens_only_what_uses_it():
    roce = load_cluster("h100-sxm+roce")
    assert relative_error(roce, "dispatch", 8) == relative_error(H100, "dispatch", 8)
    assert relative_error(roce, "dispatch", 16) == pytest.approx(relative_error(H100, "dispatch", 16) + 0.28)
    assert relative_error(roce, "experts", 512) == relative_error(H100, "experts", 512)
