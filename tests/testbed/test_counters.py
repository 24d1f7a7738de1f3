"""Kernel bytes and the runtime's bytes meet per node."""

from __future__ import annotations

from wingspan.testbed.counters import LinkCount, difference, reconcile


def test_difference_is_what_came_after():
    early, late = LinkCount(10, 20, 1, 2), LinkCount(15, 29, 4, 8)
    assert difference([early], [late]) == [LinkCount(5, 9, 3, 6)]


def test_reconcile_sums_ranks_steps_and_phases():
    links = [LinkCount(2200, 0, 0, 0), LinkCount(50, 0, 0, 0)]
    reports = [
        {"ranks_per_node": 2, "steps": 1, "sent_across_nodes_bytes": [500, 500, 0, 0]},
        {"ranks_per_node": 2, "steps": 10, "sent_across_nodes_bytes": [60, 40, 0, 0]},
    ]
    busy, idle = reconcile(links, reports)
    assert (busy.rows_bytes, busy.ratio) == (2000, 1.1)
    assert (idle.rows_bytes, idle.ratio) == (0, None)
