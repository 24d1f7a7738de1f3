"""What must hold of every prediction."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.builders import cluster, deployment, model
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.routing.load import imbalance
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import COMMUNICATION
from wingspan.simulate.scaling import with_experts
from wingspan.simulate.step import predict, simulate
from wingspan.specs.cluster import Cluster
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision

_STREAMED: list[dict[str, Any]] = [{"schedule": "single-batch"}, {"schedule": "fused"}]
_SCHEDULES: list[dict[str, Any]] = [
    {"schedule": "sequential"},
    {"schedule": "chunks:2"},
    {"schedule": "chunks:3"},
    {"schedule": "two-batch"},
]
_WORK = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(["prefill", "decode"]),
        "tokens_per_gpu": st.sampled_from([1, 7, 64, 512, 4096]),
        "routing": st.sampled_from(
            [
                {"kind": "uniform"},
                {"kind": "power_law", "exponent": 0.7},
                {"kind": "log_normal", "sigma": 0.8},
            ]
        ),
        "fluctuating": st.booleans(),
        "seed": st.integers(0, 3),
    }
)
_OPTIONS = st.builds(
    lambda ordered, group: {**ordered[0], "dispatcher": ordered[1], "attention_ranks": group},
    st.one_of(
        st.tuples(st.sampled_from(_SCHEDULES), st.sampled_from(["flat", "hierarchical"])),
        st.tuples(st.sampled_from(_STREAMED), st.just("flat")),
    ),
    st.sampled_from([1, 4]),
)
_CLOSE = 2e-3
"""Contention is settled in passes that stop when ends move by less than 1e-4 of the step."""


@settings(max_examples=40, deadline=None)
@given(_WORK, st.sampled_from([1, 2, 8]))
def test_rows_that_go_expert_by_expert_never_take_longer(work: dict[str, Any], slots: int) -> None:
    def step(schedule: str) -> float:
        options = {"schedule": schedule, "dispatcher": "flat"}
        of = with_experts(model(), 32 * slots)
        return simulate(deployment(of=of, options=options, **work)).step_seconds

    plain, returning, fused = (step(schedule) for schedule in ("sequential", "single-batch", "fused"))
    assert fused <= returning * (1 + _CLOSE)
    assert returning <= plain * (1 + _CLOSE)
    if slots == 1:
        # One expert on each rank: its rows are all there before any leaves.
        assert fused == pytest.approx(plain, rel=_CLOSE)


@pytest.mark.parametrize(
    ("work", "options", "said"),
    [
        (
            {"phase": "prefill", "tokens_per_gpu": 4096},
            {},
            ["where they overlap, computing takes 1.2 x and comm"],
        ),
        ({"phase": "decode"}, {}, ["beside computing, dispatch and combine take processors"]),
        (
            {"phase": "decode"},
            {"attention_ranks": 4},
            [
                "beside computing, dispatch and combine",
                "where they overlap, computing takes 1.2 x and collectives",
            ],
        ),
    ],
)
def test_what_is_said_of_contention_is_of_the_transfers_there_are(
    work: dict[str, Any], options: dict[str, Any], said: list[str]
) -> None:
    report = simulate(deployment(options={"schedule": "two-batch", **options}, **work))
    found = [note for note in report.notes if "(docs/cost-model.md, Contention)" in note]
    assert len(found) == len(said)
    assert all(note.startswith(start) for note, start in zip(found, said, strict=True))


def test_a_prefill_beside_a_decode_that_streams_is_sequential() -> None:
    made = deployment(phase="decode", options={"schedule": "single-batch"})
    prefill = made.model_copy(update={"workload": made.workload.model_copy(update={"phase": "prefill"})})
    assert made.build_schedule().name == "single-batch"
    assert prefill.build_schedule().name == "sequential"


def _faster(made: Deployment, level: str, factor: float) -> Deployment:
    link = getattr(made.cluster, level)
    wider = link.model_copy(update={"bandwidth_bytes_per_second": link.bandwidth_bytes_per_second * factor})
    return made.model_copy(update={"cluster": made.cluster.model_copy(update={level: wider})})


@settings(max_examples=40, deadline=None)
@given(_WORK, _OPTIONS, st.sampled_from(["scale_up", "scale_out"]), st.floats(1.01, 20))
def test_more_bandwidth_is_never_slower(
    work: dict[str, Any], options: dict[str, Any], level: str, factor: float
) -> None:
    made = deployment(options=options, **work)
    before = simulate(made).step_seconds
    assert simulate(_faster(made, level, factor)).step_seconds <= before * (1 + _CLOSE)


@settings(max_examples=40, deadline=None)
@given(_WORK, _OPTIONS)
def test_no_schedule_beats_computing_or_the_busiest_link(
    work: dict[str, Any], options: dict[str, Any]
) -> None:
    made = deployment(options=options, **work)
    step = simulate(made).step_seconds
    plain = made.model_copy(update={"options": made.options.model_copy(update={"schedule": "sequential"})})
    whole = predict(plain)
    exchanges = (whole.moe.dispatch, whole.moe.combine)
    for level in ("scale_up_seconds", "scale_out_seconds"):
        assert step >= sum(float(getattr(e, level).sum()) for e in exchanges) * (1 - 1e-9)
    flops = float(whole.flops_R.max())
    assert step >= flops / max(made.cluster.gpu.peak_flops.values())
    assert step >= 0.99 * _computing_alone(made)


def _computing_alone(made: Deployment) -> float:
    """The busiest rank's own work in this schedule, when nothing else runs on its GPU."""
    prediction = predict(made)
    contention = prediction.cluster.kernels.contention.model_copy(
        update={"compute_slowdown": 1.0, "communication_slowdown": 1.0}
    )
    kernels = prediction.cluster.kernels.model_copy(update={"contention": contention})
    free = made.model_copy(update={"cluster": made.cluster.model_copy(update={"kernels": kernels})})
    report = simulate(free)
    return float(np.sum([report.operation_seconds[op] for op in _computing(report)], axis=0).max())


def _computing(report: StepReport) -> list[Operation]:
    others = {
        Operation.DISPATCH,
        Operation.COMBINE,
        Operation.WAIT,
        Operation.ALL_GATHER,
        Operation.REDUCE_SCATTER,
    }
    return [op for op in report.operation_seconds if op not in others]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_sequential_is_the_sum_of_its_parts(phase: str) -> None:
    made = deployment(phase=phase, fluctuating=False, options={"shared_beside_dispatch": False})
    report = simulate(made)
    parts = sum(seconds[0] for seconds in report.operation_seconds.values())
    assert report.step_seconds == pytest.approx(parts)
    assert report.operation_seconds[Operation.WAIT][0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dispatcher", ["flat", "hierarchical"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_more_nodes_never_make_crossing_cheaper(phase: str, dispatcher: str) -> None:
    reports = []
    for ranks in (8, 16, 32, 64):
        made = deployment(
            ranks=ranks,
            on=cluster(gpus=ranks),
            phase=phase,
            tokens_per_gpu=256,
            fluctuating=False,
            options={"dispatcher": dispatcher},
        )
        reports.append(simulate(made))
    crossing = [sum(r.sent_across_nodes_bytes) / r.tokens for r in reports]
    seconds = [r.operation_seconds[Operation.DISPATCH][0] for r in reports]
    assert crossing[0] == 0
    assert crossing == sorted(crossing)
    assert seconds == sorted(seconds)


def test_one_gpu_is_the_roofline() -> None:
    """On ideal kernels: weights and cache read once at the memory's rate, and nothing else."""
    of = model(
        model_type="wingspan_moe", n_routed_experts=8, num_experts_per_tok=2, gated_experts=True, head_dim=64
    )
    on = cluster("seed-ideal", gpus=1)
    made = deployment(
        ranks=1, on=on, of=of, tokens_per_gpu=4, context=256, fluctuating=False, expert_weights="bf16"
    )
    report = simulate(made)
    rate = on.gpu.sustained_memory_bytes_per_second
    parameters = of.parameters
    read = 1 - (1 - 2 / 8) ** 4  # of the experts: those that any of 4 tokens picks
    weights = 2 * (
        parameters.attention
        + parameters.dense
        + parameters.routed_experts * read
        + parameters.router
        + parameters.shared_experts
        + parameters.head
    )
    cache = 4 * 256 * of.kv_values_per_token * Precision.BF16.bytes
    least = (weights + cache) / rate
    # Rows of the hidden states are read and written beside the weights: a small part.
    assert least < report.step_seconds < 1.03 * least
    assert report.exposed_communication_seconds == pytest.approx([0.0])
    assert report.links == []


def test_a_large_batch_is_bound_by_arithmetic() -> None:
    of = with_experts(load_model("seed"), 8)
    on = cluster("seed-ideal", gpus=1)
    made = deployment(
        ranks=1, on=on, of=of, phase="prefill", tokens_per_gpu=16384, context=512, fluctuating=False
    )
    report = simulate(made)
    # 2 FLOP per parameter and token, but for embedding and head, and causal attention: 4 x heads x head_dim a pair.
    active = of.parameters.active - of.parameters.embedding - of.parameters.head - of.parameters.norms
    pairs = 16384 / 512 * 512 * 513 / 2
    flops = 2 * active * 16384 + of.layers * pairs * 4 * 128 * 128
    assert report.step_seconds == pytest.approx(flops / on.gpu.sustained_flops(Precision.BF16), rel=0.02)
    assert report.utilisation["compute"] == pytest.approx(0.6, rel=0.02)


def test_skew_slows_and_names_the_rank() -> None:
    even = simulate(deployment(phase="prefill", tokens_per_gpu=4096))
    skewed = simulate(
        deployment(phase="prefill", tokens_per_gpu=4096, routing={"kind": "log_normal", "sigma": 1.0})
    )
    assert skewed.step_seconds > even.step_seconds
    assert skewed.imbalance > 3
    assert f"rank {skewed.slowest_rank}: expert" in skewed.slowest_reason
    expert = skewed.operation_seconds[Operation.EXPERT]
    assert expert[skewed.slowest_rank] == max(expert)


def test_replicas_on_spare_ranks_relieve_the_hottest_expert() -> None:
    loads = [[10.0] + [1.0] * 63] * 4
    routing = {"kind": "recorded", "loads": loads}
    work: dict[str, Any] = {
        "phase": "prefill",
        "tokens_per_gpu": 32768,
        "routing": routing,
        "fluctuating": False,
    }
    of = model(num_experts_per_tok=1, moe_intermediate_size=2048)
    bare = simulate(deployment(ranks=64, of=of, on=cluster(gpus=72), **work))
    spare = simulate(
        deployment(ranks=72, of=of, on=cluster(gpus=72), placement={"strategy": "balanced"}, **work)
    )
    assert max(spare.operation_seconds[Operation.EXPERT]) < 0.7 * max(
        bare.operation_seconds[Operation.EXPERT]
    )


def test_report_adds_up() -> None:
    made = deployment(phase="decode", tokens_per_gpu=32, options={"schedule": "chunks:2"})
    report = simulate(made)
    assert report.tokens == 32 * 32
    assert np.array(report.load_tokens).sum() == 32 * 32 * 4 * 4  # tokens x top-k x MoE layers
    assert sum(report.sent_across_nodes_bytes) == pytest.approx(
        sum(report.received_across_nodes_bytes), rel=1e-6
    )
    parts = np.sum([*report.memory_bytes.values()], axis=0)
    assert parts == pytest.approx(report.peak_memory_bytes, abs=len(report.memory_bytes))
    busy = np.sum([report.operation_seconds[op] for op in _computing(report)], axis=0)
    assert busy + np.array(report.exposed_communication_seconds) == pytest.approx(report.step_seconds)
    assert StepReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("schedule", ["sequential", "chunks:2", "two-batch"])
@pytest.mark.parametrize("attention_ranks", [1, 8])
def test_times_and_loads_add_up_whatever_the_schedule(schedule: str, attention_ranks: int) -> None:
    """On every rank, with slower and faster ones, and of what is hidden no more than there is."""
    report = simulate(
        deployment(
            tokens_per_gpu=256,
            routing={"kind": "log_normal", "sigma": 0.8},
            context={"mean_tokens": 2048, "spread": 1.0},
            options={"schedule": schedule, "attention_ranks": attention_ranks},
        )
    )
    spent = report.spent_seconds
    assert np.sum([*spent.values()], axis=0) == pytest.approx(report.step_seconds)
    assert min(min(seconds) for seconds in spent.values()) >= -1e-12
    waiting = [op for op in spent if op in COMMUNICATION or op is Operation.WAIT]
    exposed = np.sum([spent[op] for op in waiting], axis=0)
    assert exposed == pytest.approx(report.exposed_communication_seconds)
    # Also one after the other: a shared expert is computed beside the dispatch.
    assert sum(report.hidden_seconds[Operation.DISPATCH]) > 0
    waits = report.operation_seconds[Operation.WAIT]
    assert waits[report.slowest_rank] == pytest.approx(min(waits), abs=1e-12)
    assert [sum(layer) for layer in report.load_tokens] == pytest.approx([report.tokens * 4] * 4)
    assert report.imbalance == pytest.approx(imbalance(report.load_tokens))


def test_contexts_that_differ_make_some_rank_slower() -> None:
    alike = simulate(deployment(tokens_per_gpu=16, context=4096))
    spread = simulate(deployment(tokens_per_gpu=16, context={"mean_tokens": 4096, "spread": 1.0}))
    attention = spread.operation_seconds[Operation.ATTENTION]
    assert max(attention) > 1.05 * min(attention)
    assert len(set(alike.operation_seconds[Operation.ATTENTION])) == 1


def test_windowed_layers_read_their_window_only() -> None:
    config = {
        "model_type": "gpt_oss",
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "head_dim": 64,
        "sliding_window": 128,
    }
    windowed = model(**config, layer_types=["sliding_attention"] * 5)
    full = model(**config, layer_types=["full_attention"] * 5)
    times = [
        simulate(deployment(of=of, context=65536, weights="bf16")).operation_seconds[Operation.ATTENTION][0]
        for of in (windowed, full)
    ]
    assert times[0] < 0.3 * times[1]


def test_a_trace_of_another_model_is_refused() -> None:
    routing = {"kind": "recorded", "loads": [[1.0] * 8]}
    with pytest.raises(InputError, match="8 experts"):
        simulate(deployment(routing=routing))


def test_the_same_seed_gives_the_same_step() -> None:
    made = deployment(routing={"kind": "power_law", "exponent": 1.0}, seed=9)
    assert simulate(made) == simulate(made)


def _pairs(**changes: Any) -> Cluster:
    """Nodes of eight GPUs: NVLink in pairs, which meet over PCIe."""
    scale_out = cluster().scale_out.model_copy(update={"bandwidth_bytes_per_second": 25e9})
    return cluster(gpus=16, scale_up_domain_gpus=2, scale_out=scale_out, **changes)


@pytest.mark.parametrize("dispatcher", ["flat", "hierarchical"])
def test_a_part_of_a_node_is_predicted_as_a_node_of_its_own(dispatcher: str) -> None:
    options = {"dispatcher": dispatcher, "attention_ranks": 2}
    part = simulate(deployment(4, on=_pairs(), options=options))
    alone = simulate(deployment(4, on=_pairs(nodes=1, gpus_per_node=4), options=options))
    assert part == alone
    joined = cluster(gpus=16, scale_out=_pairs().scale_out)
    assert part.step_seconds > simulate(deployment(4, on=joined, options=options)).step_seconds


def test_attention_over_several_pairs_gathers_over_what_joins_them() -> None:
    """With the same GPUs and links, only the gathers of four ranks differ between pairs and one domain."""
    joined = cluster(gpus=16, scale_out=_pairs().scale_out)
    gathers = [
        max(
            simulate(deployment(4, on=on, options={"attention_ranks": 4})).operation_seconds[
                Operation.ALL_GATHER
            ]
        )
        for on in (_pairs(), joined)
    ]
    assert gathers[0] > 2 * gathers[1]
