"""The routing trace holds what it says, or says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from wingspan.errors import InputError
from wingspan.routing.trace import RoutingTrace, concatenate


def trace(**changes) -> RoutingTrace:
    """Three tokens, two layers, top-2 of four experts."""
    parts = {
        "experts_TLK": np.array([[[0, 1], [2, 3]], [[3, 1], [0, 2]], [[2, 0], [1, 3]]], dtype=np.int16),
        "home_rank_T": np.array([0, 1, 0], dtype=np.int32),
        "request_T": np.array([5, 6, 5], dtype=np.int32),
        "step_T": np.array([0, 0, 1], dtype=np.int32),
        "num_experts": 4,
    }
    return RoutingTrace(**{**parts, **changes})


def test_shape_and_ranks():
    made = trace()
    assert (made.num_tokens, made.num_layers, made.top_k, made.num_ranks) == (3, 2, 2, 2)
    assert trace(num_ranks=8).num_ranks == 8
    with pytest.raises(ValueError, match="read-only"):
        made.experts_TLK[0] = 1


def test_an_empty_trace_is_valid():
    nothing = trace().take(slice(0, 0))
    assert (nothing.num_tokens, nothing.num_ranks) == (0, 2)


def test_chunks_join_to_the_whole():
    made = trace(num_ranks=4)
    assert concatenate(list(made.chunks(2))) == made
    assert made.take(np.array([True, False, True])).request_T.tolist() == [5, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 0}, "0 experts per layer"),
        ({"num_experts": 3}, "token 0, MoE layer 1 names expert 3; experts are 0..2"),
        ({"experts_TLK": np.zeros((3, 2), np.int16)}, "got shape"),
        ({"experts_TLK": np.zeros((3, 0, 2), np.int16)}, "got shape"),
        ({"experts_TLK": np.zeros((3, 2, 2))}, "holds float64"),
        ({"experts_TLK": np.full((3, 2, 1), 70_000)}, "beyond"),
        ({"experts_TLK": np.zeros((3, 2, 2), np.int16)}, "token 0, MoE layer 0 picks expert 0 twice"),
        ({"experts_TLK": np.zeros((3, 2, 5), np.int16)}, "top-5 of 4"),
        ({"request_T": np.zeros(2, np.int32)}, "request_T has shape"),
        ({"home_rank_T": np.array([0, -1, 0])}, "token 1 has home_rank_T -1"),
        ({"num_ranks": 1}, "lives on rank 1, there are 1 ranks"),
        ({"num_ranks": -1}, "there are -1 ranks"),
        ({"step_T": np.array([0, 2, 1])}, "token 2 is of step 1"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        trace(**changes)


def test_pieces_that_differ_do_not_join():
    with pytest.raises(InputError, match="top-2 of 4 experts; then 2 layers, top-2 of 5"):
        concatenate([trace(), trace(num_experts=5)])
    with pytest.raises(InputError, match="no piece"):
        concatenate([])
