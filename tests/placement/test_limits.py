"""What no placement can change: memory and floors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.placement.examples import objective
from wingspan.errors import InputError
from wingspan.placement.limits import check_memory, limits


def test_memory_names_the_slots_that_fit():
    check_memory(58, 1, 88_080_384, 6e9)
    with pytest.raises(
        InputError, match=r"58 layers x 9 slots x 88.08 MB = 45.98 GB .* use 3 slots per rank"
    ):
        check_memory(58, 9, 88_080_384, 16e9)
    with pytest.raises(InputError, match="one slot per layer needs more memory"):
        check_memory(58, 1, 88_080_384, 1e9)


def test_floors_by_hand():
    found = limits(np.array([[6.0, 1, 1, 0]]), objective(4, 4), 1)
    assert found.hottest_expert == found.floor == 3.0
    # Four spare ranks: the hottest shares 5 of 8 slots, so 1.2 against a mean of 1.
    assert (found.spare_ranks, found.floor_with_spare) == (4, 1.2)
    assert found.floor_with_two < found.floor
