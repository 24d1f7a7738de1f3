from __future__ import annotations

import numpy as np
import pytest

from wingspan.errors import InputError
from wingspan.placement.difference import difference
from wingspan.placement.simple import linear, random
from wingspan.specs.placement import EMPTY, Placement


def placement(slots, experts=4) -> Placement:
    return Placement(np.array(slots), experts)


def test_only_experts_new_on_a_rank_move():
    old = placement([[[0, 1], [2, 3]]])
    assert difference(old, placement([[[1, 0], [3, 2]]])).experts == 0
    change = difference(old, placement([[[0, 2], [1, 3]]]), expert_bytes=10)
    assert change.fetched_LR.tolist() == [[1, 1]]
    assert change.total_bytes == 20
    assert change.bytes_R.tolist() == [10, 10]


def test_empty_slots_cost_nothing_and_new_ranks_fetch_all():
    old = placement([[[0, 1], [2, 3]]])
    assert difference(
        old, placement([[[0, 1, EMPTY], [2, 3, 0], [EMPTY, 1, EMPTY]]])
    ).fetched_LR.tolist() == [[0, 1, 1]]


def test_a_move_and_back_fetch_the_same_number_without_replicas():
    one, two = linear(3, 12, 4, 3), random(3, 12, 4, 3, seed=1)
    assert difference(one, two).experts == difference(two, one).experts > 0
    assert difference(one, one).experts == 0


def test_other_models_are_refused():
    with pytest.raises(InputError, match="1 layers of 4 experts, then 2 layers of 4"):
        difference(linear(1, 4, 4), linear(2, 4, 4))
