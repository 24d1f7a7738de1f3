"""FP8 rows come back within the stated bound, whatever they hold; around a dispatcher they change nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.dispatch.test_dispatch import expected, make, random_placement, routing, scaled_experts
from tests.runtime.forked import on_ranks
from wingspan.errors import RunError
from wingspan.runtime.dispatch.flat import FlatDispatcher
from wingspan.runtime.dispatch.float8 import (
    ABSOLUTE_ERROR,
    BLOCK,
    RELATIVE_ERROR,
    decode,
    encode,
    packed_bytes,
)
from wingspan.runtime.dispatch.precision import Precision, PrecisionDispatcher
from wingspan.runtime.transport.transport import LocalTransport, Transport
from wingspan.specs.placement import Placement


def bound(x_ND: torch.Tensor) -> torch.Tensor:
    """The promised error of every value."""
    N, D = x_ND.shape
    blocks = torch.nn.functional.pad(x_ND, (0, -D % BLOCK)).view(N, -(-D // BLOCK), BLOCK).abs()
    largest_ND = blocks.amax(-1, keepdim=True).expand_as(blocks).flatten(1)[:, :D]
    # One part in 2**20 for the two float32 operations, division by the scale and multiplication with it.
    return torch.maximum(x_ND.abs() * RELATIVE_ERROR, largest_ND * ABSOLUTE_ERROR) * (1 + 2.0**-20)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 6), width=st.integers(1, 300), spread=st.integers(0, 12)
)
def test_every_value_is_within_the_bound(seed, rows, width, spread):
    rng = np.random.default_rng(seed)
    magnitude = 10.0 ** rng.uniform(-spread, spread, (rows, width))
    x_ND = torch.tensor(rng.normal(size=(rows, width)) * magnitude, dtype=torch.float32)
    packed = encode(x_ND)
    assert packed.shape == (rows, packed_bytes(width))
    assert ((decode(packed, width, torch.float32) - x_ND).abs() <= bound(x_ND)).all()


def test_the_bound_is_reached():
    """A value just between two steps: the promise is no larger than need be."""
    x_ND = torch.full((1, BLOCK), 448.0)
    x_ND[0, 1] = 17.0  # steps of 2 here: halfway between 16 and 18
    error = (decode(encode(x_ND), BLOCK, torch.float32) - x_ND).abs()[0, 1]
    assert error == 1.0
    assert error > 0.9 * bound(x_ND)[0, 1]


def test_zeros_and_a_lone_outlier():
    """Each block has its own scale: an outlier costs only its neighbours precision."""
    x_ND = torch.zeros((2, 256))
    x_ND[1, :128], x_ND[1, 200] = 1e-3, 1e6
    y_ND = decode(encode(x_ND), 256, torch.float32)
    assert torch.equal(y_ND[0], x_ND[0])
    torch.testing.assert_close(y_ND, x_ND, rtol=RELATIVE_ERROR, atol=0)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(Precision.FLOAT8, RELATIVE_ERROR + 2.0**-7), (Precision.BFLOAT16, 2.0**-7)]
)
def test_around_a_dispatcher_over_ranks(precision, tolerance, tmp_path):
    def work(transport: Transport) -> bool:
        shared = np.random.default_rng(5)
        placement = random_placement(shared, 6, transport.world.size)
        dispatcher = PrecisionDispatcher(make(FlatDispatcher, placement, transport), precision)
        own = np.random.default_rng((5, transport.world.rank))
        experts_TK, weights_TK = routing(own, 7 * transport.world.rank, 6, 2)
        x_TD = torch.tensor(own.uniform(1, 2, (len(experts_TK), 160)), dtype=torch.float32)
        with torch.no_grad():
            (route,) = dispatcher.route(x_TD, experts_TK, weights_TK, 1, lane=0)
            received = dispatcher.send(route).wait()
            y_ND = scaled_experts(placement, transport.world.rank, received.rows_ND, received.counts_S)
            out_TD = dispatcher.send_back(y_ND, received.handle).wait()
        assert out_TD.dtype == received.rows_ND.dtype == torch.float32
        there, back = received.handle.traffic, received.handle.back_traffic
        sent = 160 + 8 if precision == Precision.FLOAT8 else 320
        assert sum(there.sent_R) == x_TD.shape[0] * 2 * sent
        assert sum(back.received_R) == x_TD.shape[0] * 2 * 320
        assert sum(back.sent_R) == len(received.rows_ND) * 320
        wanted_TD = expected(x_TD, experts_TK, weights_TK)
        return bool(((out_TD - wanted_TD).abs() <= 2 * tolerance * wanted_TD.abs()).all())

    assert on_ranks(work, 3, tmp_path) == [True] * 3


def test_gradients_are_refused():
    placement = Placement(np.array([[[0, 1]]]), 2)
    dispatcher = PrecisionDispatcher(make(FlatDispatcher, placement, LocalTransport()), Precision.FLOAT8)
    x_TD = torch.ones((1, 4), requires_grad=True)
    with pytest.raises(RunError, match="as the model computes them"):
        dispatcher.route(x_TD, torch.zeros((1, 1), dtype=torch.int64), torch.ones((1, 1)), 1, lane=0)
