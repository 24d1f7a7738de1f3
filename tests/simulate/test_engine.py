"""What an engine adds to a step, and how far a prediction may then be off."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.builders import cluster, deployment
from wingspan.schedule.result import Operation
from wingspan.simulate.step import predict, simulate
from wingspan.specs.cluster import Cluster
from wingspan.specs.engines import EngineKind, engine_named


def test_what_the_engine_adds_is_a_line_of_its_own() -> None:
    plain = simulate(deployment())
    around = simulate(deployment(options={"engine": "sglang"}))
    assert Operation.ENGINE not in plain.operation_seconds
    engine = cluster().kernels.engine
    assert engine.step_seconds == 0
    added = around.operation_seconds[Operation.ENGINE][0]
    assert added == pytest.approx(0.6e-3 + 5 * 80e-6)
    assert around.step_seconds == pytest.approx(plain.step_seconds + added, rel=1e-6)
    assert around.operation_seconds[Operation.ATTENTION] == pytest.approx(
        plain.operation_seconds[Operation.ATTENTION]
    )


@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_no_engine_is_faster_than_its_kernels(engine: str, phase: str) -> None:
    work: dict[str, Any] = {"phase": phase, "tokens_per_gpu": 512}
    assert (
        simulate(deployment(options={"engine": engine}, **work)).step_seconds
        > simulate(deployment(**work)).step_seconds
    )


def test_an_engine_that_shares_attention_over_all_ranks_reduces_and_dispatches_nothing() -> None:
    shared = {"attention_ranks": 8}
    plain = simulate(deployment(8, options=shared))
    around = simulate(deployment(8, options={**shared, "engine": "sglang"}))
    assert Operation.DISPATCH in plain.operation_seconds
    assert Operation.DISPATCH not in around.operation_seconds
    assert sum(around.sent_within_node_bytes) == 0
    # One all-reduce after attention and after the dense layer's MLP, one after the experts.
    whole = predict(deployment(8, options={**shared, "engine": "sglang"})).timeline.schedule.tasks
    assert sum(task.operation is Operation.ALL_REDUCE for task in whole) == 5 + 1 + 4
    assert around.operation_seconds[Operation.EXPERT] == pytest.approx(
        plain.operation_seconds[Operation.EXPERT]
    )


def test_an_engine_takes_the_norm_along_with_the_sum_and_hides_the_shared_experts_launches() -> None:
    """Against tensor-parallel experts without an engine: as many products, no norms, and one-shot all-reduces."""
    placed = {"placement": {"ranks": 1, "experts_per_rank": 64}, "tokens_per_gpu": 1}
    shared = {"attention_ranks": 8, "expert_tensor_parallel": 8}
    plain = simulate(deployment(8, options=shared, **placed)).operation_seconds
    around = simulate(deployment(8, options={**shared, "engine": "trtllm"}, **placed)).operation_seconds
    launch, sums = cluster().kernels.matmul.recorded_launch_seconds, 5 + 1 + 4
    assert around[Operation.EXPERT] == pytest.approx(plain[Operation.EXPERT])
    # Norms before attention and the dense MLP, before the router; two products of a shared expert.
    for operation, launches in ((Operation.ATTENTION, 5), (Operation.GATE, 4), (Operation.SHARED_EXPERT, 8)):
        saved = plain[operation][0] - around[operation][0]
        assert saved == pytest.approx(launches * launch, rel=0.05), operation
    one_shot = cluster().kernels.collective.one_shot
    assert one_shot is not None
    waited = one_shot.launch_seconds + 3 * one_shot.doubling_seconds
    rows = 8 * 1024 * 2 * 7 / (cluster().scale_up.sustained_bytes_per_second * one_shot.scale_up_share)
    assert around[Operation.ALL_REDUCE][0] == pytest.approx(sums * (waited + rows))
    assert plain[Operation.ALL_REDUCE][0] > 1.5 * around[Operation.ALL_REDUCE][0]


def test_a_group_of_an_engine_may_mix_parallel_experts_with_cut_ones() -> None:
    """EP 4 x TP 2 under attention over all eight ranks: nothing is dispatched, and each rank reads half an expert."""
    groups = {"placement": {"ranks": 4, "experts_per_rank": 16}, "tokens_per_gpu": 8}
    options = {"attention_ranks": 8, "expert_tensor_parallel": 2, "engine": "trtllm"}
    mixed = simulate(deployment(8, options=options, **groups))
    assert Operation.DISPATCH not in mixed.operation_seconds
    assert Operation.ALL_GATHER not in mixed.operation_seconds
    whole = simulate(deployment(8, options={**options, "expert_tensor_parallel": 1}, tokens_per_gpu=8))
    assert mixed.operation_seconds[Operation.ALL_REDUCE] == pytest.approx(
        whole.operation_seconds[Operation.ALL_REDUCE]
    )


def test_an_engines_group_goes_beyond_a_node() -> None:
    both = {"attention_ranks": 16, "engine": "sglang"}
    over = simulate(deployment(16, options=both)).operation_seconds
    inside = simulate(
        deployment(8, options={**both, "attention_ranks": 8}, tokens_per_gpu=128)
    ).operation_seconds
    assert Operation.DISPATCH not in over
    assert over[Operation.ALL_REDUCE][0] > 1.2 * inside[Operation.ALL_REDUCE][0]
    with pytest.raises(ValueError, match="must divide the 16 ranks and the 8 of a node"):
        deployment(16, options={"attention_ranks": 16})


def test_ranks_agree_on_a_step_only_where_there_are_several() -> None:
    vllm = engine_named(EngineKind.VLLM)
    assert vllm.agreement_seconds > 0
    apart = simulate(deployment(8, options={"engine": "vllm"})).operation_seconds[Operation.ENGINE][0]
    together = simulate(deployment(8, options={"engine": "vllm", "attention_ranks": 8})).operation_seconds
    assert together[Operation.ENGINE][0] == pytest.approx(vllm.step_seconds)
    assert apart == pytest.approx(vllm.step_seconds + vllm.agreement_seconds + 5 * vllm.layer_seconds)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["prefill", "decode"]),
    st.sampled_from(["none", "sglang"]),
    st.sampled_from(["sequential", "two-batch"]),
    st.floats(0.1, 0.8),
)
def test_more_imbalance_is_never_faster_where_weights_are_read_anyway(
    phase: str, engine: str, schedule: str, sigma: float
) -> None:
    times = [
        simulate(
            deployment(
                phase=phase,
                tokens_per_gpu=2048,
                fluctuating=False,
                routing={"kind": "log_normal", "sigma": each},
                options={"engine": engine, "schedule": schedule},
            )
        ).step_seconds
        for each in (sigma, 1.5 * sigma)
    ]
    assert times[0] <= times[1] * (1 + 2e-3)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["h100-sxm", "h200", "h20"]), st.sampled_from([8, 32]), st.sampled_from([1, 64, 512]))
def test_an_engine_and_a_foreign_gpu_widen_the_range(name: str, ranks: int, tokens: int) -> None:
    def bar(of: Cluster, **options: Any) -> float:
        report = simulate(deployment(ranks, on=of, tokens_per_gpu=tokens, options=options))
        between = report.step_range_seconds
        assert between is not None
        assert between[0] < report.step_seconds < between[1]
        assert report.rests_on
        return report.relative_error or 0.0

    here = cluster(name, gpus=ranks)
    assert bar(here, engine="vllm") > bar(here, engine="sglang")
    assert bar(here) >= bar(cluster(gpus=ranks)) * (1 - 1e-9)


def test_a_machine_that_nothing_judged_has_no_range() -> None:
    report = simulate(deployment(8, on=cluster("seed-ideal", gpus=8), expert_weights="bf16", weights="bf16"))
    assert report.step_range_seconds is None
    assert "no measurement" in report.rests_on


def test_weights_that_are_not_read_are_named_at_small_batches() -> None:
    few, many = (simulate(deployment(tokens_per_gpu=tokens)).notes for tokens in (1, 512))
    assert any("get no row and are not read" in note for note in few)
    assert not any("get no row" in note for note in many)


def test_chance_is_told_apart_from_skew() -> None:
    (note,) = [n for n in simulate(deployment(tokens_per_gpu=64)).notes if "one draw" in n]
    assert "of which chance makes" in note
    assert "% of the excess that the others wait for" in note
    even = simulate(deployment(tokens_per_gpu=64, fluctuating=False)).notes
    assert not [n for n in even if "one draw" in n]


def test_an_even_router_leaves_what_theory_says() -> None:
    """One expert per rank, 320 ranks: max / mean 1.47, 1.26, 1.14, 1.08 at 40, 120, 480, 1,280 tokens per expert."""
    rng = np.random.default_rng(0)
    for tokens, expected in ((40, 1.47), (120, 1.26), (480, 1.14), (1280, 1.08)):
        drawn = rng.multinomial(tokens * 256, np.full(256, 1 / 256), size=200)
        assert (drawn.max(axis=1) / tokens).mean() == pytest.approx(expected, abs=0.02)
