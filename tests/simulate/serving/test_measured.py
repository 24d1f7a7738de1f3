"""Step times fitted to measured steps: they give back what was measured, and follow what an engine computes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulate.serving.steps import group
from wingspan.errors import InputError
from wingspan.schedule.prompts import Piece
from wingspan.schedule.step_load import StepLoad
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.measured import MeasuredStep, RecordedTimes, fitted
from wingspan.specs.requests import Requests


def _true_seconds(load: StepLoad) -> float:
    """A forward of decode costs 5 ms, each sequence 1 ms on the mean rank, each prompt's forward 8 ms."""
    seconds = 0.0
    if load.decoding[0]:
        seconds += 5e-3 + 1e-3 * load.decoding[1] + 1e-6 * load.decoding[1] * load.mean_context
    for forward in load.prompt_forwards:
        columns = [len(pieces) * max(piece.tokens for piece in pieces) for pieces in forward]
        seconds += 8e-3 + 2e-5 * max(columns) + 1e-3 * sum(map(len, forward))
    return seconds


def _drawn(seed: int, count: int) -> list[StepLoad]:
    rng = np.random.default_rng(seed)
    loads = []
    for _ in range(count):
        decoding_H = tuple(rng.integers(0, 12, 3).tolist())
        prompts = {
            home: [Piece(n, 0, int(rng.integers(1, 200))) for n in range(rng.integers(1, 4))]
            for home in range(3)
            if rng.random() < 0.3
        }
        if sum(decoding_H) or prompts:
            loads.append(StepLoad(decoding_H, sum(decoding_H) * int(rng.integers(20, 300)), prompts))
    return loads


def test_other_steps_are_predicted_from_those_measured() -> None:
    times = fitted([MeasuredStep(load, _true_seconds(load)) for load in _drawn(0, 600)])
    for load in _drawn(1, 200):
        assert times.seconds(load) == pytest.approx(_true_seconds(load), rel=0.02)
        if not load.prompts:
            alone = times.decode_seconds(*load.decoding, np.array([load.mean_context]))
            assert alone == pytest.approx([times.seconds(load)])


def test_noise_that_is_even_does_not_bend_the_mean() -> None:
    rng = np.random.default_rng(2)
    steps = [MeasuredStep(load, _true_seconds(load) * rng.lognormal(-0.08, 0.4)) for load in _drawn(3, 4000)]
    times = fitted(steps)
    predicted = sum(times.seconds(load) for load in _drawn(4, 500))
    assert predicted == pytest.approx(sum(map(_true_seconds, _drawn(4, 500))), rel=0.03)


def test_more_is_never_faster() -> None:
    times = fitted([MeasuredStep(load, _true_seconds(load)) for load in _drawn(5, 400)])
    contexts = np.array([10.0, 100.0, 1000.0])
    few, many = times.decode_seconds(2, 1.5, contexts), times.decode_seconds(9, 4.0, contexts)
    assert (np.diff(few) >= 0).all()
    assert (many >= few).all()


def test_a_run_is_replayed_step_by_step() -> None:
    """With times that differ from step to step, each is met once and in order, however far steps could leap."""
    seconds = [0.5, 0.25, 1.0, 2.0, 0.125]
    spec = group(RecordedTimes(seconds), homes=1)
    served = serve(Requests(np.array([0.0, 0.6]), np.array([5, 5]), np.array([5, 1])), Fleet(spec))
    assert served.first_token_seconds_N.tolist() == [0.5, 1.75]
    assert served.finish_seconds_N.tolist() == [sum(seconds), 1.75]
    assert served.groups[0].steps == 5


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(InputError, match="3 measured steps are too few"):
        fitted([MeasuredStep(load, 1.0) for load in _drawn(6, 20)[:3]])
    with pytest.raises(InputError, match="0 measured steps"):
        fitted([])
