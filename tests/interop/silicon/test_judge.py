"""Judging a hand-made folder whose measurements are the model's own, distorted by a known factor; and the real one."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wingspan.cost.compute import matmul_seconds
from wingspan.errors import InputError
from wingspan.interop.silicon.headlines import headlines
from wingspan.interop.silicon.judge import judge
from wingspan.interop.silicon.sources import SOURCES, read_folder, read_newer
from wingspan.interop.silicon.tables import read_table
from wingspan.specs.cluster import load_cluster
from wingspan.specs.precision import Precision

REAL = Path(os.environ.get("WINGSPAN_MEASUREMENTS", "no-such-folder"))
"""A folder with the tables of both projects and the authors' figures (docs/cost-model.md), where one is named."""


def write_products(folder: Path, factor: float) -> None:
    """Dense products that take `factor` times as long as predicted."""
    cluster = load_cluster("h800")
    lines = ["m,k,n,latency_us,mfu"]
    for m in range(16, 16 * 41, 16):
        seconds = float(matmul_seconds(cluster, m, 4096, 4096, Precision.FP8, Precision.FP8))
        lines.append(f"{m},4096,4096,{seconds * 1e6 * factor},0")
    (folder / "infersim_gemm_h800_data.csv").write_text("\n".join(lines))


def test_a_known_error_is_found(tmp_path: Path):
    write_products(tmp_path, factor=1.25)
    (verdict,) = judge(read_folder(tmp_path), load_cluster)
    assert verdict.median == pytest.approx(0.2)
    assert verdict.bias == pytest.approx(-0.2)
    assert verdict.fitted_rows + verdict.judged_rows == 40
    assert verdict.holds is False
    assert verdict.to_dict()["holds"] is False


def test_a_perfect_prediction_holds(tmp_path: Path):
    write_products(tmp_path, factor=1.0)
    (verdict,) = judge(read_folder(tmp_path), load_cluster)
    assert verdict.p90 == pytest.approx(0, abs=1e-9)
    assert verdict.holds is True


def test_suspect_rows_are_judged_but_never_fitted_and_promise_nothing(tmp_path: Path):
    header = (
        "node_num,hidden_size,num_token,num_topk,num_experts,dispatch_sms,dispatch_transmit_us,"
        "dispatch_notify_us,combine_sms,combine_transmit_us,combine_notify_us"
    )
    rows = [f"{nodes},7168,{tokens},8,256,20,100,0,20,100,0" for nodes in (2, 8) for tokens in range(1, 20)]
    name = "aiconfigurator_h100_sxm-comm_sglang_0.5.6.post2_wideep_deepep_normal_perf.csv"
    (tmp_path / name).write_text("\n".join([header, *rows]))
    verdicts = judge(read_folder(tmp_path), load_cluster)
    suspect = [v for v in verdicts if v.suspect]
    assert [v.group for v in suspect] == ["dispatch: normal, 8 nodes", "combine: normal, 8 nodes"]
    assert all(v.fitted_rows == 0 and v.holds is None for v in suspect)
    assert all(v.fitted_rows > 0 for v in verdicts if not v.suspect)


def test_a_table_is_found_where_its_project_keeps_it(tmp_path: Path):
    write_products(tmp_path, factor=1.0)
    (source,) = (source for source in SOURCES if source.kind == "infersim_gemm")
    kept = tmp_path / "InferSim" / source.path
    kept.parent.mkdir(parents=True)
    (tmp_path / source.csv_name).rename(kept)
    assert read_folder(tmp_path) == []
    (verdict,) = judge(read_folder(tmp_path / "InferSim"), load_cluster)
    assert verdict.holds is True


def test_names_in_one_folder_tell_tables_apart():
    names = [source.csv_name for source in SOURCES]
    assert len(set(names)) == len(names)
    assert "aiconfigurator_h100_sxm-comm_nccl_2.29.2_nccl_perf.csv" in names
    assert "infersim_mla_decode_h800_128-512-64.csv" in names


def test_an_empty_folder_has_no_groups(tmp_path: Path):
    assert read_folder(tmp_path) == []


def install_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable aiconfigurator_core with two versions of one H200 table; returns the newer one's folder."""
    package = folder / "site" / "aiconfigurator_core"
    for version, latency in (("0.5.9", 9.0), ("0.5.10", 1.0)):
        table = package / "systems/data/h200_sxm/moe/sglang" / version
        table.mkdir(parents=True)
        rows = {
            "num_tokens": [256, 512],
            "hidden_size": [7168, 7168],
            "inter_size": [2048, 2048],
            "topk": [8, 8],
            "num_experts": [256, 256],
            "moe_ep_size": [64, 64],
            "distribution": ["uniform", "power_law_1.2"],
            "latency": [latency, latency],
        }
        pq.write_table(pa.table(rows), table / "wideep_generation_moe_perf.parquet")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(folder / "site"))
    return table


def test_the_packages_newest_tables_judge_and_what_was_not_fitted_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install_package(tmp_path, monkeypatch)
    uniform, skewed = read_newer()
    assert (uniform.name, skewed.name) == (
        "h200: experts: decode, uniform",
        "h200: experts: decode, power law",
    )
    assert uniform.measured.tolist() == [1e-3]
    assert not uniform.for_fitting.any()
    assert [v.holds for v in judge([uniform, skewed], load_cluster)] == [None, None]


def test_a_broken_table_of_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = install_package(tmp_path, monkeypatch) / "wideep_generation_moe_perf.parquet"
    broken.write_text("not parquet")
    with pytest.raises(InputError, match=r"wideep_generation_moe_perf\.parquet: cannot be read as Parquet"):
        read_newer()


@pytest.mark.skipif(find_spec("aiconfigurator_core") is not None, reason="the package is installed here")
def test_without_the_package():
    with pytest.raises(InputError, match="pip install aiconfigurator-core"):
        read_newer()


def test_headlines_compare_times(tmp_path: Path):
    path = tmp_path / "published_kernels.csv"
    path.write_text(
        "id,system,hardware,ep,precision,batch_per_gpu,seq,metric,value\n"
        "A,DeepEP V1 low-latency kernels,H800,16,FP8 dispatch / BF16 combine,128,-,LL_dispatch_latency,118\n"
        "B,DeepGEMM dense,H800 SXM,-,FP8,4096,N=7168 K=2048,compute,1168\n"
        "C,something else,H800,8,FP8,1,-,compute,1\n"
    )
    latency, product = headlines(read_table(path), load_cluster)
    assert (latency.id, product.id) == ("A", "B")
    assert latency.error == pytest.approx(latency.predicted / 118 - 1)
    # A rate that is predicted too high is a time that is too short.
    assert product.error == pytest.approx(1168 / product.predicted - 1)
    assert latency.card is not None
    assert latency.card < 50


@pytest.mark.skipif(not REAL.is_dir(), reason="the published measurements are not here")
def test_the_real_tables_meet_what_the_project_promises():
    verdicts = judge(read_folder(REAL), load_cluster)
    promised = [v for v in verdicts if v.target is not None]
    assert len(promised) >= 9
    assert [v.group for v in promised if not v.holds] == []
    printed = headlines(read_table(REAL / "published_kernels.csv"), load_cluster)
    assert len(printed) > 50
    assert np.median(np.abs([h.error for h in printed])) < 0.15
