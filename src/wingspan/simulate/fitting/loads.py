"""What a serving benchmark would measure: the same load, served by the serving simulator.

Shapes: N requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.interop.benchmarks.load import BenchmarkLoad
from wingspan.simulate.fitting.measurements import Measurement, Quantity
from wingspan.simulate.serving.deployed import Caps, group_of
from wingspan.simulate.serving.engine import Fleet, Served, serve
from wingspan.specs.engines import EngineKind, EngineProfile, profile_of


class ServedLoads:
    """Loads of benchmarks that were all run on one deployment; runs of one load count as one.

    Args:
        deployment: what served them.
        loads: what was sent, and met.
        sequences_per_gpu: that the engine was set to take at most.
        tokens_per_step: that it computed in a step at most, per GPU.

    Raises:
        InputError: requests are longer than the model takes, none has a second token, or the server tried tokens ahead
            and the deployment does not.
    """

    def __init__(
        self,
        deployment: Deployment,
        loads: Sequence[BenchmarkLoad],
        sequences_per_gpu: int,
        tokens_per_step: int,
    ) -> None:
        for load in loads:
            _check(load, deployment)
        runs: dict[str, list[BenchmarkLoad]] = {}
        for load in loads:
            runs.setdefault(load.described, []).append(load)
        self._deployment, self._loads = deployment, [alike[0] for alike in runs.values()]
        lengths_N = np.concatenate(
            [load.requests.prompt_tokens_N + load.requests.output_tokens_N for load in loads]
        )
        self._caps = Caps(
            sequences_per_gpu, tokens_per_step, int(lengths_N.max()), max(1, round(float(lengths_N.mean())))
        )
        self._measured = [_measured(alike) for alike in runs.values()]

    @property
    def measured(self) -> Sequence[Measurement]:
        """See `Predictor`."""
        return self._measured

    def predicted(self, engine: EngineKind | EngineProfile) -> list[dict[Quantity, float]]:
        """See `Predictor`."""
        options = self._deployment.options.model_copy(update={"engine": engine})
        deployment = self._deployment.model_copy(update={"options": options})
        group = group_of(deployment, self._caps, name="the engine", decodes=True, prefills=True)
        fleet = Fleet(group, request_seconds=max(profile_of(engine).request_seconds, _LEAST_REQUEST_SECONDS))
        return [_figures(serve(load.requests, fleet, concurrency=load.concurrency)) for load in self._loads]


_LEAST_REQUEST_SECONDS = 1e-6
"""However fast clients and servers are, of requests that are sent at once one comes first, and begins a step."""


def _measured(runs: Sequence[BenchmarkLoad]) -> Measurement:
    """Runs of one load: of each figure the median of the runs."""
    figures = {
        Quantity.TPOT: median(load.tpot_seconds for load in runs),
        Quantity.TTFT: median(load.ttft_seconds for load in runs),
        Quantity.OUTPUT: median(load.output_tokens_per_second for load in runs),
    }
    sources = ", ".join(load.source for load in runs)
    repeated = f"{len(runs)} runs" if len(runs) > 1 else ""
    remarks = dict.fromkeys(remark for load in runs for remark in load.remarks)
    return Measurement(f"{sources} ({runs[0].format})", runs[0].described, figures, repeated, tuple(remarks))


def _figures(served: Served) -> dict[Quantity, float]:
    """Medians, and the throughput of the whole run, as benchmarks have them."""
    requests = served.requests
    output_N = requests.output_tokens_N
    several_N = output_N > 1
    gaps_N = (served.finish_seconds_N - served.first_token_seconds_N)[several_N] / (output_N[several_N] - 1)
    first_N = served.first_token_seconds_N - requests.arrival_seconds_N
    span = float(served.finish_seconds_N.max() - requests.arrival_seconds_N.min())
    return {
        Quantity.TPOT: float(np.median(gaps_N)),
        Quantity.TTFT: float(np.median(first_N)),
        Quantity.OUTPUT: float(output_N.sum()) / span,
    }


def _check(load: BenchmarkLoad, deployment: Deployment) -> None:
    model, requests = deployment.model, load.requests
    longest = int((requests.prompt_tokens_N + requests.output_tokens_N).max())
    if model.max_context is not None and longest > model.max_context:
        raise InputError(
            f"{load.source}: requests of {longest:,} tokens, and {model.name} was made for {model.max_context:,}; "
            "name the model that was measured"
        )
    if (requests.output_tokens_N < 2).all():
        raise InputError(f"{load.source}: every request has one output token; take a load that decodes")
    if load.tried_ahead and deployment.workload.tried_per_sequence == 1:
        raise InputError(f"{load.source}: the server tried tokens ahead; say how many by `mtp_tokens`")
