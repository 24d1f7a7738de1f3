"""The planner counts on the replica that the runtime takes: both rules on the same tokens."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.placement.examples import topology  # noqa: E402
from wingspan.placement.balanced import balanced  # noqa: E402
from wingspan.placement.exact import replica_of  # noqa: E402
from wingspan.runtime.dispatch.slots import SlotMap  # noqa: E402
from wingspan.runtime.ranks.world import World  # noqa: E402


@pytest.mark.parametrize("per_node", [1, 2, 4])
def test_ranks_chosen_are_the_runtimes(per_node):
    rng = np.random.default_rng(per_node)
    placement = balanced(rng.lognormal(0, 2, (1, 6)), 8, 2)
    picks = rng.random((30, 6)).argsort(axis=1)[:, :3]
    for rank in range(8):
        world = World(rank=rank, size=8, ranks_per_node=per_node, local_rank=rank % per_node)
        theirs = SlotMap(placement, 0, world, torch.device("cpu"))(torch.tensor(picks))[0].numpy()
        home = np.full(30, rank)
        ours = (
            replica_of(placement.slots_LRS[0], picks, home, np.arange(30) + rank, topology(8, per_node), 6)
            // 2
        )
        assert np.array_equal(ours, theirs)
