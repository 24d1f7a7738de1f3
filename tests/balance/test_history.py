"""Loads and costs as the controller learns them, checked by hand.

Shapes: L layers, E experts, R ranks.
"""

from __future__ import annotations

import numpy as np
import pytest

from wingspan.balance.history import History
from wingspan.balance.load_report import LoadReport


def report(load: list[list[int]], rows: list[int], seconds: float = 0.0, steps: int = 4) -> LoadReport:
    sample = np.zeros((len(load), 0, 0), dtype=np.int16)
    return LoadReport(
        steps, np.array(load, dtype=np.int32), sample, np.array(rows), seconds, 0.5, 0.6, 0.9, 0.0
    )


def test_the_mean_fades_and_the_window_does_not():
    """Half-life of one report: a load of 8, then of 0 tokens per step, leaves (8 x 1/4) / (3/4)."""
    history = History(num_nodes=2, half_life_steps=4)
    history.add([report([[32, 0]], [8]), report([[0, 0]], [8])])
    assert history.load_LE.tolist() == [[8.0, 0.0]]
    assert history.source_LEG.tolist() == [[[8.0, 0.0], [0.0, 0.0]]]
    history.add([report([[0, 0]], [8]), report([[0, 16]], [0])])
    assert history.load_LE == pytest.approx(np.array([[8 / 3, 8 / 3]]))
    assert history.source_LEG[0, 1] == pytest.approx([0, 8 / 3])
    assert history.window_load_LE.tolist() == [[4.0, 2.0]]
    history.add([report([[0, 0]], [8]), report([[0, 0]], [8])])
    assert history.window_load_LE.tolist() == [[0.0, 2.0]]


def test_imbalance_is_taken_per_layer_and_then_averaged():
    history = History(1, 4)
    history.add([report([[1], [1]], [3, 1]), report([[1], [1]], [1, 3])])
    assert history.imbalance == 1.5


def test_a_row_costs_the_slope_not_the_calls():
    """0.1 s without any row, 1 ms for each."""
    history = History(1, 4)
    history.add([report([[1]], [rows], 0.1 + rows * 1e-3) for rows in (10, 100, 400)])
    assert history.seconds_per_row == pytest.approx(1e-3)
    # All alike says nothing about the slope; what is known stays.
    for _ in range(20):
        history.add([report([[1]], [100], 5.0) for _ in range(3)])
    assert history.seconds_per_row == pytest.approx(1e-3, rel=0.5)


def test_without_a_spread_a_row_costs_its_share():
    history = History(1, 4)
    history.add([report([[1]], [100], 0.2) for _ in range(3)])
    assert history.seconds_per_row == pytest.approx(2e-3)
