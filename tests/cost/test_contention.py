"""Overlap: between the longer of the two and both in turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.cost.contention import overlapped_seconds
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.kernels import ContentionKernel

H100 = load_cluster("h100-sxm")
times = st.floats(0, 100)


def slowed(compute: float, communication: float) -> Cluster:
    kernel = ContentionKernel(source="a test", compute_slowdown=compute, communication_slowdown=communication)
    return H100.model_copy(update={"kernels": H100.kernels.model_copy(update={"contention": kernel})})


def test_the_documented_example():
    assert overlapped_seconds(slowed(1.25, 1.25), 4, 2) == pytest.approx(4.5)


def test_no_slowdown_hides_the_shorter_wholly():
    assert overlapped_seconds(slowed(1, 1), 4, 2) == pytest.approx(4)


@given(times, times, st.floats(1, 4), st.floats(1, 4))
def test_between_the_longer_and_the_sum(compute: float, transfer: float, one: float, other: float):
    span = float(overlapped_seconds(slowed(one, other), compute, transfer))
    assert max(compute, transfer) * (1 - 1e-9) <= span <= (compute + transfer) * (1 + 1e-9)
