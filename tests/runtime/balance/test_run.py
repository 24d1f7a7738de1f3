"""Whole runs with balancing: the tokens of plain transformers, whatever the architecture, schedule and transport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.balance.inline_planner import InlinePlanner
from tests.runtime.checkpoints import configurations, write
from tests.runtime.forked import on_ranks
from wingspan.balance import controller
from wingspan.balance.settings import Rebalance
from wingspan.runtime.generation.prompts import Prompt, Tokenizer
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.run import Listener, RunRequest, RunResult, checked, run
from wingspan.runtime.start import EngineSetup
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.schedule.rebalance_result import Decision, Migrated


@pytest.fixture(autouse=True)
def inline_planner(monkeypatch):
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)


SILENT = Listener(on_loaded=lambda seconds: None, on_tokens=lambda tokens: None)
EAGER = Rebalance(every_steps=4, beat_steps=2)
PROMPTS = ([5, 9, 17, 3], [1, 2], [7], [100, 101, 102, 103, 104])


def execute(
    folder: Path,
    scratch: Path,
    ranks: int,
    slots: int,
    per_node: int | None = None,
    shm: bool = False,
    **options: Any,
) -> RunResult:
    model = describe(folder)
    request = RunRequest(
        EngineSetup(
            model,
            default_placement(model.shape, ranks, slots),
            torch.device("cpu"),
            rebalance=EAGER,
            **options,
        ),
        prompts=[Prompt(n, list(ids), None, n % ranks) for n, ids in enumerate(PROMPTS)],
        max_new_tokens=24,
        sampling=Sampling(),
        keep_logits=True,
    )

    def work(transport: Any) -> RunResult | None:
        chosen = SharedMemoryTransport(transport) if shm else transport
        return run(chosen, request, Tokenizer(folder), SILENT)

    result: RunResult = on_ranks(work, ranks, scratch, per_node)[0]
    return checked(result, request)


def check_balanced(result: RunResult) -> None:
    """It moved experts while it ran, and gave the reference's tokens."""
    assert result.check is not None
    assert result.check.tokens_equal
    assert result.check.max_logit_difference <= 1e-5 * max(1.0, result.check.largest_logit)
    moved = [e for e in result.rebalance or [] if isinstance(e, Migrated)]
    assert moved, result.rebalance
    assert all(m.experts_moved and not m.layers_rolled_back for m in moved)
    assert max(result.report.memory_bytes["staging"]) > 0


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "deepseek_v3"])
def test_equals_plain_transformers_while_experts_move(name, tmp_path):
    """Six experts on nine ranks: the three spare ones take replicas."""
    folder = write(configurations()[name], tmp_path / name)
    result = execute(folder, tmp_path, 9, 1)
    check_balanced(result)
    decision = next(e for e in result.rebalance or [] if isinstance(e, Decision))
    assert decision.verdict == "migrate"
    assert decision.reason == "asked for at this rhythm"
    assert decision.experts_moved
    # Spare ranks hold experts at the end.
    assert result.report.memory_bytes["experts"][6] > 0


@pytest.mark.parametrize(
    ("per_node", "shm", "overlap"), [(None, True, "chunks:2"), (2, False, "two-batch"), (2, False, "sequential")]
)  # fmt: skip
def test_any_transport_and_schedule(per_node, shm, overlap, tmp_path):
    """Two slots per rank; shared memory, and two nodes with the hierarchical dispatcher."""
    folder = write(configurations()["olmoe"], tmp_path / "olmoe")
    flow = flow_named(overlap)
    result = execute(folder, tmp_path, 4, 2, per_node, shm, flows={"prefill": flow, "decode": flow})
    check_balanced(result)
