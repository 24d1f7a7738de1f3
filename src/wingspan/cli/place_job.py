"""The work behind `wingspan place`: read, plan, score, show, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from wingspan.cli.console import Console
from wingspan.cli.place_view import show
from wingspan.cli.placement_file import read_placement, write_placement
from wingspan.errors import InputError
from wingspan.placement.affinity import spread_requests
from wingspan.placement.compare import STRATEGIES, Comparison, compare
from wingspan.placement.limits import check_memory
from wingspan.placement.placement import Placement
from wingspan.placement.plan import Moving
from wingspan.placement.stored import StoredPlacement
from wingspan.placement.topology import Topology
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.trace_file import TraceFile
from wingspan.routing.workloads import workload
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.limits import MOST_RANKS, MOST_SLOTS
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision
from wingspan.writing import json_text

_ROWS = Precision.BF16
"""Rows travel, and experts compute, in this format."""
_USUAL_MODEL = "deepseek-v3"
_SYNTHETIC_TOKENS = 16_384
"""About as many are drawn: whole steps of one request per rank, so that all ranks hold equally many."""


@dataclass(frozen=True)
class Arguments:
    """The command line of `wingspan place`."""

    trace: Path | None
    synthetic: str | None
    model: str | None
    cluster: str
    ranks: int | None
    spare_ranks: int
    slots_per_rank: int
    ranks_per_node: int | None
    flat: bool
    request_routing: bool
    present: Path | None
    horizon_steps: int
    step_tokens: int | None
    expert_memory_gb: float | None
    strategy: str
    out: Path | None
    seed: int
    as_json: bool


def execute(arguments: Arguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    _check_strategy(arguments.strategy, STRATEGIES)
    if (arguments.trace is None) == (arguments.synthetic is None):
        raise InputError("give either a trace or --synthetic KIND")
    file = None if arguments.trace is None else TraceFile.open(arguments.trace)
    model = load_model(arguments.model or _USUAL_MODEL)
    if file is not None:
        _check_fit(file, model, named=arguments.model is not None)
    source = _drawn(arguments, model) if file is None else _recorded(file)
    topology = _topology(arguments, model, load_cluster(arguments.cluster))
    if arguments.expert_memory_gb is not None:
        budget_bytes = arguments.expert_memory_gb * 1e9
        check_memory(len(model.moe_layers), arguments.slots_per_rank, topology.expert_bytes, budget_bytes)
    trace, about = source.read(topology.ranks), source.about
    if trace.num_ranks not in (topology.ranks, topology.ranks - arguments.spare_ranks):
        about += f"; requests of {trace.num_ranks} home ranks dealt to {topology.ranks} in turn"
        trace = spread_requests(trace, topology.ranks)
    result = compare(
        trace,
        topology,
        arguments.slots_per_rank,
        groups=model.experts.groups,
        present=None if arguments.present is None else _present(arguments.present, model),
        moving=Moving(steps=arguments.horizon_steps),
        request_routing=arguments.request_routing,
        step_tokens=arguments.step_tokens * topology.ranks if arguments.step_tokens else None,
        seed=arguments.seed,
    )
    # Two of the strategies are there only where groups divide into nodes, and with --from.
    _check_strategy(arguments.strategy, result.placements)
    if arguments.as_json:
        print(json_text(_to_dict(about, topology, result)), flush=True)
    else:
        show(result, about, f"{model.name} on {arguments.cluster}", topology, Console(highlight=False))
    if arguments.out is not None:
        placement = result.placements[arguments.strategy]
        stored = StoredPlacement(placement, model.moe_layers, model.layers, topology.ranks_per_node)
        write_placement(stored, arguments.out)
        if not arguments.as_json:
            print(f"{arguments.strategy} written to {arguments.out}")


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


def _drawn(arguments: Arguments, model: ModelSpec) -> _Source:
    kind, layers, count = str(arguments.synthetic), len(model.moe_layers), model.experts.count

    def draw(ranks: int) -> RoutingTrace:
        request_tokens = min(64, max(1, _SYNTHETIC_TOKENS // (4 * ranks)))
        step_tokens = ranks * request_tokens
        tokens = step_tokens * 4 * max(1, round(_SYNTHETIC_TOKENS / (4 * step_tokens)))
        shape = TraceShape(tokens, layers, count, model.experts.per_token, ranks, request_tokens)
        drawn = generate(shape, workload(kind, shape, arguments.seed), arguments.seed)
        return concatenate(list(drawn))

    return _Source(f"synthetic: {kind}, shape of {model.name}, seed {arguments.seed}", draw)


def _topology(arguments: Arguments, model: ModelSpec, cluster: Cluster) -> Topology:
    """The plain numbers of model and cluster."""
    expert_bytes = model.parameters.expert * model.expert_weights.weight_bytes
    ranks = arguments.ranks or -(-model.experts.count // arguments.slots_per_rank)
    all_ranks = ranks + arguments.spare_ranks
    slots = all_ranks * arguments.slots_per_rank * len(model.moe_layers)
    if all_ranks > MOST_RANKS or slots > MOST_SLOTS:
        raise InputError(
            f"{all_ranks:,} ranks x {arguments.slots_per_rank:,} slots: at most {MOST_RANKS:,} ranks, and "
            f"{MOST_SLOTS:,} slots over the {len(model.moe_layers)} layers"
        )
    return Topology(
        ranks=all_ranks,
        ranks_per_node=arguments.ranks_per_node or min(cluster.scale_up_domain_gpus, all_ranks),
        within_bytes_per_second=cluster.scale_up.sustained_bytes_per_second,
        across_bytes_per_second=cluster.scale_out.sustained_bytes_per_second,
        row_bytes=int(model.hidden * _ROWS.row_bytes),
        expert_bytes=int(expert_bytes),
        seconds_per_token=2 * model.parameters.expert / cluster.gpu.sustained_flops(_ROWS),
        seconds_per_expert=expert_bytes / cluster.gpu.sustained_memory_bytes_per_second,
        once_per_node=not arguments.flat,
    )


def _check_strategy(strategy: str, known: Iterable[str]) -> None:
    names = list(known)
    if strategy not in names:
        raise InputError(f"--strategy {strategy}: use one of {', '.join(names)}")


def _to_dict(about: str, topology: Topology, result: Comparison) -> dict[str, object]:
    return {
        "trace": about,
        "planned_tokens": result.planned_tokens,
        "scored_tokens": result.scored_tokens,
        "step_tokens": result.step_tokens,
        "topology": asdict(topology),
        "strategies": {name: score.to_dict() for name, score in result.scores.items()},
        "eplb_twins": result.eplb_twins,
        "limits": asdict(result.limits),
        "advice": result.advice,
    }
