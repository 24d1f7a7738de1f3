from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from tests.simulate.published.table import row, write
from wingspan.interop.published.rows import read_published
from wingspan.placement.balanced import rank_load
from wingspan.schedule.result import Operation
from wingspan.simulate.published.judge import decisions, groups, trends
from wingspan.simulate.published.points import Kind, PublishedPoint, points_of
from wingspan.simulate.published.setups import setup_of
from wingspan.simulate.step import simulate
from wingspan.specs.engines import profile_of
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision
from wingspan.traffic.shares import expert_shares


def _points(tmp_path: Path, *rows: dict[str, str]) -> tuple[list[PublishedPoint], dict[str, list[str]]]:
    return points_of(read_published(write(tmp_path / "published.csv", *rows)))


def test_a_row_becomes_the_deployment_that_it_names(tmp_path: Path) -> None:
    write(tmp_path / "p.csv", row("A", overlap="TBO + EPLB (32 redundant)", seq="1800 in / 100 out"))
    (found,) = read_published(tmp_path)
    deployment = setup_of(found).deployment
    assert deployment.model.name == "deepseek-v3"
    assert (deployment.ranks, deployment.placement.experts_per_rank) == (72, 4)
    assert deployment.workload.context.mean_tokens == 1850
    assert deployment.options.schedule == "two-batch"


@pytest.mark.parametrize(
    ("overlap", "schedule"),
    [
        ("no TBO", "sequential"),
        ("TBO", "two-batch"),
        ("DBO", "two-batch"),
        ("SBO", "single-batch"),
        ("MegaMoE", "fused"),
        ("-", "sequential"),
    ],
)
def test_what_a_row_says_of_overlap_is_its_schedule(tmp_path: Path, overlap: str, schedule: str) -> None:
    (found,) = read_published(write(tmp_path / "p.csv", row("A", overlap=overlap)))
    assert setup_of(found).deployment.options.schedule == schedule


@pytest.mark.parametrize(
    ("text", "preset"),
    [
        ("DeepSeek-V3/R1 671B (256 exp, top-8)", "deepseek-v3"),
        ("DeepSeek R1 0528", "deepseek-v3"),
        ("DeepSeek-V3.2-Exp", "deepseek-v3.2"),
        ("DeepSeek V4 Pro", "deepseek-v4-pro"),
        ("Kimi-K2.5", "kimi-k2.5"),
        ("Qwen3-235B-A22B-FP8", "qwen3-235b-a22b"),
    ],
)
def test_a_model_is_the_preset_that_its_name_has(tmp_path: Path, text: str, preset: str) -> None:
    (found,) = read_published(write(tmp_path / "p.csv", row("A", model=text)))
    assert setup_of(found).deployment.model.name == load_model(preset).name


def test_a_model_of_a_family_alone_is_no_preset(tmp_path: Path) -> None:
    """It was once taken for DeepSeek-V3."""
    _, refused = _points(tmp_path, row("A", model="DeepSeek-V4"))
    assert [*refused] == ["no preset of the model DeepSeek-V4"]


def test_tokens_tried_ahead_are_read_from_the_row(tmp_path: Path) -> None:
    """SGLang counts the sequence's next token among its drafts, vLLM does not."""
    rows = (
        row("A", precision="FP8 + MTP(2)"),
        row("B", notes="MTP 60% accept"),
        row("C", system="vLLM", precision="FP8 + MTP(2)"),
    )
    first, second, third = (setup_of(r) for r in read_published(write(tmp_path / "p.csv", *rows)))
    assert first.deployment.workload.mtp_tokens == 1
    assert third.deployment.workload.mtp_tokens == 2
    assert any("tried ahead" in each for each in first.assumed)
    assert (second.deployment.workload.mtp_tokens, second.deployment.workload.acceptance) == (1, 0.6)


def test_h20s_row_means_attention_in_fp8_and_four_cards_for_eight_gpus(tmp_path: Path) -> None:
    of = {"system": "SGLang Ant Group", "hardware": "H20-96G, 4x400Gb NIC/node", "ep": "16"}
    fp8, bf16 = (
        setup_of(found).deployment
        for found in read_published(
            write(
                tmp_path / "p.csv",
                row("A", **of, precision="FP8 + MTP(2)"),
                row("B", **of, precision="BF16 + MTP(2)"),
            )
        )
    )
    assert fp8.cluster.gpus_per_network_card == 2
    assert (fp8.precisions.core, bf16.precisions.core) == (Precision.FP8, Precision.BF16)


def test_a_librarys_exchange_has_its_own_constants(tmp_path: Path) -> None:
    of = {"hardware": "H100", "ep": "32", "batch_per_gpu": "128", "metric": "dispatch_latency", "unit": "us"}
    slow, usual = (
        points_of([found])[0][0].predicted
        for found in read_published(
            write(
                tmp_path / "p.csv",
                row("A", **of, system="pplx-kernels (IBGDA)"),
                row("B", **of, system="DeepEP"),
            )
        )
    )
    assert slow > 1.5 * usual


def test_one_sequence_on_many_gpus_is_a_fraction_of_one_per_gpu(tmp_path: Path) -> None:
    (found,) = read_published(
        write(tmp_path / "p.csv", row("A", ep="8", batch_per_gpu="0.125", overlap="TP8"))
    )
    deployment = setup_of(found).deployment
    assert deployment.workload.total_sequences == 1
    assert deployment.options.attention_ranks == 8
    assert deployment.replicated


@pytest.mark.parametrize("stated", [0.6, 0.78, 0.9])
def test_a_published_balance_is_the_balance_of_the_step(tmp_path: Path, stated: float) -> None:
    metric = f"throughput at balancedness {stated:.3f}"
    (found,) = read_published(write(tmp_path / "p.csv", row("A", metric=metric, batch_per_gpu="4096")))
    deployment = setup_of(found).deployment
    shares_LE = expert_shares(deployment.model, deployment.workload)
    load_LR = rank_load(deployment.build_placement(), shares_LE)
    assert (load_LR.mean(axis=1) / load_LR.max(axis=1)).mean() == pytest.approx(stated, abs=0.02)


def test_errors_are_of_time_whatever_the_unit(tmp_path: Path) -> None:
    rows = (row("A"), row("A2", value="22000"), row("B", metric="per-layer overall", value="1", unit="ms"))
    points, refused = _points(tmp_path, *rows)
    assert not refused
    half, double, layer = points
    # Twice the rate is half the time: the same prediction is then twice as slow.
    assert (1 + double.error) == pytest.approx(2 * (1 + half.error))
    assert layer.predicted == pytest.approx(72 / 9 * 64 / half.predicted / 61 * 1e3)


def test_a_profiles_parts_are_a_predictions_without_what_it_names_otherwise(tmp_path: Path) -> None:
    """The barrier before a normal combine is apart in a profile, and kernels that sort and sum are no products."""
    of = {"phase": "prefill", "ep": "32", "batch_per_gpu": "4096", "unit": "ms", "value": "1"}
    rows = [
        row(name, **of, metric=f"per-layer {name}") for name in ("dispatch core", "combine core", "MoE GEMM")
    ]
    points, refused = _points(tmp_path, *rows)
    assert not refused
    setup = points[0].setup
    assert setup is not None
    report = simulate(setup.deployment)

    def share(operation: Operation, point: PublishedPoint) -> float:
        whole = float(np.mean(report.operation_seconds[operation])) * 1e3 / 58
        return point.predicted / whole

    dispatch, combine, products = points
    barrier = profile_of(setup.deployment.options.engine).normal_combine
    assert share(Operation.DISPATCH, dispatch) == pytest.approx(1)
    assert share(Operation.COMBINE, combine) == pytest.approx(1 / barrier)
    assert 0.7 < share(Operation.EXPERT, products) < 0.95


def test_the_split_is_by_id(tmp_path: Path) -> None:
    points, _ = _points(tmp_path, row("SGL019"), row("SGL020"))
    assert [point.row.for_fitting for point in points] == [True, False]


def test_what_is_not_predicted_is_named_with_the_reason(tmp_path: Path) -> None:
    rows = (
        row("M", precision="FP8 + MTP(2)", model="a model of nobody"),
        row("T", metric="throughput", unit="TFLOPS/GPU"),
        row("H", hardware="an abacus"),
        row("V", value="1 / 2"),
    )
    points, refused = _points(tmp_path, *rows)
    assert points == []
    assert sorted(chain.from_iterable(refused.values())) == ["H", "M", "T", "V"]
    assert any("abacus" in reason for reason in refused)


def test_exchanges_are_predicted_in_their_unit(tmp_path: Path) -> None:
    alone = {"phase": "comm microbench", "ep": "32", "batch_per_gpu": "128", "precision": "FP8 dispatch"}
    points, refused = _points(
        tmp_path,
        row("D", **alone, metric="dispatch_latency", unit="us", value="150"),
        row("W", **{**alone, "batch_per_gpu": "4096"}, metric="combine_bw", unit="GB/s", value="50"),
    )
    assert not refused
    assert {point.kind for point in points} == {Kind.EXCHANGE}
    assert 50 < points[0].predicted < 500
    assert 20 < points[1].predicted < 120


def test_an_exchange_keeps_less_of_its_speed_on_more_ranks(tmp_path: Path) -> None:
    says = {"ep": "8->64", "hardware": "-", "phase": "-", "unit": "ratio", "value": "0.8"}
    wide = "per-GPU throughput (or 1/latency) kept from EP8 to EP64"
    points, refused = _points(
        tmp_path,
        row("A", **says, system="GB200 one-sided A2A 128 tok", metric=wide),
        row("B", **says, system="GB200 one-sided A2A 128 tok", metric=wide.replace("EP64", "EP16")),
        row("C", **says, system="GB200 one-sided A2A", metric=wide),
        row("D", **says, system="an abacus, 128 tok", metric=wide),
    )
    assert {point.kind for point in points} == {Kind.KEPT}
    assert 0.5 < points[0].predicted < points[1].predicted < 1
    assert sorted(chain.from_iterable(refused.values())) == ["C", "D"]


def test_trends_and_decisions_compare_what_differs_in_one_thing(tmp_path: Path) -> None:
    points, _ = _points(
        tmp_path,
        row("A"),
        row("B", overlap="TBO", value="9000"),
        row("C", batch_per_gpu="256", value="20000"),
        row("D", batch_per_gpu="256", hardware="H800", value="1"),
    )
    found = trends(points)
    assert {trend.ids for trend in found} == {("A", "B"), ("A", "C")}
    by_ids = {trend.ids: trend for trend in found}
    assert by_ids["A", "C"].published == pytest.approx(9 / 11)
    assert by_ids["A", "C"].right
    (decision,) = decisions(points)
    assert decision.best == "C"
    assert decision.regret == 0
    assert decision.kendall == pytest.approx(1)
    assert next(group.name for group in groups(points)) == "steps"
