"""One dispatch and combine by several contestants: rounds interleaved, results compared, the slowest rank's time.

Shapes: T tokens of a rank, K experts per token, D hidden size, R ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wingspan.runtime.dispatch.dispatcher import Dispatcher
from wingspan.runtime.transport.transport import Transport

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Contestant = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Collective: maps (x_TD, experts_TK, weights_TK) to (T, D)."""


@dataclass(frozen=True)
class Case:
    """One line per contestant."""

    tokens: int
    dtype: torch.dtype
    hidden: int
    top_k: int
    rounds: int


@dataclass(frozen=True)
class Times:
    """One round: the slowest rank's wall time, and all ranks' processor time."""

    wall_seconds: float
    processor_seconds: float


def through(dispatcher: Dispatcher[Any, Any]) -> Contestant:
    """A dispatch and a combine; the experts hand back what they got."""

    def there_and_back(
        x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        (route,) = dispatcher.route(x_TD, experts_TK, weights_TK, chunks=1, lane=0)
        received = dispatcher.send(route).wait()
        return dispatcher.send_back(received.rows_ND, received.handle).wait()

    return there_and_back


def rounds(
    transport: Transport,
    shared: Transport,
    contestants: dict[str, Contestant],
    case: Case,
    tolerance: float = 0.0,
) -> dict[str, list[Times]]:
    """Collective: every contestant once per round, in turning order; one round warms up.

    Args:
        shared: through which all ranks start within microseconds.
        tolerance: of results that should be the same, relative and absolute.

    Raises:
        RuntimeError: a contestant's results differ from the first one's.
    """
    given = inputs(case, transport.world.rank, transport.world.size)
    times: dict[str, list[Times]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(case.rounds + 1):
        turn = number % len(names)
        results = {}
        for name in names[turn:] + names[:turn]:
            results[name], spent = _timed(transport, shared, contestants[name], given)
            times[name].append(spent)
        for name, result_TD in results.items():
            if not torch.allclose(result_TD, results[names[0]], rtol=tolerance, atol=tolerance):
                raise RuntimeError(f"{case}: {name} and {names[0]} give different results")
    return {name: spent[1:] for name, spent in times.items()}


def inputs(case: Case, rank: int, experts: int) -> Inputs:
    """A rank's tokens; each picks `top_k` of the experts, all alike."""
    generator = torch.Generator().manual_seed(rank)
    x_TD = torch.randn(case.tokens, case.hidden, generator=generator).to(case.dtype)
    experts_TK = torch.rand(case.tokens, experts, generator=generator).topk(case.top_k).indices
    return x_TD, experts_TK, torch.rand(case.tokens, case.top_k, generator=generator)


def _timed(
    transport: Transport, shared: Transport, contestant: Contestant, given: Inputs
) -> tuple[torch.Tensor, Times]:
    shared.exchange_counts(torch.zeros((transport.world.size, 1), dtype=torch.int64))
    wall, processor = time.perf_counter(), time.process_time()
    result_TD = contestant(*given)
    spent = torch.tensor([time.perf_counter() - wall, time.process_time() - processor], dtype=torch.float64)
    wall_R, processor_R = transport.share(spent).unbind(1)
    return result_TD, Times(float(wall_R.max()), float(processor_R.sum()))
