"""What `from wingspan import ...` gives: a deployment described, planned, predicted and placed, in one call each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wingspan.deployment import Deployment, Planned, PlannedRequests, load_deployment
from wingspan.describe import Description, deployment_of, template_of
from wingspan.describe.description import file_of
from wingspan.errors import InputError
from wingspan.simulate.layouts import Kept
from wingspan.simulate.planning import Plan, make_plan
from wingspan.simulate.search import Watch, unwatched
from wingspan.simulate.service import ServiceGoal
from wingspan.simulate.service_plan import ServicePlan, make_service_plan
from wingspan.simulate.step import simulate as predicted

if TYPE_CHECKING:
    from wingspan.routing.recorded_load import RecordedLoad
    from wingspan.routing.trace import RoutingTrace
    from wingspan.schedule.result import StepReport
    from wingspan.simulate.placing import Comparison
    from wingspan.simulate.training.planning import TrainingPlan
    from wingspan.specs.placement import Placement

_PRODUCTS = ("fp8", "bf16")
_USUAL_SEQUENCE = 4096
"""Tokens of a training sequence where nobody says."""


def plan(
    said: Description,
    gpus: int | None = None,
    *,
    longest_step_seconds: float | None = None,
    watch: Watch = unwatched,
) -> Plan:
    """Compare EP sizes on a number of GPUs, and name the best.

    Args:
        said: model, cluster and work; its tokens per GPU are kept where they are given, else chosen.
        gpus: all GPUs (default: as many as the cluster says).
        longest_step_seconds: leave out what takes longer.
        watch: is told of each EP size that is tried.

    Raises:
        InputError: what is said does not fit together, or nothing keeps the limit.
    """
    template = template_of(said, longest_step_seconds)
    planned = template.planned or Planned()
    return make_plan(
        template,
        gpus or template.cluster.gpus,
        fixed_batch=(planned.tokens_per_gpu or planned.total_sequences) is not None,
        longest_step_seconds=planned.longest_step_seconds,
        kept=_kept(planned),
        watch=watch,
    )


def plan_requests(
    said: Description, goal: ServiceGoal, gpus: int | None = None, *, watch: Watch = unwatched
) -> ServicePlan:
    """Find the groups that serve most requests of a length within limits, split by phase or together.

    Args:
        said: model, cluster, routing and precisions; phase, batch and context follow from the requests.
        goal: how long requests are, and how soon their tokens must come.
        gpus: all GPUs (default: as many as the plan had that wrote the file, or the cluster says).
        watch: is told of each EP size that is tried.

    Raises:
        InputError: what is said does not fit together.
    """
    template = template_of(said)
    planned = template.planned or Planned()
    whole = gpus or (planned.requests.gpus if planned.requests else template.cluster.gpus)
    requests = PlannedRequests(
        gpus=whole,
        prompt_tokens=goal.prompt_tokens,
        output_tokens=goal.output_tokens,
        ttft_seconds=goal.ttft_seconds,
        tpot_seconds=goal.tpot_seconds,
    )
    template = template.model_copy(update={"planned": planned.model_copy(update={"requests": requests})})
    return make_service_plan(template, whole, goal, _kept(planned), watch)


def planned_requests(said: Description) -> ServiceGoal | None:
    """The goal of the plan for requests that wrote the file; None: the source is no such file.

    Raises:
        InputError: a deployment file that cannot be read.
    """
    file = file_of(said)
    planned = None if file is None else load_deployment(file).planned
    if planned is None or planned.requests is None:
        return None
    kept = planned.requests
    return ServiceGoal(kept.prompt_tokens, kept.output_tokens, kept.ttft_seconds, kept.tpot_seconds)


def plan_training(said: Description, gpus: int | None = None) -> TrainingPlan:
    """Compare layouts (EP x DP x PP, recomputing, ZeRO) that train a model on a number of GPUs.

    Args:
        said: model, cluster, context (tokens of a sequence, default 4096), total sequences (global batch size),
            routing, precision of products and seed; training has none of the rest.
        gpus: all GPUs (default: as many as the cluster says).

    Raises:
        InputError: what is said does not fit together.
    """
    from wingspan.simulate.training import planning

    context = said.context or _USUAL_SEQUENCE
    products = (said.precision or "bf16").removeprefix("activations=")
    if products not in _PRODUCTS:
        raise InputError(
            f"`precision` {said.precision}: products of training are computed in {' or '.join(_PRODUCTS)}"
        )
    asked = Description(
        source=said.source,
        cluster=said.cluster,
        phase="prefill",
        tokens_per_gpu=context,
        context=context,
        routing=said.routing,
        precision=products,
        seed=said.seed,
    )
    template = template_of(asked)
    if template.precisions.attention.activations.value != products:
        raise InputError(
            f"`precision` {said.precision}: {template.cluster.gpu.name} does not compute in {products}"
        )
    whole = gpus or template.cluster.gpus
    return planning.plan_training(
        template.model, template.cluster, template.workload, whole, said.total_sequences
    )


def _kept(planned: Planned) -> Kept:
    if planned.redundant is not None and planned.experts_per_rank is not None:
        raise InputError(
            f"`redundant` {planned.redundant} and `experts_per_rank` {planned.experts_per_rank} say the same in two "
            "ways; leave one out"
        )
    return Kept(planned.experts_per_rank, planned.redundant, planned.placement)


def simulate(said: Deployment | Description) -> StepReport:
    """Predict one step.

    Raises:
        InputError: what is said does not fit together.
    """
    return predicted(_deployment(said))


def place(
    said: Deployment | Description,
    trace: RoutingTrace | RecordedLoad | Path | str,
    *,
    current: Placement | None = None,
    request_routing: bool = False,
    seed: int = 0,
) -> Comparison:
    """Place experts by all strategies, and say what each leads to.

    Args:
        said: the deployment; a description without tokens per GPU takes the trace's mean per step.
        trace: how tokens choose, as a trace or a load, or the file that holds it.
        current: the placement in use; ours then moves only what pays.
        request_routing: also let each request live on the node that its experts are on.
        seed: of the strategy that draws.

    Raises:
        InputError: what is said does not fit together, or the trace is of another model.
    """
    from wingspan.routing.homes import spread_requests
    from wingspan.routing.trace import RoutingTrace
    from wingspan.simulate.placing import compare
    from wingspan.simulate.placing_setup import source_of_file

    deployment = _deployment(said)
    tokens = (
        source_of_file(Path(trace), None, deployment.model).read(deployment.ranks)
        if isinstance(trace, (str, Path))
        else trace
    )
    if not isinstance(tokens, RoutingTrace):
        return compare(deployment, tokens, present=current, request_routing=request_routing, seed=seed)
    if isinstance(said, Description) and said.tokens_per_gpu is None:
        per_step = tokens.num_tokens / len(np.unique(tokens.step_T))
        mean = max(1, round(per_step / deployment.ranks))
        workload = deployment.workload.model_copy(update={"tokens_per_gpu": mean})
        deployment = deployment.model_copy(update={"workload": workload})
    if tokens.num_ranks != deployment.ranks:
        tokens = spread_requests(tokens, deployment.ranks)
    return compare(deployment, tokens, present=current, request_routing=request_routing, seed=seed)


def _deployment(said: Deployment | Description) -> Deployment:
    return said if isinstance(said, Deployment) else deployment_of(said)
