"""Clusters as people write them: bases, variants, keys on one line, and what is wrong with any of them."""

from pathlib import Path

import pytest

from wingspan.errors import InputError
from wingspan.specs.cluster import cluster_presets, load_cluster
from wingspan.specs.cluster_files import (
    cluster_variants,
    described_presets,
    described_variants,
    has_any_size,
)
from wingspan.specs.precision import Precision

H100 = load_cluster("h100-sxm")


def written(folder: Path, text: str, name: str = "ours.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_two_network_cards_for_eight_gpus():
    shared = load_cluster("h100-sxm+gpus-per-network-card=4")
    assert (shared.gpus_per_network_card, shared.network_cards_per_node) == (4, 2)
    assert shared.network_share_bytes_per_second == pytest.approx(H100.network_share_bytes_per_second / 4)
    assert shared.name == "h100-sxm+gpus-per-network-card=4"


def test_nodes_of_another_size_keep_no_link_that_they_do_not_have():
    assert load_cluster("h100-sxm+gpus_per_node=4").scale_up_domain_gpus == 4
    assert load_cluster("h100-sxm+gpus_per_node=1").scale_up_domain_gpus == 1
    assert load_cluster("h100-sxm+gpus_per_network_card=8+gpus_per_node=2").gpus_per_network_card == 2
    assert load_cluster("gb200-nvl72+gpus_per_node=2").scale_up_domain_gpus == 36
    assert load_cluster("h100-sxm+gpus_per_node=4").scale_up_domain_gpus == H100.part(4).scale_up_domain_gpus


def test_pcie_alone_is_a_domain_of_one_node_that_is_slower():
    alone = load_cluster("gb200-nvl72+pcie5")
    assert (alone.gpus_per_node, alone.scale_up_domain_gpus) == (4, 4)
    assert alone.scale_up.bandwidth_bytes_per_second < H100.scale_up.bandwidth_bytes_per_second / 5


@pytest.mark.parametrize("variant", cluster_variants())
def test_every_variant_goes_with_every_preset_and_says_why_it_knows_less(variant: str):
    for name in cluster_presets():
        base, changed = load_cluster(name), load_cluster(f"{name}+{variant}")
        assert changed.gpu == base.gpu
        assert len(changed.extrapolations) > len(base.extrapolations)
        assert changed.sources != base.sources


def test_a_file_says_what_differs(tmp_path: Path):
    path = written(
        tmp_path,
        "base: h100-sxm+efa\ngpus_per_node: 4\ngpu: {memory_bytes: 94.0e+9}\nscale_up_domain_gpus: 1\n",
    )
    ours = load_cluster(path)
    assert (ours.name, ours.gpus_per_node, ours.scale_up_domain_gpus) == ("ours", 4, 1)
    assert ours.gpu.memory_bytes == 94e9
    assert ours.gpu.peak_flops == H100.gpu.peak_flops
    assert ours.scale_out == load_cluster("h100-sxm+efa").scale_out
    further = load_cluster(written(tmp_path, "base: ours.yaml\nnodes: 3\n", "further.yaml"))
    assert (further.nodes, further.gpus_per_node) == (3, 4)
    assert load_cluster(f"{path}+nodes=5").nodes == 5


def test_rates_are_replaced_as_a_whole_and_kernels_one_by_one():
    a100 = load_cluster("a100")
    assert set(a100.gpu.peak_flops) == {
        Precision.INT8,
        Precision.BF16,
        Precision.FP16,
        Precision.FP32,
    }
    assert a100.kernels.matmul.processors == 108
    assert a100.kernels.matmul.launch_seconds == H100.kernels.matmul.launch_seconds
    assert a100.kernels.experts == H100.kernels.experts


def test_how_many_nodes_is_open_unless_somebody_says(tmp_path: Path):
    assert has_any_size("h100-sxm")
    assert has_any_size("h100-sxm+efa+gpus_per_node=4")
    assert not has_any_size("h100-sxm+nodes=2")
    assert has_any_size(written(tmp_path, "base: h100-sxm\n"))
    assert not has_any_size(written(tmp_path, "base: h100-sxm\nnodes: 2\n"))
    assert not has_any_size("nothing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h100-sxn", "did you mean h100-sxm"),
        ("h100-sxm+rocee", "no variant 'rocee'; did you mean roce"),
        ("h100-sxm+gpus_per_nod=4", "unknown key gpus_per_nod; did you mean gpus_per_node"),
        ("h100-sxm+gpus_per_node=0", "gpus_per_node = 0"),
        ("h100-sxm+gpus_per_node=x", "gpus_per_node = 'x'"),
        ("h100-sxm+gpus_per_network_card=9", "more than the 8 GPUs of a node"),
        ("h100-sxm+gpu.memory=1", r"unknown key gpu\.memory"),
        ("h100-sxm+gpu=1", "gpu"),
        ("h100-sxm+nodes=[", "not a value"),
        ("h100-sxm+extrapolations={x: {because: y, wider: {expert: 1}}}", "expert: no such operation"),
        ("h100-sxm+", "no variant ''"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str):
    with pytest.raises(InputError, match=said):
        load_cluster(text)


def test_bases_that_lead_nowhere(tmp_path: Path):
    first, second = str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")
    written(tmp_path, f"base: {second}\n", "a.yaml")
    written(tmp_path, f"base: {first}\n", "b.yaml")
    with pytest.raises(InputError, match="leads back to itself"):
        load_cluster(first)
    with pytest.raises(InputError, match="base = 3"):
        load_cluster(written(tmp_path, "base: 3\n"))
    with pytest.raises(InputError, match="h900: neither a cluster file nor a preset"):
        load_cluster(written(tmp_path, "base: h900\n"))


def test_every_preset_and_variant_says_what_it_is_in_its_first_line():
    for said in (described_presets() | described_variants()).values():
        assert said.endswith(".")
        assert len(said) < 120
