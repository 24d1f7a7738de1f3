"""Compute times: the roofline on ideal kernels by hand, and what must hold on any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.cost.attention import unrecorded_layer_seconds
from wingspan.cost.compute import BatchRegime, elementwise_seconds, experts_seconds, matmul_seconds
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision

SEED, H100 = load_cluster("seed-ideal"), load_cluster("h100-sxm")
BF16, FP8 = Precision.BF16, Precision.FP8
clusters = st.sampled_from([SEED, H100])
batches = st.sampled_from(list(BatchRegime))
loads = st.lists(st.integers(0, 2000), min_size=1, max_size=6)


def experts(
    cluster: Cluster, tokens: object, batch: BatchRegime = BatchRegime.SMALL, gated: bool = False
) -> np.ndarray:
    precision = BF16 if cluster is SEED else FP8
    return experts_seconds(
        cluster, tokens, 7168, 2048, gated=gated, weights=precision, activations=precision, batch=batch
    )


def faster(cluster: Cluster, memory: float = 1.0, flops: float = 1.0) -> Cluster:
    gpu = cluster.gpu
    better = gpu.model_copy(
        update={
            "memory_bandwidth_bytes_per_second": gpu.memory_bandwidth_bytes_per_second * memory,
            "peak_flops": {kind: peak * flops for kind, peak in gpu.peak_flops.items()},
        }
    )
    return cluster.model_copy(update={"gpu": better})


def test_a_product_bound_by_arithmetic_on_the_seeds_gpu():
    # 2 x 4096^3 FLOP at 240 TFLOPS
    assert matmul_seconds(SEED, 4096, 4096, 4096, BF16, BF16) == pytest.approx(2 * 4096**3 / 240e12)


def test_a_product_bound_by_reading_on_the_seeds_gpu():
    moved = 2 * (4096 * 4096 + 4096 + 4096)
    assert matmul_seconds(SEED, 1, 4096, 4096, BF16, BF16) == pytest.approx(moved / 1.44e12)


def test_one_expert_of_the_seed_at_one_token():
    # 58.72 MB of weights, one row in and out of both products and through the activation
    moved = 58_720_256 + 2 * (7168 + 2048 + 2048 + 7168) + 2 * (2048 + 2048)
    assert experts(SEED, [1.0]) == pytest.approx(moved / 1.44e12)


def test_nothing_to_do_takes_no_time():
    assert matmul_seconds(H100, 0, 7168, 2048, FP8, FP8) == 0
    for batch in BatchRegime:
        assert experts(H100, np.zeros((3, 2)), batch) == pytest.approx(np.zeros(3))
    assert elementwise_seconds(H100, 0) == 0


def test_shapes_broadcast():
    assert matmul_seconds(H100, np.ones((5, 1)), 64, np.array([64, 128]), FP8, FP8).shape == (5, 2)
    assert experts(H100, np.ones((2, 3, 4))).shape == (2, 3)


def test_part_of_a_tile_costs_a_tile():
    assert matmul_seconds(H100, 65, 7168, 7168, FP8, FP8) > matmul_seconds(H100, 64, 7168, 7168, FP8, FP8)
    large = [matmul_seconds(H100, rows, 4096, 4096, FP8, FP8) for rows in (8192, 16384)]
    assert large[1] / large[0] == pytest.approx(2, rel=0.1)


def test_many_experts_at_small_batch_read_all_their_weights():
    one, eight = experts(H100, [8.0], gated=True), experts(H100, [1.0] * 8, gated=True)
    read = 7 * 3 * 7168 * 2048 / H100.gpu.sustained_memory_bytes_per_second
    assert eight - one == pytest.approx(read, rel=0.25)


def test_half_a_row_is_the_expectation_of_a_row_half_of_the_time():
    assert experts(H100, [0.5]) == pytest.approx(experts(H100, [1.0]) / 2)


def test_prefill_is_never_faster_than_the_host_and_pays_for_its_copies():
    kernel = H100.kernels.experts
    assert experts(H100, [1.0], BatchRegime.LARGE) == kernel.host_seconds
    more = experts_seconds(
        H100,
        [8192.0],
        7168,
        2048,
        gated=True,
        weights=FP8,
        activations=FP8,
        batch=BatchRegime.LARGE,
        received=65536,
    )
    assert more > experts(H100, [8192.0], BatchRegime.LARGE, gated=True)


def test_a_recorded_launch_is_cheaper():
    arguments = (H100, 16, 7168, 2048, FP8, FP8)
    assert matmul_seconds(*arguments, BatchRegime.SMALL) < matmul_seconds(*arguments, BatchRegime.LARGE)
    assert elementwise_seconds(H100, 1e6, BatchRegime.SMALL) < elementwise_seconds(H100, 1e6)


@given(clusters, batches, loads, st.integers(0, 5))
def test_more_rows_never_take_less_time(cluster: Cluster, batch: BatchRegime, tokens: list[int], slot: int):
    more = list(tokens)
    more[slot % len(more)] += 37
    assert experts(cluster, more, batch) >= experts(cluster, tokens, batch) * (1 - 1e-12)


@given(clusters, batches, loads, st.floats(1, 10), st.floats(1, 10))
def test_faster_hardware_is_never_slower(
    cluster: Cluster, batch: BatchRegime, tokens: list[int], memory: float, flops: float
):
    better = faster(cluster, memory, flops)
    precision = BF16 if cluster is SEED else FP8
    after = experts_seconds(
        better, tokens, 7168, 2048, gated=True, weights=precision, activations=precision, batch=batch
    )
    assert after <= experts(cluster, tokens, batch, gated=True) * (1 + 1e-12)


@given(st.integers(1, 5000), st.integers(1, 9000), st.integers(1, 9000))
def test_real_kernels_never_beat_the_roofline(rows: int, inner: int, columns: int):
    roofline = max(
        2 * rows * inner * columns / H100.gpu.sustained_flops(FP8),
        inner * columns / H100.gpu.sustained_memory_bytes_per_second,
    )
    assert matmul_seconds(H100, rows, inner, columns, FP8, FP8) >= roofline


def test_a_decode_is_recorded_unless_the_host_waits_for_counts():
    """DeepEP's normal dispatch keeps a step from being recorded; in prefill nothing is recorded anyway."""
    assert BatchRegime.of("decode", DispatcherKind.FLAT) is BatchRegime.SMALL
    assert BatchRegime.of("decode", None) is BatchRegime.SMALL
    assert BatchRegime.of("decode", DispatcherKind.HIERARCHICAL) is BatchRegime.UNRECORDED
    assert BatchRegime.of("prefill", DispatcherKind.HIERARCHICAL) is BatchRegime.LARGE
    few = unrecorded_layer_seconds(H100, [0.0, 1e-5, 1.0])
    assert few.tolist() == [0.0, H100.kernels.attention.host_seconds, 1.0]
