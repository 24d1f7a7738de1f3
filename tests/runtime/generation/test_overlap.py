"""Schedules change when things happen, never what comes out; and things happen in the order that they describe."""

from __future__ import annotations

import pytest
import torch

from tests.runtime.test_run import PROMPTS, checkpoints, execute  # noqa: F401 - a fixture
from wingspan.errors import InputError
from wingspan.runtime.generation.micro_batches import interleave, split_rows
from wingspan.runtime.model.step import SEQUENTIAL, Step, flow_named
from wingspan.schedule.result import Operation

FLOWS = ["sequential", "chunks:2", "chunks:3", "two-batch"]


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize("overlap", FLOWS)
@pytest.mark.parametrize(("ranks", "slots"), [(2, 3), (6, 1)])
def test_every_schedule_equals_plain_transformers(checkpoints, name, overlap, ranks, slots, tmp_path):  # noqa: F811
    """With 6 ranks, two have no sequence and four have one: micro-batches of padding alone take part too."""
    flow = flow_named(overlap)
    result = execute(checkpoints[name], ranks, slots, tmp_path, flows={"prefill": flow, "decode": flow})
    assert result.check is not None
    assert result.check.tokens_equal
    assert result.check.passed
    assert result.report.schedule == flow.name


@pytest.mark.parametrize(("prefill", "decode"), [("two-batch", "sequential"), ("chunks:2", "two-batch")])
def test_the_schedule_may_change_between_the_phases(checkpoints, prefill, decode, tmp_path):  # noqa: F811
    """Caches are split and joined on the way."""
    flows = {"prefill": flow_named(prefill), "decode": flow_named(decode)}
    prompts = [*PROMPTS, [3, 3], [9]]
    result = execute(checkpoints["qwen3_moe"], 2, 3, tmp_path, prompts=prompts, flows=flows)
    assert result.check is not None
    assert result.check.passed
    assert (result.prefill.schedule, result.report.schedule) == (flows["prefill"].name, flows["decode"].name)


def test_spans_follow_the_schedule(checkpoints, tmp_path):  # noqa: F811
    """Two micro-batches alternate, and the shared expert is computed while rows travel."""
    result = execute(
        checkpoints["deepseek_v3"], 2, 3, tmp_path, prompts=[[n + 1, n + 2] for n in range(4)], max_new_tokens=1,
        flows={"prefill": flow_named("two-batch")}, keep_spans=True,
    )  # fmt: skip
    of_rank = sorted((s for s in result.timeline.spans if s.rank == 0), key=lambda s: s.start_seconds)
    experts = [s.micro_batch for s in of_rank if s.operation is Operation.EXPERT]
    assert experts == [0, 1] * (len(experts) // 2)
    dispatches = [s for s in of_rank if s.operation is Operation.DISPATCH]
    assert [s.micro_batch for s in dispatches] == [0, 1] * (len(dispatches) // 2)
    shared = [s for s in of_rank if s.operation is Operation.SHARED_EXPERT]
    routed = [s for s in of_rank if s.operation is Operation.EXPERT]
    assert len(shared) == len(routed) > 0
    assert all(s.end_seconds <= r.start_seconds for s, r in zip(shared, routed, strict=True))


@pytest.mark.parametrize("name", ["sequential", "chunks:2", "two-batch"])
def test_a_shared_expert_may_come_before_the_rows_leave(checkpoints, name, tmp_path):  # noqa: F811
    flow = flow_named(name, shared_beside_dispatch=False)
    result = execute(
        checkpoints["deepseek_v3"], 2, 3, tmp_path, prompts=[[n + 1, n + 2] for n in range(4)],
        flows={"prefill": flow, "decode": flow}, keep_spans=True,
    )  # fmt: skip
    assert result.check is not None
    assert result.check.passed
    of_rank = sorted((s for s in result.timeline.spans if s.rank == 0), key=lambda s: s.start_seconds)
    sent = [s for s in of_rank if s.operation is Operation.DISPATCH and not s.chunk]
    assert sent
    for dispatch in sent:
        before = [
            s.operation for s in of_rank
            if (s.layer, s.micro_batch) == (dispatch.layer, dispatch.micro_batch)
            and s.end_seconds <= dispatch.start_seconds and s.operation is not Operation.WAIT
        ]  # fmt: skip
        assert before[-1] is Operation.SHARED_EXPERT


def test_a_pause_lets_the_other_forward_go_on():
    step, events = Step(), []

    def forward(name: str) -> str:
        for number in range(3):
            events.append((name, number, step.micro_batch))
            step.pause()
        return name

    valid = [torch.tensor([True]), None]
    assert interleave([lambda: forward("a"), lambda: forward("b")], valid, step) == ["a", "b"]
    assert events == [(name, n, "ab".index(name)) for n in range(3) for name in "ab"]
    assert step.micro_batch == 0


def test_an_error_in_one_forward_reaches_the_caller():
    step = Step()

    def bad() -> int:
        step.pause()
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        interleave([bad, bad], [None, None], step)
    step.pause()  # outside of any forward it does nothing


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(4, [(0, 2), (2, 4)]), (3, [(0, 2), (2, 3)]), (1, [(0, 1), (1, 1)]), (0, [(0, 0), (0, 0)])],
)
def test_rows_of_two_micro_batches(rows, expected):
    assert [(part.start, part.stop) for part in split_rows(rows, 2)] == expected


def test_sequential_is_dispatch_expert_combine():
    assert [op for op, _ in SEQUENTIAL.of_layer] == [
        Operation.DISPATCH, Operation.SHARED_EXPERT, Operation.EXPERT, Operation.COMBINE,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["chunk=2", "chunks:0", "chunks:x", "three-batch"])
def test_an_unknown_schedule_is_named(name):
    with pytest.raises(InputError, match=f"{name}: use"):
        flow_named(name)
