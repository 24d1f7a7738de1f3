from __future__ import annotations

import numpy as np
import pytest

from tests.placement.examples import topology
from wingspan.errors import InputError


def test_ranks_nodes_and_cards():
    cluster = topology(8, 4, cards_per_node=2)
    assert cluster.nodes == 2
    assert cluster.node_of(np.arange(8)).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert cluster.card_of(np.arange(8)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert topology(8, 4).card_of(np.arange(8)).tolist() == list(range(8))
    assert topology(8, 4).across_seconds_per_row == 2 * 14336 / 45e9


@pytest.mark.parametrize(
    ("ranks", "per_node", "changes", "says"),
    [
        (6, 4, {}, "6 ranks do not fill whole nodes of 4"),
        (0, 1, {}, "0 ranks"),
        (8, 4, {"across_bytes_per_second": 0}, "across_bytes_per_second is 0"),
        (8, 4, {"seconds_per_token": -1}, "seconds_per_token is -1"),
        (8, 4, {"cards_per_node": 3}, "do not share 3 network cards evenly"),
    ],
)
def test_what_cannot_be_is_named(ranks, per_node, changes, says):
    with pytest.raises(InputError, match=says):
        topology(ranks, per_node, **changes)
