"""Ranks with unlike numbers of tokens, and layers with unlike loads: who is fullest holds all others up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec
from wingspan.report.step_accounts import time_account
from wingspan.schedule.result import Operation
from wingspan.simulate.memory import largest_batch, memory_use
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict, simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, RecordedRouting, Workload

_MODEL, _CLUSTER = load_model("qwen3-235b-a22b"), load_cluster("h100-sxm")
_PLAIN = Options()


def deployment(spread: float, options: Options = _PLAIN, **work: Any) -> Deployment:
    given = {"tokens_per_gpu": 16, "context": Context(mean_tokens=1024), "tokens_spread": spread} | work
    return Deployment(
        model=_MODEL,
        cluster=_CLUSTER.with_gpus(16),
        workload=Workload.model_validate(given),
        placement=PlacementSpec(ranks=16, experts_per_rank=8),
        options=options,
    )


@settings(max_examples=40, deadline=None)
@given(
    spreads=st.tuples(st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([0.5, 1.0, 2.0])),
    tokens=st.sampled_from([1, 8, 128, 4096]),
    phase=st.sampled_from(["decode", "prefill"]),
    options=st.sampled_from(
        [
            Options(),
            Options(dispatcher="hierarchical"),
            Options(attention_ranks=4),
            Options(schedule="chunks:3"),
        ]
    ),
    seed=st.integers(0, 99),
)
def test_more_spread_is_never_faster(
    spreads: tuple[float, float], tokens: int, phase: str, options: Options, seed: int
) -> None:
    work = {
        "phase": phase,
        "tokens_per_gpu": tokens,
        "context": Context(mean_tokens=min(tokens, 512)),
        "seed": seed,
    }
    less, more = (simulate(deployment(spread, options, **work)) for spread in spreads)
    assert more.tokens == less.tokens
    # Overlap hides more of a transfer beside longer computing; and few sequences are whole ones.
    rounding = 0.01 if spreads[0] else 1e-9
    overlapped = 0.02 if options.schedule != "sequential" else 0.0
    assert more.step_seconds >= less.step_seconds * (1 - rounding - overlapped)


@settings(max_examples=30, deadline=None)
@given(spread=st.floats(0.01, 3), tokens=st.integers(1, 300), seed=st.integers(0, 99))
def test_tokens_are_whole_and_as_many_in_all(spread: float, tokens: int, seed: int) -> None:
    unlike = deployment(spread, tokens_per_gpu=tokens, seed=seed)
    assert unlike.tokens_R.sum() == unlike.tokens == 16 * tokens
    assert (unlike.tokens_R >= 0).all()
    assert np.array_equal(unlike.tokens_R, np.rint(unlike.tokens_R))


def test_the_others_wait_at_every_exchange_for_the_fullest() -> None:
    even, unlike = (simulate(deployment(spread, tokens_per_gpu=128)) for spread in (0.0, 0.5))
    for report in (even, unlike):
        assert sum(time_account(report).values()) == pytest.approx(report.step_seconds)
    waits = np.array(unlike.operation_seconds[Operation.WAIT])
    attention = np.array(unlike.operation_seconds[Operation.ATTENTION])
    assert waits.mean() > 5 * np.mean(even.operation_seconds[Operation.WAIT])
    assert waits.argmin() == attention.argmax()
    assert np.corrcoef(waits, attention)[0, 1] < -0.9


def test_memory_is_that_of_the_fullest() -> None:
    even, unlike = deployment(0.0), deployment(0.5)
    assert memory_use(unlike).total_R.max() > memory_use(even).total_R.max()
    most = largest_batch(unlike)
    assert most < 0.8 * largest_batch(even)
    fits, over = (memory_use(deployment(0.5, tokens_per_gpu=batch)).fits for batch in (most - 2, most + 2))
    assert fits
    assert not over


def test_two_ways_of_saying_who_has_how_many_are_refused() -> None:
    with pytest.raises(ValidationError, match="total_sequences 3 are spread evenly; leave one out"):
        deployment(0.5, total_sequences=3, tokens_per_gpu=1)
    recorded = RecordedRouting(trace="t.parquet", loads=((1.0,) * 128,))
    with pytest.raises(ValidationError, match=r"t\.parquet says on which rank each token lives"):
        deployment(0.5, routing=recorded)


def test_each_layer_has_the_loads_that_its_file_says() -> None:
    """Hot spots that differ from layer to layer: their mean looks even, and is faster."""
    layers, ranks = len(_MODEL.moe_layers), 16
    hot_L = np.arange(layers) % ranks
    loads_LE = np.ones((layers, 128))
    loads_LE[np.arange(layers), 8 * hot_L] = 200

    def predicted(loads: np.ndarray) -> Prediction:
        recorded = RecordedRouting(loads=tuple(map(tuple, loads.tolist())))
        return predict(deployment(0.0, tokens_per_gpu=2048, routing=recorded, fluctuating=False))

    found = predicted(loads_LE)
    assert np.array_equal(found.moe.experts_PLR[0].argmax(axis=1), hot_L)
    mean = predicted(np.tile(loads_LE.mean(axis=0), (layers, 1)))
    assert found.timeline.step_seconds > 1.1 * mean.timeline.step_seconds
