"""A load that a server answered, simulated: the same requests at the same times, with step times measured on it."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.schedule.latencies import latencies
from wingspan.schedule.serving_comparison import StepFigures
from wingspan.schedule.serving_result import Latencies, ServingLimits
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.group import GroupSpec
from wingspan.specs.requests import Requests


@dataclass(frozen=True)
class SimulatedLoad:
    """What requests met in the simulation, and in which steps."""

    met: Latencies
    steps: StepFigures


def simulated(requests: Requests, group: GroupSpec, http_seconds: float) -> SimulatedLoad:
    """Serve requests that a client sends.

    Args:
        requests: as the client sent them.
        group: the server's ranks, with their step times.
        http_seconds: that a token takes longer to the client than from its request's arrival in the engine.
    """
    served = serve(requests, Fleet(group))
    first_N = served.first_token_seconds_N + http_seconds
    finish_N = served.finish_seconds_N + http_seconds
    state = served.groups[0]
    busy = served.whole.busy_seconds[group.name]
    return SimulatedLoad(
        latencies(requests, first_N, finish_N, ServingLimits()),
        StepFigures(
            step_seconds=busy / state.steps,
            decoding_sequences=state.rows.decoded_tokens / max(1, state.rows.steps),
        ),
    )
