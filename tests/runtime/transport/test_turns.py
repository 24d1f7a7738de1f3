"""Exchanges in turns: every row once, one partner node a turn, and the same result as all at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.forked import on_ranks
from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.runtime.transport.turns import Exchange, is_bulk, turns


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_turns_carry_every_row_once(nodes, per_node, data):
    size = nodes * per_node
    rank = data.draw(st.integers(0, size - 1))
    counts = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    sent_R, received_R = data.draw(counts), data.draw(counts)
    sent = torch.arange(sum(sent_R))[:, None]
    received = torch.zeros((sum(received_R), 1), dtype=torch.int64)
    world = World(rank, size, per_node, rank % per_node)
    rows = []
    for number, turn in enumerate(turns(Exchange(received, sent, received_R, sent_R), world)):
        partners = {world.node_of(r) for r, n in enumerate(turn.sent_R) if n}
        assert partners <= {(world.node + number) % nodes}
        assert {world.node_of(r) for r, n in enumerate(turn.received_R) if n} <= {
            (world.node - number) % nodes
        }
        assert (len(turn.sent_NB), len(turn.received_NB)) == (sum(turn.sent_R), sum(turn.received_R))
        rows += turn.sent_NB.flatten().tolist()
        turn.received_NB.add_(1)  # views of the whole
    assert sorted(rows) == list(range(sum(sent_R)))
    assert received.flatten().tolist() == [1] * sum(received_R)


@pytest.mark.parametrize("shared", [False, True])
def test_bulk_equals_all_at_once(shared, tmp_path):
    """8 ranks that count as 4 nodes; several exchanges under way, waited for in order."""

    def work(gloo: Transport) -> bool:
        transport = SharedMemoryTransport(gloo) if shared else gloo
        world, equal = gloo.world, True
        for step in range(20):
            rng = np.random.default_rng(step)
            rows_RR = rng.integers(0, 4, (world.size, world.size)) * (
                rng.random((world.size, world.size)) < 0.7
            )
            sent_R, received_R = rows_RR[world.rank].tolist(), rows_RR[:, world.rank].tolist()
            sent = torch.randn(
                sum(sent_R), 3, generator=torch.Generator().manual_seed(100 * step + world.rank)
            )
            results = [torch.empty((sum(received_R), 3)) for _ in range(3)]
            pending = [
                transport.exchange_rows(result, sent, received_R, sent_R, bulk=bulk)
                for result, bulk in zip(results, (False, True, True), strict=True)
            ]
            for p in pending:
                p.wait()
            equal &= torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
        return equal

    assert on_ranks(work, 8, tmp_path, 2) == [True] * 8


def test_rails_take_turns_as_nodes_of_one_rank(tmp_path):
    """Ranks of one place in their nodes are each on another node: their part of the group knows it."""

    def work(transport: Transport) -> tuple[int, int]:
        world = transport.world
        return (
            transport.split(world.local_rank).world.ranks_per_node,
            transport.split(world.node).world.ranks_per_node,
        )

    assert on_ranks(work, 4, tmp_path, 2) == [(1, 2)] * 4


def test_only_much_is_bulk():
    assert is_bulk(8 * 2**22, 8)
    assert not is_bulk(8 * 1024, 8)
