"""Step times between and beyond the points of the grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulate.serving.steps import LinearTimes, grid_times
from wingspan.errors import InputError
from wingspan.schedule.prompts import Piece
from wingspan.schedule.step_load import StepLoad
from wingspan.simulate.serving.times import Surface, step_seconds


def surface(expert: list[list[float]] | None = None) -> Surface:
    zero = [[0.0, 0.0], [0.0, 0.0]]
    return Surface(
        np.array([1.0, 3.0]),
        np.array([10.0, 20.0]),
        np.array(expert or zero),
        np.array([[1.0, 2.0], [3.0, 4.0]]),
    )


def test_the_grid_is_met_and_the_middle_is_the_mean() -> None:
    assert surface().seconds(3, 3, np.array([10.0, 15.0, 20.0])).tolist() == [3.0, 3.5, 4.0]
    assert surface().seconds(2, 2, np.array([15.0])).tolist() == [2.5]


def test_beyond_the_grid_the_slope_goes_on_and_below_it_the_floor_holds() -> None:
    assert surface().seconds(5, 5, np.array([10.0])).tolist() == [5.0]
    assert surface().seconds(1, 1, np.array([30.0])).tolist() == [3.0]
    assert surface().seconds(0.2, 0.2, np.array([1.0])).tolist() == [1.0]


def test_experts_are_paced_by_the_mean_home_the_rest_by_the_fullest() -> None:
    both = surface(expert=[[10.0, 10.0], [30.0, 30.0]])
    assert both.seconds(3, 1, np.array([10.0])).tolist() == [3.0 + 10.0]


def test_a_dip_in_the_measured_grid_is_levelled() -> None:
    dipped = Surface(np.array([1.0, 2.0]), np.array([5.0]), np.zeros((2, 1)), np.array([[3.0], [2.0]]))
    assert dipped.seconds(2, 2, np.array([5.0])).tolist() == [3.0]


@given(st.floats(0.01, 2000), st.floats(0.01, 2000), st.floats(1, 20000), st.floats(1, 20000))
def test_never_falling_in_load_or_context(load: float, more: float, context: float, longer: float) -> None:
    times = grid_times()
    low, high = sorted((load, more))
    short, long = sorted((context, longer))
    slack = 1 + 1e-12
    for seconds in (
        lambda load, context: float(times.decode_seconds(load, load / 2, np.array([context]))[0]),
        lambda load, context: times.prefill_seconds(load, load / 2, context),
    ):
        assert seconds(low, short) <= seconds(high, short) * slack
        assert seconds(low, short) <= seconds(low, long) * slack


def test_a_mixed_step_pays_the_fixed_cost_once() -> None:
    times = LinearTimes(fixed=1.0, token=0.1)
    assert step_seconds(times, (4, 2), 100.0, (10, 6), 5.0) == pytest.approx(1.0 + 0.1 * 10)
    assert step_seconds(times, (0, 0), 0.0, (10, 6), 5.0) == pytest.approx(2.0)


def test_prompts_that_are_computed_apart_take_a_forward_of_their_own() -> None:
    load = StepLoad((2, 0), 40, {1: [Piece(7, begin=0, tokens=30)]})
    mixed, alone = grid_times(), StepLoad((0, 0), 0, load.prompts)
    apart = replace(mixed, prompts_apart=True)
    decode = float(mixed.decode_seconds(2, 1, np.array([20.0]))[0])
    assert apart.seconds(load) == pytest.approx(mixed.prefill_seconds(30, 15, 15.5) + decode)
    assert apart.seconds(load) > mixed.seconds(load)
    assert apart.seconds(alone) == mixed.seconds(alone)


@dataclass(frozen=True)
class HostBoundTimes(LinearTimes):
    """Prompts are launched kernel by kernel: no step that computes some is shorter than that takes."""

    def prefill_seconds(self, fullest_tokens: float, mean_tokens: float, attended_tokens: float) -> float:
        return max(0.5, super().prefill_seconds(fullest_tokens, mean_tokens, attended_tokens))


def test_a_mixed_step_is_launched_as_a_prefill_and_reads_the_cache_beside() -> None:
    times = HostBoundTimes(fixed=0.01, token=0.001, context=1e-4)
    reading = 1e-4 * 4 * (100 - 1)
    assert step_seconds(times, (4, 4), 100.0, (10, 10), 5.0) == pytest.approx(0.5 + reading)


def test_bad_grids_are_refused() -> None:
    with pytest.raises(InputError, match="load axis must rise"):
        Surface(np.array([2.0, 1.0]), np.array([1.0]), np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(InputError, match="has shape"):
        Surface(np.array([1.0, 2.0]), np.array([1.0]), np.zeros((1, 1)), np.zeros((2, 1)))
    with pytest.raises(InputError, match="negative or not finite"):
        Surface(np.array([1.0]), np.array([1.0]), np.array([[-1.0]]), np.zeros((1, 1)))
