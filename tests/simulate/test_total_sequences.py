"""Sequences counted over all ranks: some ranks may have fewer than others, or none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.simulate.builders import cluster, deployment
from wingspan.deployment import Deployment, load_deployment, save_deployment
from wingspan.describe import Description, deployment_of, template_of
from wingspan.errors import InputError
from wingspan.schedule.result import Operation
from wingspan.simulate.memory import memory_use
from wingspan.simulate.planning import make_plan
from wingspan.simulate.step import predict, simulate
from wingspan.specs.memory import MemoryPart


def _with(total: int, ranks: int = 16, attention: int = 1, cut: int = 1, phase: str = "decode") -> Deployment:
    fullest = -(-total // ranks) * (1 if phase == "decode" else 512)
    work = {"total_sequences": total, "tokens_per_gpu": fullest, "phase": phase, "fluctuating": False}
    options = {"attention_ranks": attention, "expert_tensor_parallel": cut}
    return deployment(ranks // cut, on=cluster(gpus=ranks), options=options, **work)


def test_a_rank_without_sequences_waits() -> None:
    seconds = simulate(_with(1)).operation_seconds
    for operation in (Operation.ATTENTION, Operation.SHARED_EXPERT, Operation.HEAD):
        assert np.count_nonzero(seconds[operation]) == 1
    idle = np.array(seconds[Operation.ATTENTION]) == 0
    waiting = np.array(seconds[Operation.WAIT])
    assert waiting[idle].min() > 0.3 * simulate(_with(1)).step_seconds > waiting[~idle].max()


def test_ranks_that_share_attention_share_its_sequence() -> None:
    seconds = simulate(_with(1, attention=16, cut=16)).operation_seconds[Operation.ATTENTION]
    assert min(seconds) == max(seconds) > 0
    seconds = simulate(_with(1, attention=8)).operation_seconds[Operation.ATTENTION]
    assert np.count_nonzero(seconds) == 8


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 100),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 2]),
    st.sampled_from(["decode", "prefill"]),
)
def test_sequences_and_times_add_up(total: int, attention: int, cut: int, phase: str) -> None:
    made = _with(total, attention=attention, cut=cut, phase=phase)
    assert made.sequences_R.sum() == total
    assert made.sequences_R.max() - made.sequences_R.min() <= 1
    report = simulate(made)
    assert report.tokens == made.tokens == made.tokens_R.sum() == total * (1 if phase == "decode" else 512)
    assert np.sum(report.load_tokens[0]) == pytest.approx(report.tokens * made.model.experts.per_token)
    for rank in range(report.ranks):
        spent = sum(seconds[rank] for seconds in report.spent_seconds.values())
        assert spent == pytest.approx(report.step_seconds)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_an_even_number_is_the_same_as_tokens_per_gpu(phase: str) -> None:
    counted = _with(64, phase=phase)
    even = counted.model_copy(
        update={"workload": counted.workload.model_copy(update={"total_sequences": None})}
    )
    assert simulate(counted) == simulate(even)


def test_the_home_sends_all_rows() -> None:
    sent = predict(_with(1)).moe.sent
    assert np.count_nonzero(sent.scale_out_sent[0]) == 1
    assert np.count_nonzero(sent.scale_out_received[0]) == 16


def test_memory_counts_the_sequences_of_a_group_once() -> None:
    alone = memory_use(_with(1)).parts[MemoryPart.KV_CACHE]
    shared = memory_use(_with(1, attention=16, cut=16)).parts[MemoryPart.KV_CACHE]
    assert shared == pytest.approx(alone)


def test_a_file_says_both_counts_alike(tmp_path) -> None:
    made = deployment_of(Description("deepseek-v3", ranks=16, total_sequences=20))
    assert (made.workload.tokens_per_gpu, made.tokens) == (2, 20)
    save_deployment(made, tmp_path / "d.json")
    assert load_deployment(tmp_path / "d.json") == made
    other = deployment_of(Description(str(tmp_path / "d.json"), tokens_per_gpu=3))
    assert other.workload.total_sequences is None
    with pytest.raises(InputError, match="`total_sequences` 20: `tokens_per_gpu`"):
        deployment_of(Description("deepseek-v3", tokens_per_gpu=3, total_sequences=20))
    with pytest.raises(ValidationError, match="total_sequences 20 on 32 ranks are 1 on the fullest"):
        deployment(32, total_sequences=20, tokens_per_gpu=64)


def test_a_plan_counts_sequences_over_all_groups() -> None:
    said = Description("deepseek-v3", "h200", total_sequences=1)
    plan = make_plan(template_of(said), 16, fixed_batch=True)
    assert {choice.deployment.ranks for choice in plan.choices} == {8, 16}
    for choice in plan.choices:
        assert choice.tokens_per_second == pytest.approx(1 / choice.report.step_seconds)
    assert plan.shown.deployment.options.attention_ranks > 1
