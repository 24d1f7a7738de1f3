"""Experts move while requests join and leave: each still gets what plain transformers gives it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.balance.inline_planner import InlinePlanner
from tests.runtime.forked import CPU, on_ranks
from tests.runtime.generation.test_generate import a_checkpoint, drained
from tests.runtime.plain import plain_model, plain_tokens
from wingspan.balance import controller
from wingspan.balance.settings import Rebalance
from wingspan.runtime.balance.rebalancer import Rebalancer
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.model.engine import default_placement, describe, load
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.batching import BatchLimits
from wingspan.schedule.rebalance_result import Migrated
from wingspan.traffic.distinct import Choice

FEW = BatchLimits(kv_tokens_per_home=200, sequences_per_home=2, tokens_per_step=6)
REQUESTS = [
    Request(n, tuple(range(n + 1, 3 * n + 4)), Sampling(temperature=n % 2, seed=n), Length(12 + 3 * n))
    for n in range(9)
]


@pytest.mark.parametrize("name", ["mixtral", "minimax"])
def test_experts_move_while_requests_join_and_leave(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Two requests on each of three ranks at a time, two more in every step of a while: steps that do both."""
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)
    folder = a_checkpoint(tmp_path / "checkpoint", name)

    def work(transport: Transport) -> tuple[dict[int, list[int]], int, bool]:
        model = describe(folder)
        placement = default_placement(model.shape, 3, 3)
        engine = load(model, placement, transport, CPU)
        rebalancer = Rebalancer(
            Rebalance(every_steps=4, beat_steps=2),
            transport,
            placement,
            list(engine.layers.values()),
            engine.dispatchers,
            engine.monitor,
            engine.recorder,
            128,
            Choice(placement.num_experts, model.shape.top_k),
            CPU,
        )
        generator = Generator(engine, between=rebalancer, limits=FEW)
        tokens: dict[int, list[int]] = {}
        for request in REQUESTS:
            generator.submit(request)
            drained(generator, tokens, steps=2)
        drained(generator, tokens)
        events = rebalancer.finish()
        moved = sum(event.experts_moved for event in events if isinstance(event, Migrated))
        return tokens, moved, rebalancer.placement != placement

    model = plain_model(folder)
    expected = {request.number: plain_tokens(model, request) for request in REQUESTS}
    results = on_ranks(work, 3, tmp_path)
    assert [tokens for tokens, _, _ in results] == [expected] * 3
    assert results[0][1] > 0
    assert [changed for _, _, changed in results] == [True] * 3
