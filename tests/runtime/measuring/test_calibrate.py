"""Calibration: lines through samples by hand, and a real run of two ranks whose file loads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wingspan.runtime.calibration import calibrate
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.measuring.calibrate import Links, Measurements, Overheads, measure
from wingspan.runtime.measuring.cluster import line, measured_cluster
from wingspan.runtime.transport.transport import LocalTransport
from wingspan.specs.cluster import load_cluster, save_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision

CPU = torch.device("cpu")
PRODUCTS = {Precision.FP32: [(1e9, 0.011), (2e9, 0.021)], Precision.BF16: [(1e9, 0.021), (2e9, 0.041)]}


def found(within: list[tuple[float, float]], across: list[tuple[float, float]]) -> Measurements:
    return Measurements(4, 2, PRODUCTS, (1e9, 0.5), Links(within, across))


def test_a_line_through_exact_samples():
    assert line([(0, 1), (10, 2)]) == pytest.approx((1.0, 0.1))
    assert line([(1e3, 2e-3), (1e6, 1.001)]) == pytest.approx((1e-3, 1e-6))


def test_noise_never_gives_a_negative_latency_or_rate():
    intercept, slope = line([(10, 0.5), (100, 9.0), (1000, 100.0)])
    assert intercept >= 0
    assert slope > 0
    intercept, slope = line([(10, 5.0), (1000, 4.0)])
    assert (intercept, slope) == (0.0, 0.004)


def test_each_measurement_lands_in_its_field():
    cluster = measured_cluster(
        found([(1e3, 1.1e-3), (1e6, 101e-3)], [(1e3, 6e-3), (1e6, 1.005)]), "here", "a chip", 8e9
    )
    assert (cluster.nodes, cluster.gpus_per_node, cluster.gpu.memory_bytes) == (2, 2, 8e9)
    assert cluster.gpu.sustained_flops(Precision.FP32) == pytest.approx(1e11)
    assert cluster.gpu.sustained_flops(Precision.BF16) == pytest.approx(5e10)
    assert cluster.gpu.sustained_memory_bytes_per_second == pytest.approx(2e9)
    assert cluster.kernels.matmul.launch_seconds == pytest.approx(1e-3)
    assert cluster.scale_up.bandwidth_bytes_per_second == pytest.approx(1e7)
    assert cluster.scale_up.latency_seconds == pytest.approx(1e-3)
    assert cluster.scale_out.bandwidth_bytes_per_second == pytest.approx(1e6)
    assert cluster.scale_out.latency_seconds == pytest.approx(5e-3)


def test_a_level_that_was_not_measured_says_so():
    cluster = measured_cluster(found([(1e3, 1.1e-3), (1e6, 101e-3)], []), "here", "a chip", 8e9)
    assert cluster.scale_out == cluster.scale_up
    assert "not measured" in cluster.sources["scale_out"]
    alone = measured_cluster(Measurements(1, 1, PRODUCTS, (1e9, 0.5), Links([], [])), "here", "a chip", 8e9)
    assert alone.scale_up.bandwidth_bytes_per_second == pytest.approx(2e9)


def test_overheads_land_in_launches_and_add_up_to_what_was_measured():
    overheads = Overheads(
        attention_seconds=20e-3,
        gate_seconds=2e-3,
        experts_seconds=3e-3,
        dispatch_seconds={DispatcherKind.FLAT: 9e-3, DispatcherKind.HIERARCHICAL: 8e-3},
        combine_seconds={DispatcherKind.FLAT: 4e-3, DispatcherKind.HIERARCHICAL: 7e-3},
        cache=(1e8, 4e-3),
        process_bytes=4e8,
    )
    cluster = measured_cluster(
        replace(found([(1e3, 1.1e-3), (1e6, 101e-3)], [(1e3, 6e-3), (1e6, 1.005)]), overheads=overheads),
        "here",
        "a chip",
        8e9,
    )
    kernels, latency = cluster.kernels, cluster.scale_out.latency_seconds
    assert cluster.process_bytes == 4e8
    assert kernels.matmul.recorded_launch_seconds == pytest.approx(1e-3)
    assert 5 * 1e-3 + kernels.attention.decode_launch_seconds == pytest.approx(20e-3)
    # 1e8 FLOP in 4 ms are half of the 5e10 per second of a large product.
    assert kernels.attention.decode_share == pytest.approx(0.5)
    assert kernels.experts.recorded_launch_seconds == pytest.approx(3e-3)
    assert kernels.low_latency.dispatch.launch_seconds + latency == pytest.approx(9e-3)
    assert kernels.low_latency.combine.launch_seconds == 0
    assert kernels.normal.combine.launch_seconds + latency == pytest.approx(7e-3)


def test_one_rank_measures_no_link():
    result = measure(LocalTransport(), CPU)
    assert result.links.within == result.links.across == []
    assert result.read[1] > 0


@pytest.mark.parametrize("per_node", [1, 2])
def test_two_ranks_measure_and_the_file_loads(tmp_path: Path, per_node: int):
    path = tmp_path / "c.yaml"

    def work(transport: object) -> None:
        cluster, _ = calibrate(transport, CPU, "two")  # type: ignore[arg-type]
        if transport.world.rank == 0:  # type: ignore[attr-defined]
            save_cluster(cluster, path)

    run_ranks(work, 2, per_node, CPU)
    cluster = load_cluster(str(path))
    assert (cluster.nodes, cluster.gpus_per_node) == (2 // per_node, per_node)
    assert 1e6 < cluster.scale_up.bandwidth_bytes_per_second < 1e12
    assert 1e8 < cluster.gpu.sustained_flops(Precision.FP32) < 1e14
    assert 1e8 < (cluster.process_bytes or 0) < 5e9
    assert cluster.kernels.attention.decode_launch_seconds > 0
    assert ("scale_up" in cluster.sources) == (per_node == 1)
