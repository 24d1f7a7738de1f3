"""What a search may choose: EP sizes, slots, attention groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.simulate.layouts import attention_groups, ep_sizes, slot_counts
from wingspan.specs.cluster import Cluster, load_cluster


def _nodes(node: int, domain: int | None = None) -> Cluster:
    return load_cluster("h100-sxm").model_copy(
        update={"gpus_per_node": node, "scale_up_domain_gpus": domain or node}
    )


@pytest.mark.parametrize(
    ("experts", "gpus", "node", "sizes"),
    [
        (256, 64, 8, [1, 2, 4, 8, 16, 32, 64]),
        (256, 72, 8, [1, 2, 4, 8, 24, 72]),
        (256, 88, 8, [1, 2, 4, 8, 88]),
        (256, 320, 8, [1, 2, 4, 8, 16, 32, 40, 64, 80, 160, 320]),
        (256, 288, 8, [1, 2, 4, 8, 16, 24, 32, 48, 72, 96, 144, 288]),
        (256, 3, 8, [1, 3]),
        (256, 6, 8, [1, 2, 3, 6]),
        (256, 24, 6, [1, 2, 3, 6, 12, 24]),
        (60, 16, 8, [1, 2, 4, 8, 16]),
        (7, 16, 8, [1, 2, 4, 8]),
        (8, 64, 8, [1, 2, 4, 8, 16]),
        (1, 1, 8, [1]),
    ],
)
def test_ep_sizes_fill_whole_nodes(experts: int, gpus: int, node: int, sizes: list[int]) -> None:
    assert ep_sizes(experts, _nodes(node).part(gpus)) == sizes


def test_ep_sizes_fill_whole_domains_too() -> None:
    rack = load_cluster("gb200-nvl72")
    assert ep_sizes(256, rack.part(36)) == [1, 2, 4, 12, 36]
    assert ep_sizes(256, rack) == [1, 2, 4, 8, 12, 24, 36, 72]
    assert 48 not in ep_sizes(256, rack.part(144))  # the second of three groups would lie in two racks
    assert ep_sizes(256, _nodes(8, 2).part(6)) == [1, 2, 6]


@given(experts=st.integers(1, 400), node=st.sampled_from([1, 2, 3, 4, 6, 8, 72]), nodes=st.integers(1, 40))
def test_groups_are_alike_and_every_expert_finds_a_slot(experts: int, node: int, nodes: int) -> None:
    cluster = _nodes(node).with_gpus(node * nodes)
    for ranks in ep_sizes(experts, cluster):
        assert cluster.gpus % ranks == 0
        assert ranks % node == 0 or node % ranks == 0
        counts = slot_counts(experts, ranks)
        assert counts == sorted(set(counts))
        assert (counts[0] - 1) * ranks < experts <= counts[0] * ranks
        assert counts[-1] <= max(2 * counts[0], 1)
        assert counts[-1] <= experts
        for group in attention_groups(ranks, cluster, 48):
            assert cluster.part(ranks).gpus_per_node % group == 0


def test_slots_grow_in_strides() -> None:
    assert slot_counts(256, 72) == [4, 5, 6, 8]
    assert slot_counts(256, 320) == [1, 2]
    assert slot_counts(256, 1) == [256]


def test_attention_is_cut_inside_a_node() -> None:
    assert attention_groups(72, _nodes(8), 128) == [1, 2, 4, 8]
    assert attention_groups(12, _nodes(6), 48) == [1, 2, 3, 6]
    assert attention_groups(3, _nodes(8), 128) == [1]
    assert attention_groups(36, load_cluster("gb200-nvl72"), 128) == [1, 2, 4]
