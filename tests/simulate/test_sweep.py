"""Sweeps: points in order, changes applied, baselines that compare like with like, sentences that hold."""

from __future__ import annotations

import pytest

from wingspan.deployment import Options
from wingspan.errors import InputError
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint
from wingspan.simulate import sweep_axes as axes
from wingspan.simulate.findings import findings
from wingspan.simulate.scaling import parallel_efficiency
from wingspan.simulate.step import simulate
from wingspan.simulate.sweep import MOST_POINTS, Setting, sweep
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, LogNormalRouting, Workload


@pytest.fixture(scope="module")
def base() -> Setting:
    return Setting(
        model=load_model("seed"),
        cluster=load_cluster("h100-sxm"),
        gpus=16,
        workload=Workload(tokens_per_gpu=16, context=Context(mean_tokens=128)),
        options=Options(),
        scale_experts=True,
    )


def test_points_come_in_the_order_of_the_axes_and_are_those_of_the_simulator(base: Setting) -> None:
    done = []
    result = sweep(
        base, [axes.batch_axis([4, 8]), axes.ranks_axis([16, 32])], {"a": "b"}, lambda: done.append(1)
    )
    assert [tuple(p.at.values()) for p in result.points] == [(4, 16), (4, 32), (8, 16), (8, 32)]
    assert len(done) == 4
    assert result.conditions == {"a": "b"}
    deployment = axes.with_batch(base, 8).deployment()
    report = simulate(deployment)
    point = result.points[2]
    assert point.step_seconds == report.step_seconds
    assert point.tokens_per_second_per_gpu == report.tokens_per_second / 16
    assert point.parallel_efficiency == parallel_efficiency(deployment, report)
    assert point.fits == (max(report.peak_memory_bytes) <= 80e9)


def test_the_baseline_keeps_gpus_experts_and_tokens_per_gpu(base: Setting) -> None:
    result = sweep(base, [axes.experts_per_rank_axis([1, 4, 16])], {})
    assert [(p.ranks, p.experts_per_rank) for p in result.points] == [(16, 1), (4, 4), (1, 16)]
    assert {p.tokens / p.ranks for p in result.points} == {16}
    alone = result.points[2]
    assert alone.exposed_share == pytest.approx(0, abs=1e-9)  # one GPU with every expert sends nothing


def test_combinations_that_cannot_be_are_left_out_and_said(base: Setting) -> None:
    result = sweep(base, [axes.experts_per_rank_axis([1, 3, 32])], {})
    assert [p.experts_per_rank for p in result.points] == [1]
    assert "left out: 32 experts per GPU are more than the 16 experts" in result.notes
    assert any("16 GPUs do not form whole groups of 6" in note for note in result.notes)
    with pytest.raises(InputError, match="nothing to predict; left out"):
        sweep(base, [axes.experts_per_rank_axis([32, 64])], {})


def test_each_axis_changes_what_it_names(base: Setting) -> None:
    ideal = load_cluster("seed-ideal")
    choices = {
        axis.name: axis.choices[0].apply(base)
        for axis in (
            axes.cluster_axis([ideal]),
            axes.schedule_axis(["chunks:5"]),
            axes.routing_axis(["log-normal:0.7"]),
            axes.bandwidth_axis([25]),
            axes.context_axis([999]),
            axes.batch_axis([3]),
            axes.experts_per_rank_axis([2]),
            axes.ranks_axis([64]),
        )
    }
    assert choices["cluster"].cluster == ideal
    assert choices["schedule"].options.schedule == "chunks:5"
    assert choices["routing"].workload.routing == LogNormalRouting(sigma=0.7)
    assert choices["bandwidth"].cluster.scale_out.bandwidth_bytes_per_second == 25e9
    assert choices["context"].workload.context.mean_tokens == 999
    assert choices["tokens_per_gpu"].workload.tokens_per_gpu == 3
    assert choices["experts_per_rank"].ranks == 8
    assert choices["ranks"].deployment().model.experts.count == 64
    assert axes.with_routing("uniform")(choices["routing"]).workload.routing.kind == "uniform"


def test_more_bandwidth_is_never_slower_and_fastest_is_the_fastest(base: Setting) -> None:
    result = sweep(base, [axes.bandwidth_axis([5, 50, 500])], {})
    steps = [p.step_seconds for p in result.points]
    assert steps == sorted(steps, reverse=True)
    names = ["sequential", "chunks:2", "two-batch", "fastest"]
    result = sweep(base, [axes.schedule_axis(names)], {})
    each = {p.at["schedule"]: p.step_seconds for p in result.points}
    assert each.pop("fastest") == min(each.values())


@pytest.mark.parametrize("name", ["", "quick", "chunks", "chunks:0", "chunks:x", "two-batch:2"])
def test_unknown_schedules_are_refused(base: Setting, name: str) -> None:
    with pytest.raises(InputError):
        axes.with_schedule(base, name)


def test_bad_sweeps_are_refused(base: Setting) -> None:
    with pytest.raises(InputError, match="nothing is varied"):
        sweep(base, [], {})
    with pytest.raises(InputError, match="more than"):
        sweep(base, [axes.batch_axis(range(1, MOST_POINTS + 2))], {})
    with pytest.raises(InputError, match="must be above 0"):
        axes.with_bandwidth(base, 0)
    with pytest.raises(InputError, match="do not fill whole nodes"):
        sweep(base, [axes.ranks_axis([12])], {})


def point(
    rate: float, at: dict[str, int], efficiency: float = 1.0, experts: int = 1, fits: bool = True
) -> SweepPoint:
    return SweepPoint(
        at=dict(at), ranks=16, experts_per_rank=experts, schedule="sequential", tokens=16, step_seconds=1.0,
        tokens_per_second=rate * 16, tokens_per_second_per_gpu=rate, parallel_efficiency=efficiency,
        exposed_share=0.0, imbalance=1.0, peak_memory_bytes=1, fits=fits,
    )  # fmt: skip


def axis(name: str, *values: int) -> SweepAxis:
    return SweepAxis(name=name, label=name, values=list(values))


@pytest.mark.parametrize(
    ("efficiencies", "words"),
    [
        ((0.99, 0.95, 0.91), "stays above 90 % throughout"),
        ((0.99, 0.93, 0.7), "is above 90 % up to EP 32, below from EP 64 on"),
        ((0.8, 0.7, 0.6), "is below 90 % from the start"),
    ],
)
def test_how_far_scaling_holds(efficiencies: tuple[float, float, float], words: str) -> None:
    points = [point(1, {"ranks": ep}, share) for ep, share in zip((16, 32, 64), efficiencies, strict=True)]
    (sentence,) = findings([axis("ranks", 16, 32, 64)], points)
    assert words in sentence
    assert f"{efficiencies[1] * 100:.1f} % at EP 32" in sentence


def baseline(rates: dict[int, float], unfit: tuple[int, ...] = ()) -> str:
    points = [
        point(rate, {"experts_per_rank": count}, experts=count, fits=count not in unfit)
        for count, rate in rates.items()
    ]
    (sentence,) = findings([axis("experts_per_rank", *rates)], points)
    return sentence


def test_the_crossover_is_named() -> None:
    assert "best is one expert per GPU; throughput of others against it: 2: 0.90 x" in baseline(
        {1: 10, 2: 9, 4: 8}
    )
    said = baseline({1: 10, 2: 11, 4: 12, 8: 10.5, 16: 9})
    assert "best is 4 experts per GPU; the crossover is at 16: from there on one is better" in said
    assert "no crossover" in baseline({1: 10, 2: 11, 4: 12})


def test_what_does_not_fit_is_not_best() -> None:
    said = baseline({1: 10, 2: 11, 4: 12}, unfit=(4,))
    assert "best is 2 experts per GPU (4 per GPU do not fit into memory)" in said
    assert "none fits into memory" in baseline({1: 10, 2: 11}, unfit=(1, 2))


def test_over_batches_the_best_count_is_told_in_stretches() -> None:
    counts = {1: (3.0, 2.0), 8: (3.0, 2.0), 64: (2.0, 3.0)}
    points = [
        point(rate, {"tokens_per_gpu": batch, "experts_per_rank": experts}, experts=experts)
        for batch, rates in counts.items()
        for experts, rate in zip((1, 4), rates, strict=True)
    ]
    said = findings([axis("tokens_per_gpu", 1, 8, 64), axis("experts_per_rank", 1, 4)], points)
    assert (
        said[0] == "best number of experts per GPU: 1 at tokens_per_gpu 1 to 8, then 4 at tokens_per_gpu 64"
    )
    assert len(said) == 4
