"""Counting tokens through a placement: a slow oracle, conservation, what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.placement.examples import random_trace
from tests.simulate.builders import cluster
from wingspan.errors import InputError
from wingspan.placement.balanced import balanced
from wingspan.placement.simple import linear
from wingspan.routing.statistics import expert_load
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.cluster import Cluster, Racks
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import Placement
from wingspan.traffic.counted import count_traffic

LEVELS = ("scale_up_sent", "scale_up_received", "scale_out_sent", "scale_out_received")


def nodes(ranks: int, per_node: int, **more) -> Cluster:
    return cluster(
        gpus=8, nodes=-(-ranks // per_node), gpus_per_node=per_node, scale_up_domain_gpus=per_node, **more
    )


def oracle(placement: Placement, trace: RoutingTrace, per_node: int, kind: DispatcherKind):
    """Token by token, in plain Python, as the runtime's slot map and dispatchers do."""
    size = placement.slots_per_rank
    slot_rows = np.zeros(placement.slots_LRS.shape)
    arrived = np.zeros((trace.num_layers, placement.num_ranks))
    links = {name: np.zeros((trace.num_layers, placement.num_ranks)) for name in LEVELS}
    seen: dict[tuple[int, int], int] = {}
    turns = []
    for home, step in zip(trace.home_rank_T.tolist(), trace.step_T.tolist(), strict=True):
        turns.append(seen.get((step, home), 0) + home)
        seen[step, home] = seen.get((step, home), 0) + 1
    for layer in range(trace.num_layers):

        def send(level: str, source: int, target: int, layer: int = layer) -> None:
            links[f"{level}_sent"][layer, source] += 1
            links[f"{level}_received"][layer, target] += 1

        for token in range(trace.num_tokens):
            home = int(trace.home_rank_T[token])
            ranks = []
            for expert in trace.experts_TLK[token, layer].tolist():
                where = [divmod(int(p), size) for p in np.flatnonzero(placement.slots_LRS[layer] == expert)]
                own = [w for w in where if w[0] == home]
                near = [w for w in where if w[0] // per_node == home // per_node]
                usable = own or near or where
                rank, slot = usable[turns[token] % len(usable)]
                slot_rows[layer, rank, slot] += 1
                ranks.append(rank)
            rows = ranks if kind is DispatcherKind.FLAT else sorted(set(ranks))
            for rank in rows:
                arrived[layer, rank] += 1
                if kind is DispatcherKind.HIERARCHICAL:
                    landing = rank // per_node * per_node + home % per_node
                    if rank != landing:
                        send("scale_up", landing, rank)
                elif rank // per_node == home // per_node:
                    if rank != home:
                        send("scale_up", home, rank)
                else:
                    send("scale_out", home, rank)
            if kind is DispatcherKind.HIERARCHICAL:
                for node in {r // per_node for r in ranks} - {home // per_node}:
                    send("scale_out", home, node * per_node + home % per_node)
    return slot_rows, arrived, links


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(list(DispatcherKind)),
    per_node=st.sampled_from([1, 2, 4]),
    extra=st.integers(0, 2),
)
def test_counting_equals_the_oracle(seed, kind, per_node, extra):
    rng = np.random.default_rng(seed)
    trace = random_trace(24, 2, 5, 2, ranks=4, seed=seed)
    placement = balanced(rng.lognormal(0, 1, (2, 5)), 4, 2 + extra)
    counted = count_traffic(placement, trace, nodes(4, per_node), kind)
    slot_rows, arrived, links = oracle(placement, trace, per_node, kind)
    assert np.array_equal(counted.slot_rows_LRS, slot_rows)
    assert np.array_equal(counted.arrived_LR, arrived)
    for name, rows in links.items():
        assert np.array_equal(getattr(counted.links, name), rows), name


def test_counting_is_the_same_in_pieces(monkeypatch):
    trace, on = random_trace(50, 1, 6, 3, ranks=4, seed=1), nodes(4, 2)
    placement = balanced([[9, 1, 1, 1, 1, 1]], 4, 2)
    whole = count_traffic(placement, trace, on, DispatcherKind.HIERARCHICAL)
    monkeypatch.setattr("wingspan.traffic.counted._CHUNK_TOKENS", 7)
    pieces = count_traffic(placement, trace, on, DispatcherKind.HIERARCHICAL)
    assert np.array_equal(whole.slot_rows_LRS, pieces.slot_rows_LRS)
    assert np.array_equal(whole.links.scale_out_sent, pieces.links.scale_out_sent)


def test_what_is_computed_is_what_was_picked_and_fewer_rows_cross_the_more_is_shared():
    trace, on, placement = random_trace(64, 3, 8, 2, ranks=8, seed=5), nodes(8, 4), linear(3, 8, 4 * 2)
    flat, once, node = (count_traffic(placement, trace, on, kind) for kind in DispatcherKind)
    assert np.array_equal(flat.slot_rows_LRS.reshape(3, 8), expert_load(trace))
    crossing = [rows.links.scale_out_sent.sum() for rows in (flat, once, node)]
    assert crossing == sorted(crossing, reverse=True)


def test_racks_carry_what_leaves_them():
    trace = random_trace(64, 2, 8, 2, ranks=8, seed=2)
    racks = Racks(nodes_per_rack=2, oversubscription=4)
    counted = count_traffic(linear(2, 8, 8), trace, nodes(8, 2, racks=racks), DispatcherKind.FLAT)
    rank_TLK, home_T = trace.experts_TLK, trace.home_rank_T
    leaves_TLK = rank_TLK // 4 != (home_T // 4)[:, None, None]
    assert counted.links.rack_sent.sum(axis=1).tolist() == leaves_TLK.sum(axis=(0, 2)).tolist()
    assert counted.links.rack_received.sum() == counted.links.rack_sent.sum()


def test_a_narrower_last_domain_takes_rows_too():
    trace = random_trace(64, 1, 6, 2, ranks=6, seed=3)
    counted = count_traffic(linear(1, 6, 6), trace, nodes(6, 4), DispatcherKind.HIERARCHICAL)
    assert counted.links.scale_out_received[0, 4:].sum() > 0
    assert counted.links.scale_out_received.sum() == counted.links.scale_out_sent.sum()


def test_disagreeing_inputs_are_named():
    trace, flat = random_trace(8, 2, 8, 2, ranks=8, seed=0), DispatcherKind.FLAT
    with pytest.raises(InputError, match="3 MoE layers, the trace 2"):
        count_traffic(linear(3, 8, 8), trace, nodes(8, 4), flat)
    with pytest.raises(InputError, match="live on 8 ranks, the placement has 4"):
        count_traffic(linear(2, 8, 4, 2), trace, nodes(4, 4), flat)
