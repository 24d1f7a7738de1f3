"""Tokens that are tried ahead: what they cost, what they bring, and what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.cost.attention import decode_attention_seconds
from wingspan.deployment import Deployment
from wingspan.describe import Description, deployment_of
from wingspan.errors import InputError
from wingspan.front import plan_requests
from wingspan.schedule.result import Operation
from wingspan.simulate.memory import memory_use
from wingspan.simulate.service import ServiceGoal
from wingspan.simulate.serving.deployed import Caps, grid_times
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.memory import WEIGHTS, MemoryPart
from wingspan.specs.mixers.core import Core
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Context, Workload


def _deployment(**said: Any) -> Deployment:
    usual = {"ranks": 64, "tokens_per_gpu": 32, "expected_loads": True}
    return deployment_of(Description("deepseek-v3", **{**usual, **said}))


def test_tokens_of_one_sequence_share_one_read_of_its_cache() -> None:
    """Where computing is free, two tokens cost what one does and a row; where reading is, twice."""
    core, cluster = Core(8, 64, 64, 2 * 64), load_cluster("seed-ideal")
    reads = cluster.gpu.model_copy(update={"peak_flops": {Precision.BF16: 1e30}})
    computes = cluster.gpu.model_copy(update={"memory_bandwidth_bytes_per_second": 1e30})
    seconds = {
        name: [
            float(
                decode_attention_seconds(
                    cluster.model_copy(update={"gpu": gpu}),
                    core,
                    4,
                    1000,
                    Precision.BF16,
                    Precision.BF16,
                    each,
                )
            )
            for each in (1, 2)
        ]
        for name, gpu in (("reads", reads), ("computes", computes))
    }
    assert seconds["reads"][1] == pytest.approx(seconds["reads"][0], rel=0.01)
    assert seconds["computes"][1] == pytest.approx(2 * seconds["computes"][0])


@settings(max_examples=30)
@given(tried=st.integers(0, 16), acceptance=st.floats(0.01, 1))
def test_what_a_step_gives(tried: int, acceptance: float) -> None:
    work = Workload(tokens_per_gpu=4, context=Context(mean_tokens=9), mtp_tokens=tried, acceptance=acceptance)
    assert 1 <= work.gained_per_sequence <= 1 + tried + 1e-9
    if acceptance < 0.99:
        expected = (1 - acceptance ** (tried + 1)) / (1 - acceptance)
        assert work.gained_per_sequence == pytest.approx(expected)


def test_a_step_with_a_token_tried_ahead() -> None:
    alone, tried = simulate(_deployment()), simulate(_deployment(mtp_tokens=1))
    assert Operation.DRAFT not in alone.operation_seconds
    drafts = tried.operation_seconds[Operation.DRAFT]
    assert min(drafts) > 0
    assert tried.tokens == 2 * alone.tokens
    assert tried.tokens_per_second == pytest.approx(1.85 * 32 * 64 / tried.step_seconds)
    spent = sum(np.array(seconds) for seconds in tried.operation_seconds.values())
    spent = spent - sum(np.array(seconds) for seconds in tried.hidden_seconds.values())
    assert spent == pytest.approx(tried.step_seconds)
    # One layer of 61 and the head, at as many rows.
    assert 1 / 61 < max(drafts) / tried.step_seconds < 4 / 61
    assert any("85 to 90 %" in note for note in tried.notes)


def test_of_few_sequences_nearly_every_right_token_is_gained() -> None:
    """DeepSeek-V3 reports 1.8 times as many tokens per second (arXiv:2412.19437, section 5.4.3)."""
    rates = [
        simulate(_deployment(total_sequences=1, tokens_per_gpu=None, mtp_tokens=n)).tokens_per_second
        for n in (0, 1)
    ]
    assert 1.4 < rates[1] / rates[0] < 1.85


def test_more_tokens_take_longer_and_bring_less_each() -> None:
    reports = [simulate(_deployment(mtp_tokens=n)) for n in range(4)]
    steps = [report.step_seconds for report in reports]
    drafts = [max(report.operation_seconds.get(Operation.DRAFT, [0.0])) for report in reports]
    assert steps == sorted(steps)
    assert drafts == sorted(drafts)
    # The first pass takes all tokens, each further one a token of each sequence.
    assert drafts[3] < 3 * drafts[1] * 2


def test_layers_that_predict_are_held() -> None:
    model = load_model("deepseek-v3")
    assert model.mtp_parameters.total == pytest.approx(11.5e9, rel=0.01)  # 14 B with embedding and head
    plain, tried = memory_use(_deployment()), memory_use(_deployment(mtp_tokens=1))
    more = {part: float((tried.parts[part] - plain.parts[part]).max()) for part in plain.parts}
    held = model.mtp_parameters
    assert more[MemoryPart.EXPERTS] == pytest.approx(4 * held.expert * Precision.FP8.weight_bytes)
    assert more[MemoryPart.ATTENTION] == pytest.approx(held.attention * Precision.FP8.weight_bytes)
    assert sum(more[part] for part in WEIGHTS) < 1.5e9
    per_token = 576 * 2
    assert more[MemoryPart.KV_CACHE] == pytest.approx(32 * per_token * (62 * 4098 - 61 * 4097))


@pytest.mark.parametrize("schedule", ["chunks:2", "two-batch"])
@pytest.mark.parametrize("attention_ranks", [1, 8])
def test_with_every_schedule_and_shared_attention(schedule: str, attention_ranks: int) -> None:
    said = {"schedule": schedule, "attention_ranks": attention_ranks, "mtp_tokens": 2}
    report = simulate(_deployment(**said))
    assert report.step_seconds > simulate(_deployment(**{**said, "mtp_tokens": 0})).step_seconds


def test_serving_counts_a_step_as_the_tokens_that_it_gives() -> None:
    caps = Caps(sequences_per_gpu=8, tokens_per_step=64, longest_context=64, mean_context=32)
    seconds = []
    for acceptance in (0.25, 1.0):
        times = grid_times(_deployment(mtp_tokens=1, acceptance=acceptance), caps)
        seconds.append(float(times.decode_seconds(4.0, 4.0, np.array([32.0]))[0]))
    assert seconds[0] / seconds[1] == pytest.approx(2 / 1.25)


def test_groups_for_requests_count_a_step_as_the_tokens_that_it_gives() -> None:
    """Alone and together: rates, times of a token and limits are of tokens, steps are those of `simulate`."""
    plans = {}
    for acceptance in (0.25, 1.0):
        said = Description("deepseek-v3", cluster="h200", mtp_tokens=1, acceptance=acceptance)
        plans[acceptance] = plan_requests(said, ServiceGoal(100, 10, None, 0.03), 16)
    for acceptance, plan in plans.items():
        offers = [one.offer for one in plan.considered if one.offer] + ([plan.best] if plan.best else [])
        assert offers
        for offer in offers:
            decode, gained = offer.decode, 1 + acceptance
            sequences = decode.batch * decode.ranks
            # Nine further tokens of each sequence, in steps that give `gained`.
            assert decode.requests_per_second == pytest.approx(sequences * gained / 9 / decode.step_seconds)
            assert offer.tpot_seconds == pytest.approx(
                (decode.step_seconds + decode.transfer_seconds * gained / 9) / gained
            )
    better, worse = plans[1.0].best, plans[0.25].best
    assert better is not None
    assert worse is None or better.tokens_per_second_per_gpu > worse.tokens_per_second_per_gpu


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"source": "mixtral-8x7b", "ranks": 8}, "no layer that predicts further tokens"),
        ({"phase": "prefill", "tokens_per_gpu": 64, "context": 64}, "a prefill tries no tokens ahead"),
    ],
)
def test_where_nothing_can_be_tried_it_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        deployment_of(Description(**{"source": "deepseek-v3", "ranks": 64, "mtp_tokens": 1, **said}))


@pytest.mark.parametrize(
    "name", ["nemotron-3-ultra-550b-a55b", "deepseek-v4-flash", "minimax-m3", "qwen3.5-35b-a3b", "glm-5"]
)
def test_models_whose_config_has_such_layers_try_tokens_ahead(name: str) -> None:
    model = load_model(name)
    assert model.mtp_layers >= 1
    # Nemotron 3 has attention or experts in a layer, and both in the one that predicts.
    assert model.mtp_kind.mixers
    assert model.mtp_kind.experts == model.experts
    plain, tried = (
        simulate(deployment_of(Description(model, "h200", ranks=64, mtp_tokens=tokens))) for tokens in (0, 1)
    )
    assert tried.step_seconds > plain.step_seconds
