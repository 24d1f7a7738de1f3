"""Expected distinct groups against the numbers of docs/design.md and against counting every choice."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.routing.distinct import expected_distinct


@pytest.mark.parametrize(
    ("nodes", "expected"), [(1, 1.0), (2, 1.99), (4, 3.61), (8, 5.29), (16, 6.52), (32, 7.27)]
)
def test_256_experts_top_8(nodes: int, expected: float):
    assert expected_distinct(256, 8, nodes) == pytest.approx(expected, abs=0.006)


@given(experts=st.integers(1, 8), top_k=st.integers(1, 8), groups=st.integers(1, 8))
def test_exactly_the_mean_over_all_choices(experts: int, top_k: int, groups: int):
    if top_k > experts:
        return
    size, more = divmod(experts, groups)
    group_of = [g for g in range(groups) for _ in range(size + (g < more))]
    choices = list(combinations(range(experts), top_k))
    mean = sum(len({group_of[e] for e in choice}) for choice in choices) / len(choices)
    assert expected_distinct(experts, top_k, groups) == pytest.approx(mean)


@pytest.mark.parametrize("arguments", [(4, 5, 2), (4, 0, 2), (4, 2, 0)])
def test_no_such_choice(arguments: tuple[int, int, int]):
    with pytest.raises(InputError, match="no such choice"):
        expected_distinct(*arguments)
