"""The work behind `wingspan place`: read, plan, score, show, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from wingspan.cli.console import Console, progress
from wingspan.cli.place_view import show
from wingspan.cli.run_setup import is_deployment
from wingspan.deployment import Deployment, load_deployment, save_deployment
from wingspan.describe import Description, cluster_of, deployment_of, model_of
from wingspan.errors import InputError
from wingspan.limits import MOST_RANKS, MOST_SLOTS
from wingspan.placement.limits import check_memory
from wingspan.placement.objective import Objective
from wingspan.placement.plan import Moving
from wingspan.placement.spec import PlacementSpec
from wingspan.placement_file import read_placement, write_placement
from wingspan.routing.homes import spread_requests
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.trace_file import TraceFile
from wingspan.routing.workloads import workload
from wingspan.simulate.placing import PARTS, STRATEGIES, Comparison, compare, objective_of
from wingspan.specs.model import ModelSpec
from wingspan.specs.placement import Placement
from wingspan.specs.routing_text import parse_routing
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import json_text

_USUAL_MODEL = "deepseek-v3"
_SYNTHETIC_TOKENS = 16_384
"""About as many are drawn: whole steps of one request per rank, so that all ranks hold equally many."""


@dataclass(frozen=True)
class PlaceArguments:
    """The command line of `wingspan place`; `deployment` says what it shares with `simulate`."""

    trace: Path | None
    synthetic: str | None
    deployment: Description
    spare_ranks: int
    ranks_per_node: int | None
    request_routing: bool
    present: Path | None
    horizon_steps: int
    expert_memory_gb: float | None
    placement: str
    out: Path | None
    seed: int
    as_json: bool


def execute(arguments: PlaceArguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    _check_strategy(arguments.placement, STRATEGIES)
    if (arguments.trace is None) == (arguments.synthetic is None):
        raise InputError("give either a trace or --synthetic KIND")
    file = None if arguments.trace is None else TraceFile.open(arguments.trace)
    asked, planned = _asked(arguments.deployment)
    arguments = replace(arguments, deployment=asked)
    model = planned.model if planned else model_of(replace(asked, source=asked.source or _USUAL_MODEL))
    if file is not None:
        _check_fit(file, model, named=bool(asked.source))
    ranks = (asked.ranks or -(-model.experts.count // (asked.experts_per_rank or 1))) + arguments.spare_ranks
    _check_size(ranks, asked.experts_per_rank or 1, model)
    source = _drawn(arguments, model) if file is None else _recorded(file)
    trace, about = source.read(ranks), source.about
    if trace.num_ranks != ranks:
        about += f"; requests of {trace.num_ranks} home ranks dealt to {ranks} in turn"
        trace = spread_requests(trace, ranks)
    deployment = _deployment(arguments, ranks, trace, planned)
    objective = objective_of(deployment)
    if arguments.expert_memory_gb is not None:
        budget_bytes = arguments.expert_memory_gb * 1e9
        slots = deployment.placement.experts_per_rank
        check_memory(len(model.moe_layers), slots, round(objective.shape.expert_bytes), budget_bytes)
    present = None if arguments.present is None else _present(arguments.present, model)
    with progress("placing", PARTS) as advance:
        result = compare(
            deployment,
            trace,
            present=present,
            moving=Moving(steps=arguments.horizon_steps),
            request_routing=arguments.request_routing,
            seed=arguments.seed,
            begins=lambda part: advance(doing=part),
        )
    # Two of the strategies are there only where groups divide into nodes, and with --current.
    _check_strategy(arguments.placement, result.placements)
    if arguments.as_json:
        print(json_text(_to_dict(about, deployment, objective, result)), flush=True)
    else:
        on = f"{deployment.model.name} on {deployment.cluster.name}"
        show(result, about, on, deployment, objective, Console(highlight=False))
    if arguments.out is not None:
        placement = result.placements[arguments.placement]
        if planned is not None:
            save_deployment(_placed(deployment, placement, arguments.trace), arguments.out)
        else:
            _write_placement(placement, model, objective, arguments.out)
        if not arguments.as_json:
            print(f"{arguments.placement} written to {arguments.out}")


def _asked(said: Description) -> tuple[Description, Deployment | None]:
    """What is asked for, and the deployment where its source is the file of one: that says ranks, slots and tokens."""
    if not is_deployment(str(said.source)):
        return replace(said, dispatcher=said.dispatcher or "hierarchical"), None
    planned = load_deployment(Path(str(said.source)))
    return (
        replace(
            said,
            ranks=said.ranks or planned.ranks,
            experts_per_rank=said.experts_per_rank or planned.placement.experts_per_rank,
            tokens_per_gpu=said.tokens_per_gpu or planned.workload.tokens_per_gpu,
        ),
        planned,
    )


def _placed(deployment: Deployment, placement: Placement, trace: Path | None) -> Deployment:
    """The deployment with this placement, and with the routing that it was judged by where a file holds it."""
    workload = deployment.workload
    if trace is not None:
        workload = workload.model_copy(update={"routing": parse_routing(str(trace))})
    return deployment.model_copy(
        update={"placement": PlacementSpec.explicit(placement), "workload": workload}
    )


def _write_placement(placement: Placement, model: ModelSpec, objective: Objective, out: Path) -> None:
    write_placement(StoredPlacement(placement, model.moe_layers, model.layers, objective.ranks_per_node), out)


def _deployment(
    arguments: PlaceArguments, ranks: int, trace: RoutingTrace, planned: Deployment | None
) -> Deployment:
    """The deployment whose step judges the placements; its tokens per GPU are the trace's mean, unless asked for."""
    asked = arguments.deployment
    tokens = asked.tokens_per_gpu or max(1, round(trace.num_tokens / len(np.unique(trace.step_T)) / ranks))
    if planned is not None and asked.cluster is None and arguments.ranks_per_node is None:
        same = (ranks, asked.experts_per_rank) == (planned.ranks, planned.placement.experts_per_rank)
        # An explicit placement has its size; another one is refused there.
        return deployment_of(
            replace(
                asked,
                ranks=None if same else ranks,
                experts_per_rank=None if same else asked.experts_per_rank,
            )
        )
    cluster = cluster_of(asked) if planned is None or asked.cluster else planned.cluster
    per_node = arguments.ranks_per_node or min(cluster.gpus_per_node, ranks)
    if ranks % per_node:
        raise InputError(
            f"{ranks} ranks do not fill whole nodes of {per_node}; use a multiple of it (--ranks, --spare-ranks) or "
            "other nodes (--ranks-per-node)"
        )
    wanted = replace(
        asked,
        source=asked.source or _USUAL_MODEL,
        ranks=ranks,
        experts_per_rank=asked.experts_per_rank or 1,
        tokens_per_gpu=tokens,
        cluster=None,
    )
    return deployment_of(wanted, cluster=cluster.with_nodes(ranks // per_node, per_node))


def _check_size(ranks: int, experts_per_rank: int, model: ModelSpec) -> None:
    """Bound the work before it begins."""
    layers = len(model.moe_layers)
    if ranks > MOST_RANKS or ranks * experts_per_rank * layers > MOST_SLOTS:
        raise InputError(
            f"{ranks:,} ranks x {experts_per_rank:,} slots: at most {MOST_RANKS:,} ranks, and {MOST_SLOTS:,} slots "
            f"over the {layers} layers"
        )


@dataclass(frozen=True)
class _Source:
    """Where tokens come from: a file, or a synthetic kind drawn for as many ranks as are planned."""

    about: str
    read: Callable[[int], RoutingTrace]


def _check_fit(file: TraceFile, model: ModelSpec, *, named: bool) -> None:
    """Raise `InputError` unless the trace is of this model's shape: its rows and experts would be priced wrongly."""
    shape = (file.num_layers, file.top_k, file.num_experts)
    own = (len(model.moe_layers), model.experts.per_token, model.experts.count)
    if shape == own:
        return
    trace, wanted = ("{} MoE layers, top-{} of {} experts".format(*each) for each in (shape, own))
    if named:
        raise InputError(f"{file.path}: {trace}; --model {model.name} has {wanted}")
    raise InputError(f"{file.path}: {trace}; add --model, that of the trace ({model.name} has {wanted})")


def _present(path: Path, model: ModelSpec) -> Placement:
    stored = read_placement(path)
    try:
        stored.check_model(model.moe_layers, model.layers, model.name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return stored.placement


def _recorded(file: TraceFile) -> _Source:
    return _Source(f"{file.path}, {file.origin}", lambda _ranks: file.read())


def _drawn(arguments: PlaceArguments, model: ModelSpec) -> _Source:
    kind, layers, count = str(arguments.synthetic), len(model.moe_layers), model.experts.count

    def draw(ranks: int) -> RoutingTrace:
        request_tokens = min(64, max(1, _SYNTHETIC_TOKENS // (4 * ranks)))
        step_tokens = ranks * request_tokens
        tokens = step_tokens * 4 * max(1, round(_SYNTHETIC_TOKENS / (4 * step_tokens)))
        shape = TraceShape(tokens, layers, count, model.experts.per_token, ranks, request_tokens)
        drawn = generate(shape, workload(kind, shape, arguments.seed), arguments.seed)
        return concatenate(list(drawn))

    return _Source(f"synthetic: {kind}, shape of {model.name}, seed {arguments.seed}", draw)


def _check_strategy(strategy: str, known: Iterable[str]) -> None:
    names = list(known)
    if strategy not in names:
        raise InputError(f"--placement {strategy}: use one of {', '.join(names)}")


def _to_dict(
    about: str, deployment: Deployment, objective: Objective, result: Comparison
) -> dict[str, object]:
    return {
        "trace": about,
        "model": deployment.model.name,
        "cluster": deployment.cluster.name,
        "planned_tokens": result.planned_tokens,
        "trace_tokens": result.trace_tokens,
        "step_tokens": result.step_tokens,
        "ranks": objective.ranks,
        "ranks_per_node": objective.ranks_per_node,
        "experts_per_rank": deployment.placement.experts_per_rank,
        "dispatcher": deployment.dispatcher.value,
        "strategies": {name: score.to_dict() for name, score in result.scores.items()},
        "eplb_twins": result.eplb_twins,
        "limits": asdict(result.limits),
        "advice": result.advice,
    }
