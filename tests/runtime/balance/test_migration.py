"""Experts move while steps go on, and every step gives what the whole model gives."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.balance.placements import random_placement
from tests.runtime.balance.layers import Rank
from tests.runtime.forked import on_ranks
from wingspan.balance.orders import Order
from wingspan.runtime.balance.migration import Migration
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.placement import EMPTY, Placement

MOST_STEPS = 2000


def carry_out(rank: Rank, migration: Migration, step: int) -> tuple[int, float]:
    """Steps until the migration is through; the last step and the largest error of any."""
    worst = 0.0
    while migration.layer is not None:
        step += 1
        worst = max(worst, rank.step(step))
        migration.after_step(step)
        time.sleep(0.001)
        if step > MOST_STEPS:
            raise RuntimeError(f"layer {migration.layer} still under way after {step} steps")
    return step, worst


@pytest.mark.parametrize(("slots", "experts"), [(1, 3), (2, 6)])
@pytest.mark.parametrize("pack", [True, False])
def test_any_placements_one_after_another_give_the_same_outputs(tmp_path, slots, experts, pack):
    """Seven random placements of two layers on four ranks: replicas, empty slots, ranks that lose or gain all."""

    def work(transport: Transport) -> list[str]:
        rng = np.random.default_rng((slots, pack))
        placement = random_placement(rng, 2, experts, 4, slots)
        rank = Rank(transport, placement, pack=pack)
        site, step, tag, wrong = rank.site(), 0, 100, []
        for number in range(7):
            target = random_placement(rng, 2, experts, 4, slots)
            order = Order(target, step_bytes=int(rng.integers(100, 5000)), arrival_seconds=30)
            migration = Migration(order, placement, site, step, tag)
            step, worst = carry_out(rank, migration, step)
            placement, tag = migration.placement, migration.next_tag
            if placement != target or migration.rollbacks:
                wrong.append(f"migration {number} ended elsewhere: {migration.rollbacks}")
            if worst > 1e-5 or rank.step(step) > 1e-5:
                wrong.append(f"migration {number}: outputs off by {worst}")
            held = [len(placement.experts_on(i, transport.world.rank)) for i in range(2)]
            weights = [layer.experts.weight_bytes for layer in rank.layers]
            if weights != [h * layer.experts.slot_bytes for h, layer in zip(held, rank.layers, strict=True)]:
                wrong.append(f"migration {number}: {weights} bytes for {held} experts")
        return wrong

    assert on_ranks(work, 4, tmp_path, ranks_per_node=2) == [[]] * 4


def test_a_step_carries_no_more_than_its_share(tmp_path):
    """One expert in pieces of a tenth: at least ten steps, and committed on all ranks at the same one."""
    old = Placement(np.array([[[0], [1], [EMPTY]]]), 2)
    new = Placement(np.array([[[0], [1], [1]]]), 2)

    def work(transport: Transport) -> tuple[int, int, int]:
        rank = Rank(transport, old)
        step_bytes = rank.layers[0].experts.slot_bytes // 10
        migration = Migration(Order(new, step_bytes, 30), old, rank.site(), 0, 100)
        last, worst = carry_out(rank, migration, 0)
        assert worst < 1e-5
        return (
            last,
            migration.outcome.experts_moved,
            migration.most_staging_bytes // rank.layers[0].experts.slot_bytes,
        )

    results = on_ranks(work, 3, tmp_path)
    assert results[0][0] >= 10
    assert [r[0] for r in results] == [results[0][0]] * 3
    assert [r[1:] for r in results] == [(1, 0), (1, 1), (1, 2)]
