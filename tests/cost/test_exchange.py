"""Traffic by hand and against counted tokens; times that bandwidth and nodes can only move one way."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.cost.exchange import (
    Collective,
    Phase,
    all_reduce_seconds,
    collective_seconds,
    exchange_seconds,
)
from wingspan.cost.uncertainty import relative_error
from wingspan.errors import InputError
from wingspan.specs.cluster import Cluster, Racks, load_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision
from wingspan.traffic.links import (
    by_network_card,
    flat_traffic,
    hierarchical_traffic,
    row_bytes,
    uniform_traffic,
)

SEED, H100, H800 = (load_cluster(name) for name in ("seed-ideal", "h100-sxm", "h800"))
clusters = st.sampled_from([SEED, H100, H800, load_cluster("gb200-nvl72")])
dispatchers, phases = (
    st.sampled_from([DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL]),
    st.sampled_from(list(Phase)),
)


def small(nodes: int = 2, per_node: int = 2, racks: Racks | None = None) -> Cluster:
    return SEED.model_copy(
        update={"nodes": nodes, "gpus_per_node": per_node, "scale_up_domain_gpus": per_node, "racks": racks}
    )


def with_link(cluster: Cluster, level: str, factor: float) -> Cluster:
    link = getattr(cluster, level)
    rate = link.bandwidth_bytes_per_second * factor
    return cluster.model_copy(update={level: link.model_copy(update={"bandwidth_bytes_per_second": rate})})


def uniform_seconds(
    cluster: Cluster, ranks: int, tokens: float, dispatcher: DispatcherKind, phase: Phase
) -> float:
    traffic = uniform_traffic(cluster, ranks, tokens, 7392.0, 256, 8, dispatcher)
    return float(exchange_seconds(cluster, traffic, dispatcher, phase).seconds)


@pytest.mark.parametrize("dispatcher", [DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL])
def test_a_fuller_rank_paces_every_transfer_between_nodes(dispatcher: DispatcherKind):
    """The same rows in all, ever more of them to one rank of four nodes: an exchange takes ever longer."""
    cluster, ranks = H100.with_gpus(32), 32
    free = cluster.model_copy(
        update={
            "kernels": cluster.kernels.model_copy(
                update={
                    name: getattr(cluster.kernels, name).model_copy(update={"back_pressure": 0})
                    for name in ("normal", "low_latency")
                }
            )
        }
    )
    times = []
    for share in (1.0, 1.2, 1.5, 2.0):
        weight_R = np.full(ranks, (ranks - share) / (ranks - 1))
        weight_R[5] = share
        bytes_RR = np.tile(1e6 * weight_R, (ranks, 1))
        crossing_RG = bytes_RR.reshape(ranks, 4, 8).sum(axis=2) * 0.4
        hierarchical = dispatcher is DispatcherKind.HIERARCHICAL
        traffic = (
            hierarchical_traffic(cluster, bytes_RR, crossing_RG)
            if hierarchical
            else flat_traffic(cluster, bytes_RR)
        )
        paced, alone = (float(exchange_seconds(c, traffic, dispatcher).seconds) for c in (cluster, free))
        assert paced >= alone
        times.append(paced)
    assert times == sorted(times)
    assert times[-1] > 1.6 * times[0]


@pytest.mark.parametrize("dispatcher", [DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL])
def test_more_ranks_in_a_domain_are_never_cheaper_per_byte(dispatcher: DispatcherKind):
    cluster = load_cluster("gb200-nvl72")
    per_byte = []
    for ranks in (8, 16, 32, 64):
        part = cluster.part(ranks)
        traffic = uniform_traffic(part, ranks, 4096.0, 7392.0, 256, 8, dispatcher)
        seconds = float(exchange_seconds(part, traffic, dispatcher).scale_up_seconds)
        per_byte.append(seconds / float(traffic.scale_up_sent[0]))
    assert per_byte == sorted(per_byte)
    assert per_byte[-1] > 1.05 * per_byte[0]


@given(st.sampled_from(list(Phase)), st.sampled_from(["h100-sxm", "b200"]), st.floats(1, 8192))
def test_copying_inside_a_node_goes_no_faster_than_its_processors(phase: Phase, name: str, tokens: float):
    cluster = load_cluster(name).with_gpus(8)
    traffic = uniform_traffic(cluster, 8, tokens, 7392.0, 256, 8, DispatcherKind.HIERARCHICAL)
    seconds = []
    for processors in (4, 20, 1000):
        normal = cluster.kernels.normal.model_copy(update={"processors": processors})
        kernels = cluster.kernels.model_copy(update={"normal": normal})
        machine = cluster.model_copy(update={"kernels": kernels})
        seconds.append(float(exchange_seconds(machine, traffic, DispatcherKind.HIERARCHICAL, phase).seconds))
    assert seconds == sorted(seconds, reverse=True)
    rate = 4 * getattr(cluster.kernels.normal, phase).copy_bytes_per_second_per_processor
    assert seconds[0] >= float(traffic.scale_up_sent.max()) / rate


def test_an_all_reduce_of_nothing_much_waits_longer_than_a_gather():
    gather, reduced = (
        float(collective_seconds(H100, kind, 256.0, 8))
        for kind in (Collective.ALL_GATHER, Collective.ALL_REDUCE)
    )
    assert gather < reduced < 2 * gather


def test_low_latency_kernels_hold_the_processors_for_a_part_of_an_exchange():
    traffic = uniform_traffic(H100.with_gpus(32), 32, 128.0, 7392.0, 256, 8, DispatcherKind.FLAT)
    found = exchange_seconds(H100.with_gpus(32), traffic, DispatcherKind.FLAT)
    assert found.processor_seconds is not None
    assert 0 < float(found.processor_seconds) < 0.5 * float(found.seconds)
    normal = exchange_seconds(H100.with_gpus(32), traffic, DispatcherKind.HIERARCHICAL)
    assert normal.processor_seconds is None


def test_a_row_on_the_wire():
    assert row_bytes(7168, Precision.BF16) == 14336
    assert row_bytes(7168, Precision.FP8) == 7168 + 56 * 4


def test_flat_traffic_by_hand():
    bytes_RR = np.array([[9, 1, 2, 3], [0, 9, 0, 0], [0, 0, 9, 0], [4, 0, 5, 9]])
    traffic = flat_traffic(small(), bytes_RR)
    assert traffic.scale_up_sent.tolist() == [1, 0, 0, 5]
    assert traffic.scale_up_received.tolist() == [0, 1, 5, 0]
    assert traffic.scale_out_sent.tolist() == [5, 0, 0, 4]
    assert traffic.scale_out_received.tolist() == [4, 0, 2, 3]
    assert traffic.rack_sent.shape == (0,)


def test_hierarchical_traffic_by_hand():
    # Rank 0 sends one token to ranks 2 and 3 of the other node: it crosses once, to rank 2, which forwards to 3.
    bytes_RR, crossing_RG = np.zeros((4, 4)), np.zeros((4, 2))
    bytes_RR[0, 2] = bytes_RR[0, 3] = 100
    crossing_RG[0, 1] = 100
    traffic = hierarchical_traffic(small(), bytes_RR, crossing_RG)
    assert traffic.scale_out_sent.tolist() == [100, 0, 0, 0]
    assert traffic.scale_out_received.tolist() == [0, 0, 100, 0]
    assert traffic.scale_up_sent.tolist() == [0, 0, 100, 0]
    assert traffic.scale_up_received.tolist() == [0, 0, 0, 100]


def test_hierarchical_traffic_inside_a_node_goes_straight():
    bytes_RR = np.zeros((4, 4))
    bytes_RR[0, 1] = 100
    traffic = hierarchical_traffic(small(), bytes_RR, np.zeros((4, 2)))
    assert traffic.scale_up_sent.tolist() == [100, 0, 0, 0]
    assert traffic.scale_up_received.tolist() == [0, 100, 0, 0]


def test_traffic_back_is_the_other_way_and_scaled():
    traffic = flat_traffic(small(), np.arange(16).reshape(4, 4)).back().scaled(2.0)
    forward = flat_traffic(small(), np.arange(16).reshape(4, 4))
    assert traffic.scale_out_sent.tolist() == (2 * forward.scale_out_received).tolist()


def test_racks_carry_what_leaves_them():
    cluster = small(nodes=4, racks=Racks(nodes_per_rack=2, oversubscription=4))
    bytes_RR = np.zeros((8, 8))
    bytes_RR[0, 3], bytes_RR[0, 4], bytes_RR[5, 1] = 7, 11, 13
    traffic = flat_traffic(cluster, bytes_RR)
    assert traffic.rack_sent.tolist() == [11, 13]
    assert traffic.rack_received.tolist() == [13, 11]
    # One rack's way up: 4 cards at 1.44 TB/s, a quarter of it.
    exchange = exchange_seconds(cluster, traffic, DispatcherKind.FLAT)
    assert exchange.rack_seconds == pytest.approx(13 / (1.44e12 * 4 / 4))


@given(
    st.sampled_from([DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(2, 2, 8, 2), (4, 2, 8, 3), (2, 4, 16, 4)]),
)
def test_uniform_traffic_is_the_mean_of_counted_tokens(
    dispatcher: DispatcherKind, seed: int, shape: tuple[int, int, int, int]
):
    nodes, per_node, experts, top_k = shape
    cluster, ranks, tokens = small(nodes, per_node), nodes * per_node, 4000
    rng = np.random.default_rng(seed)
    chosen_TK = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k]
    rank_TK = chosen_TK // (experts // ranks)
    copies_TR = np.stack([(rank_TK == rank).sum(1) for rank in range(ranks)], axis=1)
    bytes_RR = np.zeros((ranks, ranks))
    crossing_RG = np.zeros((ranks, nodes))
    for source in range(ranks):
        mine_TR = copies_TR[source::ranks]
        bytes_RR[source] = (mine_TR if dispatcher is DispatcherKind.FLAT else mine_TR > 0).sum(0)
        crossing_RG[source] = (mine_TR.reshape(-1, nodes, per_node).sum(2) > 0).sum(0)
    if dispatcher is DispatcherKind.FLAT:
        counted = flat_traffic(cluster, bytes_RR)
    else:
        counted = hierarchical_traffic(cluster, bytes_RR, crossing_RG)
    expected = uniform_traffic(cluster, ranks, tokens / ranks, 1.0, experts, top_k, dispatcher)
    for name in ("scale_up_sent", "scale_up_received", "scale_out_sent", "scale_out_received"):
        mean = getattr(counted, name).mean()
        assert mean == pytest.approx(getattr(expected, name).mean(), rel=0.1), name


def test_node_limited_routing_crosses_less():
    free = uniform_traffic(H100, 64, 1.0, 1.0, 256, 8, DispatcherKind.HIERARCHICAL)
    limited = uniform_traffic(H100, 64, 1.0, 1.0, 256, 8, DispatcherKind.HIERARCHICAL, groups_per_token=4)
    assert limited.scale_out_sent[0] < free.scale_out_sent[0]
    # 128 reachable experts on 4 nodes: 4 (1 - C(96, 8) / C(128, 8)) = 3.63 nodes, of which 7 in 8 are others.
    assert limited.scale_out_sent[0] == pytest.approx(3.63 * 7 / 8, rel=0.01)


def test_the_busiest_link_decides():
    traffic = flat_traffic(H100, np.ones((16, 16)) * 1e6)
    exchange = exchange_seconds(H100, traffic, DispatcherKind.FLAT)
    assert exchange.scale_out_seconds == pytest.approx(8e6 / H100.scale_out.sustained_bytes_per_second)
    assert exchange.seconds == exchange.scale_out_seconds + exchange.latency_seconds
    assert exchange.scale_up_seconds < exchange.scale_out_seconds


def test_leading_axes_are_kept():
    traffic = flat_traffic(small(), np.ones((3, 5, 4, 4)))
    assert exchange_seconds(small(), traffic, DispatcherKind.HIERARCHICAL).seconds.shape == (3, 5)


@given(clusters, dispatchers, phases, st.floats(1, 4096))
def test_more_domains_are_never_cheaper(
    cluster: Cluster, dispatcher: DispatcherKind, phase: Phase, tokens: float
):
    domain = cluster.scale_up_domain_gpus
    times = [uniform_seconds(cluster, domain * n, tokens, dispatcher, phase) for n in (1, 2, 4, 8, 16, 32)]
    assert all(after >= before * (1 - 1e-9) for before, after in pairwise(times)), times


@given(
    clusters,
    dispatchers,
    phases,
    st.floats(1, 4096),
    st.sampled_from(["scale_up", "scale_out"]),
    st.floats(1, 20),
)
def test_more_bandwidth_is_never_slower(
    cluster: Cluster, dispatcher: DispatcherKind, phase: Phase, tokens: float, level: str, factor: float
):
    ranks = 4 * cluster.scale_up_domain_gpus
    after = uniform_seconds(with_link(cluster, level, factor), ranks, tokens, dispatcher, phase)
    assert after <= uniform_seconds(cluster, ranks, tokens, dispatcher, phase) * (1 + 1e-9)


@given(clusters, dispatchers, phases, st.floats(0, 4096), st.floats(0, 4096))
def test_more_tokens_are_never_faster(
    cluster: Cluster, dispatcher: DispatcherKind, phase: Phase, tokens: float, more: float
):
    ranks = 2 * cluster.scale_up_domain_gpus
    after = uniform_seconds(cluster, ranks, tokens + more, dispatcher, phase)
    assert after >= uniform_seconds(cluster, ranks, tokens, dispatcher, phase) * (1 - 1e-9)


def test_one_rank_alone_sends_nothing():
    traffic = uniform_traffic(H100.with_gpus(1), 1, 128, 7392.0, 256, 8, DispatcherKind.FLAT)
    assert exchange_seconds(H100.with_gpus(1), traffic, DispatcherKind.FLAT).scale_up_seconds == 0


def test_ranks_that_do_not_fill_domains():
    with pytest.raises(InputError, match="12 ranks do not fill scale-up domains of 8"):
        uniform_traffic(H100, 12, 1.0, 1.0, 256, 8, DispatcherKind.HIERARCHICAL)
    with pytest.raises(InputError, match="6 ranks do not fill 4"):
        hierarchical_traffic(H100, np.zeros((6, 6)), np.zeros((6, 4)))


def test_collectives_by_hand_on_the_seeds_links():
    # A ring of 4: each port carries 3/4 of the buffer; an all-reduce twice that.
    assert collective_seconds(SEED, Collective.ALL_GATHER, 4e9, 4) == pytest.approx(3e9 / 1.44e12)
    assert collective_seconds(SEED, Collective.ALL_REDUCE, 4e9, 4) == pytest.approx(6e9 / 1.44e12)
    assert collective_seconds(SEED, Collective.ALL_TO_ALL, 4e9, 1) == 0
    assert collective_seconds(H100, Collective.ALL_GATHER, 0, 8) == 0


@given(st.sampled_from(["h100-sxm", "b200"]), st.sampled_from([2, 4, 8]), st.floats(256, 1e9))
def test_many_bytes_take_the_protocol_that_starts_later(name: str, ranks: int, total: float):
    cluster = load_cluster(name)
    kernel, rate = cluster.kernels.collective, cluster.scale_up.sustained_bytes_per_second
    assert kernel.bulk is not None
    through, latency = (
        total * (ranks - 1) / ranks,
        kernel.launch_seconds + kernel.doubling_seconds * np.log2(ranks),
    )
    few = through / (rate * kernel.scale_up_share) + latency
    many = through / (rate * kernel.bulk.scale_up_share) + latency + kernel.bulk.launch_seconds
    assert float(collective_seconds(cluster, Collective.ALL_GATHER, total, ranks)) == pytest.approx(
        min(few, many)
    )


@given(st.sampled_from([2, 4, 8]), st.floats(256, 1e9))
def test_an_engine_reduces_in_one_shot_what_that_is_faster_for(ranks: int, total: float):
    def seconds(*, engine: bool) -> float:
        return float(all_reduce_seconds(H100, total, ranks, engine=engine))

    kernel = H100.kernels.collective.one_shot
    assert kernel is not None
    read = (ranks - 1) * total / (H100.scale_up.sustained_bytes_per_second * kernel.scale_up_share)
    one_shot = read + kernel.launch_seconds + kernel.doubling_seconds * np.log2(ranks)
    assert seconds(engine=False) == float(collective_seconds(H100, Collective.ALL_REDUCE, total, ranks))
    assert seconds(engine=True) == pytest.approx(min(one_shot, seconds(engine=False)))
    # Beyond a node there is none.
    assert float(all_reduce_seconds(H100.with_gpus(16), total, 16, engine=True)) == float(
        collective_seconds(H100.with_gpus(16), Collective.ALL_REDUCE, total, 16)
    )


def test_a_card_that_two_share_carries_what_both_send():
    """Only rank 0 sends: with a card for two it is as fast as with its own. Where both send it takes twice as long."""
    own = H100.with_nodes(2, 2)
    shared = own.model_copy(update={"gpus_per_network_card": 2})

    def transfer(cluster: Cluster, *sending: int) -> float:
        bytes_RR = np.zeros((4, 4))
        bytes_RR[list(sending), [rank + 2 for rank in sending]] = 1e9
        found = exchange_seconds(cluster, flat_traffic(cluster, bytes_RR), DispatcherKind.FLAT)
        return float(found.scale_out_seconds)

    assert transfer(own, 0, 1) == pytest.approx(transfer(own, 0))
    assert transfer(shared, 0) == pytest.approx(transfer(own, 0))
    assert transfer(shared, 0, 1) == pytest.approx(2 * transfer(own, 0))


def test_cards_of_a_node_that_they_do_not_fill():
    """Three GPUs of a node, two to a card: the third has one of its own, and no card reaches into the next node."""
    cluster = H100.with_nodes(2, 3).model_copy(update={"gpus_per_network_card": 2})
    sent_R = np.arange(1.0, 7.0)
    assert by_network_card(cluster, sent_R).tolist() == [3.0, 3.0, 9.0, 6.0]
    assert by_network_card(cluster, np.stack([sent_R, sent_R])).shape == (2, 4)


@given(clusters, st.sampled_from([16, 64, 144]), dispatchers, phases, st.integers(2, 8))
def test_sharing_a_card_is_never_faster(
    cluster: Cluster, ranks: int, dispatcher: DispatcherKind, phase: Phase, sharing: int
):
    shared = cluster.model_copy(update={"gpus_per_network_card": min(sharing, cluster.gpus_per_node)})
    own_seconds = uniform_seconds(cluster, ranks, 128, dispatcher, phase)
    assert uniform_seconds(shared, ranks, 128, dispatcher, phase) >= own_seconds


def test_nodes_of_one_gpu_use_the_network_for_everything():
    alone = load_cluster("h100-sxm+gpus_per_node=1")
    traffic = uniform_traffic(alone, 8, 128, 7392.0, 256, 8, DispatcherKind.FLAT)
    assert traffic.scale_up_sent.max() == 0
    assert traffic.scale_out_sent[0] == pytest.approx(128 * 7392 * 8 * 7 / 8)
    assert uniform_seconds(alone, 8, 128, DispatcherKind.FLAT, Phase.DISPATCH) > uniform_seconds(
        H100, 8, 128, DispatcherKind.FLAT, Phase.DISPATCH
    )


@pytest.mark.parametrize(
    ("name", "ranks", "dispatch_us", "combine_us"),
    [
        # perplexityai/pplx-garden at 2446003, EFA; uccl-project/uccl at da914a2, p5en and MI300X with CX-7;
        # arXiv:2506.12708, CloudMatrix384 (its rows are 7,680 B): 128 tokens, top-8, 7,168 values.
        ("h200+efa", 32, 229, 335),
        ("h200+efa", 32, 465, 694),
        ("mi300x", 8, 65, 92),
        ("mi300x", 32, 224, 341),
        ("cloudmatrix384", 256, 152, 149),
    ],
)
def test_published_exchanges_lie_within_the_error_bars(
    name: str, ranks: int, dispatch_us: float, combine_us: float
):
    cluster = load_cluster(name).with_gpus(ranks)
    for phase, row, microseconds in (
        (Phase.DISPATCH, 7392.0, dispatch_us),
        (Phase.COMBINE, 14336.0, combine_us),
    ):
        traffic = uniform_traffic(cluster, ranks, 128, row, 256, 8, DispatcherKind.FLAT)
        seconds = float(exchange_seconds(cluster, traffic, DispatcherKind.FLAT, phase).seconds)
        off = microseconds * 1e-6 / seconds - 1
        assert abs(off) <= relative_error(cluster, phase, ranks)
