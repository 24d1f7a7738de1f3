"""What a testbed writes into a command's environment is read back; damage is named."""

from __future__ import annotations

import pytest

from wingspan.errors import InputError, RunError
from wingspan.runtime.ranks.nodes import Node, Nodes, enter, nodes_from_environment

NODES = Nodes(
    (Node("wingspan-a-node0", "10.77.0.1", "eth0"), Node("wingspan-a-node1", "10.77.0.2", "eth0")), 3
)


def test_round_trip():
    assert nodes_from_environment(NODES.to_environment()) == NODES
    assert nodes_from_environment({}) is None


def test_ranks_fill_node_after_node():
    assert NODES.size == 6
    assert [NODES.node_of(r).address for r in range(6)] == ["10.77.0.1"] * 3 + ["10.77.0.2"] * 3


@pytest.mark.parametrize("change", [{"WINGSPAN_NODES": "a/b"}, {"WINGSPAN_RANKS_PER_NODE": "two"}])
def test_damage_is_named(change):
    with pytest.raises(InputError, match="WINGSPAN_NODES="):
        nodes_from_environment(NODES.to_environment() | change)


def test_a_node_that_is_gone_is_named():
    with pytest.raises(RunError, match="no-such-node"):
        enter(Node("no-such-node", "10.77.0.1", "eth0"))
