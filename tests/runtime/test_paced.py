"""Paced steps: compute takes as long as told, transfers are real and beside it where the schedule says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runtime.forked import on_ranks
from wingspan.placement.simple import linear
from wingspan.runtime.measuring.report import RankMeasurement, step_report
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.paced import PacedStep, run_paced
from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation, StepReport

MS = 1e-3


class FixedPace:
    """Attention 4 ms, 1 ms for everything else, experts 2 ms a row."""

    def seconds(self, operation: Operation, layer: int | None) -> float:
        return 4 * MS if operation is Operation.ATTENTION else MS

    def experts_seconds(self, layer: int, rows_S: Sequence[int]) -> float:
        return 2 * MS * sum(rows_S)


def report(overlap: str, scratch: Path, tokens: int = 4) -> StepReport:
    ranks = 2
    step = PacedStep(
        layers=3, moe_layers=(1, 2), hidden=64, dtype=torch.bfloat16, placement=linear(2, 2, ranks),
        shared_expert=True, flow=flow_named(overlap), steps=2,
    )  # fmt: skip

    def work(transport: Transport) -> RankMeasurement:
        experts_LTK = np.random.default_rng(transport.world.rank).integers(0, 2, (2, tokens, 1))
        return run_paced(transport, step, FixedPace(), experts_LTK, "decode", keep_spans=True)

    measured = on_ranks(work, ranks, scratch)
    world = World(0, ranks, ranks, 0)
    found = step_report(measured, "decode", step.placement, world, step.flow.name, source="paced")
    assert found is not None
    return found


@pytest.mark.parametrize("overlap", ["sequential", "chunks:2", "two-batch"])
def test_compute_lasts_as_long_as_the_pace_says(overlap, tmp_path):
    found = report(overlap, tmp_path)
    parts = 2 if overlap == "two-batch" else 1
    assert found.source == "paced"
    assert found.steps == 2
    seconds = {op: min(values) for op, values in found.operation_seconds.items()}
    assert seconds[Operation.ATTENTION] >= 3 * 4 * MS * parts
    assert seconds[Operation.DENSE] >= 1 * MS * parts
    assert seconds[Operation.SHARED_EXPERT] >= 2 * MS * parts
    rows = sum(sum(layer) for layer in found.load_tokens)
    assert rows == 2 * 2 * 4
    assert sum(found.operation_seconds[Operation.EXPERT]) >= 2 * MS * rows
    assert found.step_seconds >= seconds[Operation.ATTENTION] + seconds[Operation.EXPERT]


def test_a_rank_without_tokens_takes_part(tmp_path):
    assert report("two-batch", tmp_path, tokens=0).tokens == 0
