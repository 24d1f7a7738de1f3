"""Clusters: the presets say what their sources say, and wrong ones are refused."""

from pathlib import Path

import pytest

from wingspan.errors import InputError
from wingspan.specs.cluster import Cluster, cluster_presets, load_cluster, save_cluster
from wingspan.specs.kernels import kernels_named
from wingspan.specs.precision import Precision
from wingspan.specs.reading import parse


def data() -> dict[str, object]:
    return load_cluster("h100-sxm").model_dump()


@pytest.mark.parametrize("name", cluster_presets())
def test_every_preset_loads_and_names_its_sources(name: str):
    cluster = load_cluster(name)
    assert cluster.name == name
    assert cluster.sources
    assert cluster.kernels.matmul.source


def test_the_presets_that_the_project_promises():
    assert {"seed-ideal", "h100-sxm", "h800", "h200", "b200", "gb200-nvl72"} <= set(cluster_presets())


def test_the_seeds_cluster_exactly_as_written():
    cluster = load_cluster("seed-ideal")
    assert cluster.gpu.sustained_flops(Precision.BF16) == pytest.approx(240e12)
    assert cluster.gpu.sustained_memory_bytes_per_second == pytest.approx(1.44e12)
    assert cluster.gpu.memory_bytes == 64e9
    assert cluster.scale_up.sustained_bytes_per_second == pytest.approx(1.44e12)
    assert cluster.scale_out.sustained_bytes_per_second == pytest.approx(1.44e12)


def test_real_links_are_given_per_direction():
    cluster = load_cluster("h100-sxm")
    assert cluster.scale_up.bandwidth_bytes_per_second == 450e9
    assert cluster.scale_out.bandwidth_bytes_per_second == 50e9
    assert load_cluster("h800").scale_up.bandwidth_bytes_per_second == 200e9


def test_an_nvlink_domain_larger_than_a_node():
    cluster = load_cluster("gb200-nvl72")
    assert (cluster.gpus_per_node, cluster.scale_up_domain_gpus, cluster.gpus) == (4, 72, 72)


def test_other_numbers_of_gpus():
    cluster = load_cluster("h100-sxm")
    assert cluster.with_gpus(256).nodes == 32
    small = cluster.with_gpus(4)
    assert (small.nodes, small.gpus_per_node, small.scale_up_domain_gpus) == (1, 4, 4)
    with pytest.raises(InputError, match="12 GPUs do not fill whole nodes of 8"):
        cluster.with_gpus(12)
    with pytest.raises(InputError, match="0 GPUs"):
        cluster.with_gpus(0)


def test_a_file_gives_the_same_cluster_back(tmp_path: Path):
    for name in cluster_presets():
        cluster = load_cluster(name)
        save_cluster(cluster, tmp_path / "c.yaml")
        assert load_cluster(str(tmp_path / "c.yaml")) == cluster


def test_saving_where_nothing_can_be_written(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be written"):
        save_cluster(load_cluster("h800"), tmp_path / "no" / "c.yaml")


def test_errors_name_the_key():
    with pytest.raises(
        InputError,
        match=r"x\.yaml: scale_up_domain_gpus 3 and gpus_per_node 8 do not divide each other; use 8",
    ):
        parse(Cluster, data() | {"scale_up_domain_gpus": 3}, "x.yaml")
    with pytest.raises(InputError, match="unknown key gpus_per_nod; did you mean gpus_per_node"):
        parse(Cluster, data() | {"gpus_per_nod": 8}, "x.yaml")
    with pytest.raises(InputError, match=r"gpu\.peak_flops"):
        parse(Cluster, data() | {"gpu": data()["gpu"] | {"peak_flops": {"fp7": 1e12}}}, "x.yaml")  # type: ignore[operator]


def test_an_unknown_name_lists_the_presets():
    with pytest.raises(InputError, match=r"h900: neither a cluster file nor a preset; presets: .*h800"):
        load_cluster("h900")


def test_a_precision_that_the_device_lacks():
    with pytest.raises(InputError, match="H100 SXM has no peak_flops for fp4; use one of fp8"):
        load_cluster("h100-sxm").gpu.sustained_flops(Precision.FP4)


def test_unknown_kernels_are_named():
    with pytest.raises(InputError, match=r"kernels x9: no such preset; use one of .*ideal"):
        kernels_named("x9")
    with pytest.raises(InputError, match="kernels x9"):
        parse(Cluster, data() | {"kernels": "x9"}, "x.yaml")


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_cluster("h800").nodes = 3  # type: ignore[misc]
