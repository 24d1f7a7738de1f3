"""No token lost or doubled, and combine(dispatch(x)) is the weighted sum, for any routing and any placement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.forked import on_ranks
from wingspan.errors import RunError
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.deduplicated import DeduplicatingDispatcher
from wingspan.runtime.dispatch.dispatcher import Dispatcher
from wingspan.runtime.dispatch.flat import FlatDispatcher
from wingspan.runtime.dispatch.hierarchical import HierarchicalDispatcher, make_levels
from wingspan.runtime.dispatch.shared import SharedMemoryDispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import LocalTransport, Transport
from wingspan.specs.placement import EMPTY, Placement

CPU = torch.device("cpu")
DISPATCHERS = [FlatDispatcher, DeduplicatingDispatcher]


def shared(transport: Transport, slots: SlotMap, held_R: list[int], _: Buffers) -> Dispatcher:
    """Reads rows in shared memory; one host only."""
    return SharedMemoryDispatcher(SharedMemoryTransport(transport).inside, slots, held_R)


def flat_over_shared(transport: Transport, *arguments: Any) -> Dispatcher:
    return FlatDispatcher(SharedMemoryTransport(transport), *arguments)


def deduplicating_over_shared(transport: Transport, *arguments: Any) -> Dispatcher:
    return DeduplicatingDispatcher(SharedMemoryTransport(transport), *arguments)


def hierarchical(transport: Transport, *arguments: Any) -> Dispatcher:
    return HierarchicalDispatcher(make_levels(transport), *arguments)


def hierarchical_over_shared(transport: Transport, *arguments: Any) -> Dispatcher:
    return HierarchicalDispatcher(make_levels(SharedMemoryTransport(transport)), *arguments)


def make(kind: Callable[..., Dispatcher], placement: Placement, transport: Transport) -> Dispatcher:
    slots = SlotMap(placement, 0, transport.world, CPU)
    held_R = [len(placement.experts_on(0, r)) for r in range(placement.num_ranks)]
    return kind(transport, slots, held_R, Buffers())


def there_and_back(
    dispatcher: Dispatcher,
    placement: Placement,
    rank: int,
    *tokens: Any,
    chunks: int = 1,
    in_place: bool = False,
) -> tuple[torch.Tensor, int]:
    """The weighted sums that come home in all chunks, and how many rows were computed here.

    All of them are in flight together; `in_place`: the experts write over the rows that they received.
    """
    routes = dispatcher.route(*tokens, chunks, lane=0)
    coming = [dispatcher.send(route) for route in routes]
    homes, computed = [], 0
    for rows in coming:
        received = rows.wait()
        computed += sum(received.counts_S)
        assert sum(received.counts_S) == len(received.rows_ND)
        y_ND = scaled_experts(placement, rank, received.rows_ND, received.counts_S)
        if in_place:
            y_ND = received.rows_ND.copy_(y_ND)
        homes.append(dispatcher.send_back(y_ND, received.handle))
    return torch.cat([home.wait() for home in homes]), computed


def random_placement(rng: np.random.Generator, experts: int, ranks: int) -> Placement:
    """Any placement: every expert on one random rank, some on further ones too, slots in random order."""
    held: list[list[int]] = [[] for _ in range(ranks)]
    for expert in range(experts):
        replicas = rng.integers(1, ranks + 1) if rng.random() < 0.4 else 1
        for rank in rng.choice(ranks, size=replicas, replace=False):
            held[rank].append(expert)
    slots = max(1, *(len(h) for h in held))
    slots_RS = np.full((ranks, slots), EMPTY)
    for rank, experts_here in enumerate(held):
        places = rng.choice(slots, size=len(experts_here), replace=False)
        slots_RS[rank, places] = rng.permutation(experts_here)
    return Placement(slots_RS[None], experts)


def routing(
    rng: np.random.Generator, tokens: int, experts: int, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    skew = rng.dirichlet(np.full(experts, 0.3)) + 1e-9
    picks = [rng.choice(experts, top_k, replace=False, p=skew / skew.sum()) for _ in range(tokens)]
    experts_TK = torch.tensor(np.array(picks).reshape(tokens, top_k), dtype=torch.int64)
    return experts_TK, torch.tensor(rng.random((tokens, top_k)), dtype=torch.float32)


def scaled_experts(placement: Placement, rank: int, rows: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Expert e multiplies by e + 1: so that a row at the wrong expert shows."""
    factors = torch.tensor([e + 1.0 for e in placement.experts_on(0, rank)], dtype=rows.dtype)
    return rows * factors.repeat_interleave(torch.tensor(counts, dtype=torch.int64))[:, None]


def expected(x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    return x_TD * (weights_TK * (experts_TK + 1)).sum(1, keepdim=True)


@pytest.mark.parametrize("kind", DISPATCHERS)
def test_finer_weights_than_the_rows_are_rounded_with_the_sum_only(kind):
    """BF16 rows by FP32 weights: as far from the exact sum as its own rounding, and no further."""
    placement = Placement(np.arange(8)[None, None], 8)
    experts_TK, weights_TK = routing(np.random.default_rng(3), 200, 8, 4)
    x_TD = torch.randn(200, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    out_TD, _ = there_and_back(
        make(kind, placement, LocalTransport()), placement, 0, x_TD, experts_TK, weights_TK
    )
    rows_TKD = (x_TD[:, None] * (experts_TK + 1).bfloat16()[..., None]).double()
    exact_TD = (rows_TKD * weights_TK.double()[..., None]).sum(1)
    once = (exact_TD.bfloat16().double() - exact_TD).square().mean().sqrt()
    assert (out_TD.double() - exact_TD).square().mean().sqrt() <= 1.02 * once
    coarse_TD = (rows_TKD * weights_TK.bfloat16().double()[..., None]).sum(1).bfloat16()
    assert (coarse_TD.double() - exact_TD).square().mean().sqrt() > 1.1 * once


@pytest.mark.parametrize("kind", DISPATCHERS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    tokens=st.integers(0, 20),
    experts=st.integers(1, 9),
    chunks=st.integers(1, 4),
    in_place=st.booleans(),
    data=st.data(),
)
def test_one_rank_gives_the_weighted_sum(kind, seed, tokens, experts, chunks, in_place, data):
    rng = np.random.default_rng(seed)
    top_k = data.draw(st.integers(1, experts))
    placement = Placement(rng.permutation(experts)[None, None], experts)
    dispatcher = make(kind, placement, LocalTransport())
    experts_TK, weights_TK = routing(rng, tokens, experts, top_k)
    x_TD = torch.randn(tokens, 5)
    with torch.set_grad_enabled(chunks == 1 and not in_place):
        out_TD, computed = there_and_back(
            dispatcher, placement, 0, x_TD, experts_TK, weights_TK, chunks=chunks, in_place=in_place
        )
    assert computed == tokens * top_k
    torch.testing.assert_close(out_TD, expected(x_TD, experts_TK, weights_TK))


@pytest.mark.parametrize("kind", DISPATCHERS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_routing_and_placement_over_ranks(kind, size, tmp_path):
    check_any_routing_and_placement(kind, size, size, tmp_path)


@pytest.mark.parametrize(
    ("kind", "size", "ranks_per_node"),
    [
        (shared, 4, 4),
        (flat_over_shared, 4, 4),
        (flat_over_shared, 6, 2),
        (deduplicating_over_shared, 6, 2),
        (hierarchical, 4, 2),
        (hierarchical, 6, 2),
        (hierarchical, 3, 1),
        (hierarchical, 3, 3),
        (hierarchical_over_shared, 4, 2),
        (hierarchical_over_shared, 6, 3),
    ],
)
def test_any_routing_and_placement_over_nodes(kind, size, ranks_per_node, tmp_path):
    check_any_routing_and_placement(kind, size, ranks_per_node, tmp_path)


def check_any_routing_and_placement(
    kind: Callable[..., Dispatcher], size: int, ranks_per_node: int, folder: Path
) -> None:
    """Thirty random cases in one group: uneven and zero tokens, replicas, empty ranks, reused buffers, in place."""

    def work(transport: Transport) -> list[str]:
        wrong = []
        for case in range(30):
            shared = np.random.default_rng((case, size))
            experts = int(shared.integers(1, 10))
            top_k = int(shared.integers(1, experts + 1))
            placement = random_placement(shared, experts, size)
            dispatcher = make(kind, placement, transport)
            rank = transport.world.rank
            own = np.random.default_rng((case, size, rank))
            tokens = int(own.integers(0, 12)) * int(own.random() < 0.7)
            experts_TK, weights_TK = routing(own, tokens, experts, top_k)
            x_TD = torch.tensor(own.standard_normal((tokens, 6)), dtype=torch.float32)
            with torch.no_grad():
                out_TD, rows = there_and_back(
                    dispatcher,
                    placement,
                    rank,
                    x_TD,
                    experts_TK,
                    weights_TK,
                    chunks=1 + case % 4,
                    in_place=case % 3 > 0,
                )
            total = sum(int(n) for n in transport.share(torch.tensor([tokens * top_k])))
            computed = sum(int(n) for n in transport.share(torch.tensor([rows])))
            if total != computed:
                wrong.append(f"case {case}: {total} (token, expert) pairs sent, {computed} computed")
            if not torch.allclose(out_TD, expected(x_TD, experts_TK, weights_TK), rtol=1e-5, atol=1e-5):
                wrong.append(f"case {case}: rank {rank} got other sums")
        return wrong

    assert on_ranks(work, size, folder, ranks_per_node) == [[]] * size


@pytest.mark.parametrize("kind", [shared, flat_over_shared, FlatDispatcher])
@pytest.mark.parametrize("in_place", [True, False])
def test_outputs_on_their_way_home_stay_while_more_rows_come(kind, in_place, tmp_path):
    """The next lane's rows arrive between `send_back` and its `wait`, and so do those of the lane after it."""
    placement = Placement(np.array([[[0, 3], [1, 2]]]), 4)

    def work(transport: Transport) -> list[bool]:
        dispatcher, rank = make(kind, placement, transport), transport.world.rank
        rng, right = np.random.default_rng(rank), []
        waiting = []
        for lane in range(6):
            tokens = int(rng.integers(1, 9))
            experts_TK, weights_TK = routing(rng, tokens, 4, 2)
            x_TD = torch.tensor(rng.standard_normal((tokens, 5)), dtype=torch.float32)
            (route,) = dispatcher.route(x_TD, experts_TK, weights_TK, 1, lane=lane % 3)
            received = dispatcher.send(route).wait()
            y_ND = scaled_experts(placement, rank, received.rows_ND, received.counts_S)
            if in_place:
                y_ND = received.rows_ND.copy_(y_ND)
            waiting.append(
                (dispatcher.send_back(y_ND, received.handle), expected(x_TD, experts_TK, weights_TK))
            )
            if len(waiting) == 3 or lane == 5:
                # The later ones first: blocks are not given back in the order of their publication.
                right += [torch.allclose(home.wait(), sums, atol=1e-5) for home, sums in reversed(waiting)]
                waiting.clear()
        return right

    with torch.no_grad():
        assert on_ranks(work, 2, tmp_path) == [[True] * 6] * 2


def test_outputs_of_another_type_come_home(tmp_path):
    """As where rows travel in one precision and outputs in another."""
    placement = Placement(np.array([[[0, 3], [1, 2]]]), 4)

    def work(transport: Transport) -> bool:
        dispatcher, right = make(shared, placement, transport), True
        for case in range(3):
            rng = np.random.default_rng((case, transport.world.rank))
            experts_TK, weights_TK = routing(rng, 4, 4, 2)
            x_TD = torch.tensor(rng.standard_normal((4, 6)), dtype=torch.float32)
            (route,) = dispatcher.route(x_TD, experts_TK, weights_TK, 1, lane=0)
            received = dispatcher.send(route).wait()
            y_ND = scaled_experts(placement, transport.world.rank, received.rows_ND, received.counts_S)
            home_TD = dispatcher.send_back(y_ND.double(), received.handle).wait()
            right &= home_TD.dtype == torch.float64
            right &= torch.allclose(home_TD.float(), expected(x_TD, experts_TK, weights_TK), atol=1e-5)
        return right

    with torch.no_grad():
        assert on_ranks(work, 2, tmp_path) == [True] * 2


@pytest.mark.parametrize("kind", [*DISPATCHERS, flat_over_shared, deduplicating_over_shared])
def test_gradients_flow_through_both_exchanges(kind, tmp_path):
    """d/dx of the weighted sum reaches the tokens' home; the weights' gradient too."""
    placement = Placement(np.array([[[0, 3], [1, 2]]]), 4)

    def work(transport: Transport) -> tuple[bool, bool]:
        rng = np.random.default_rng(transport.world.rank)
        tokens = 5 * transport.world.rank  # rank 0 has none, and must still take part in backward
        experts_TK, weights_TK = routing(rng, tokens, 4, 2)
        x_TD = torch.tensor(rng.standard_normal((tokens, 3)), dtype=torch.float32, requires_grad=True)
        weights_TK.requires_grad_()
        dispatcher = make(kind, placement, transport)
        out_TD, _ = there_and_back(dispatcher, placement, transport.world.rank, x_TD, experts_TK, weights_TK)
        out_TD.square().sum().backward()
        x2, w2 = x_TD.detach().requires_grad_(), weights_TK.detach().requires_grad_()
        expected(x2, experts_TK, w2).square().sum().backward()
        return (
            torch.allclose(x_TD.grad, x2.grad, rtol=1e-4, atol=1e-5),
            torch.allclose(weights_TK.grad, w2.grad, rtol=1e-4, atol=1e-5),
        )

    assert on_ranks(work, 2, tmp_path) == [(True, True)] * 2


@pytest.mark.parametrize("kind", DISPATCHERS)
def test_backward_meets_on_ranks_that_received_nothing(kind, tmp_path):
    """Rank 0 has tokens but no expert that anyone picks; it still takes part in every exchange back."""
    placement = Placement(np.array([[[0, 3], [1, 2]]]), 4)

    def work(transport: Transport) -> bool:
        x_TD = torch.ones(3, 4, requires_grad=True)
        weights_TK = torch.full((3, 2), 0.5, requires_grad=True)
        dispatcher = make(kind, placement, transport)
        experts_TK = torch.tensor([[1, 2]] * 3)
        for _ in range(3):
            out_TD, _ = there_and_back(
                dispatcher, placement, transport.world.rank, x_TD, experts_TK, weights_TK
            )
            out_TD.sum().backward()
        return bool(
            (x_TD.grad == 3 * 0.5 * (2 + 3)).all() and (weights_TK.grad == 3 * 4 * torch.tensor([2, 3])).all()
        )

    assert on_ranks(work, 2, tmp_path) == [True, True]


def test_deduplication_sends_one_row_per_token_and_rank(tmp_path):
    placement = Placement(np.array([[[0, 1, 2], [3, 4, 5]]]), 6)

    def work(transport: Transport) -> list[int]:
        dispatcher = make(DeduplicatingDispatcher, placement, transport)
        experts_TK = torch.tensor([[3, 4, 5], [0, 3, 4], [0, 1, 2]])
        (route,) = dispatcher.route(torch.ones(3, 4), experts_TK, torch.ones(3, 3), 1, lane=0)
        handle = dispatcher.send(route).wait().handle
        return [b // 16 for b in handle.traffic.sent_R]

    # Tokens 0 and 1 need rank 1, tokens 1 and 2 need rank 0: two rows each, of nine (token, expert) pairs.
    assert on_ranks(work, 2, tmp_path) == [[2, 2]] * 2


@pytest.mark.parametrize(
    ("kind", "mend"), [(shared, "`transport` torch"), (hierarchical, "train with the flat one")]
)
def test_dispatchers_without_gradients_say_so(kind, mend, tmp_path):
    def work(transport: Transport) -> None:
        dispatcher = make(kind, Placement(np.array([[[0], [1]]]), 2), transport)
        x_TD = torch.ones((1, 4), requires_grad=True)
        dispatcher.route(x_TD, torch.zeros((1, 1), dtype=torch.int64), torch.ones((1, 1)), 1, 0)

    with pytest.raises(RunError, match=mend):
        on_ranks(work, 2, tmp_path)
