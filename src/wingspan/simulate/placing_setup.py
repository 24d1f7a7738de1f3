"""What `compare` is given: routing of a file, of an engine's dump or synthetic, and the deployment that judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wingspan.deployment import Deployment
from wingspan.describe import Description, cluster_of, deployment_of
from wingspan.errors import InputError
from wingspan.interop.importing import import_from
from wingspan.interop.physical import ImportOptions, NotSaidError
from wingspan.limits import MOST_RANKS, MOST_SLOTS
from wingspan.routing.homes import spread_requests
from wingspan.routing.load_file import read_load
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.statistics import expert_load
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.trace_file import TraceFile, is_trace
from wingspan.routing.workloads import workload
from wingspan.specs.model import ModelSpec
from wingspan.specs.routing_text import parse_routing, routing_of_load
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.specs.workload import Routing

_SYNTHETIC_TOKENS = 16_384
"""About as many are drawn: whole steps of one request per rank, so that all ranks hold equally many."""


@dataclass(frozen=True)
class Source:
    """Where routing comes from.

    Args:
        about: in words.
        read: a trace, for as many home ranks as are planned if it is drawn, or a load.
        file: a routing trace of Wingspan's, which a deployment can name.
    """

    about: str
    read: Callable[[int], RoutingTrace | RecordedLoad]
    file: Path | None = None


def source_of_file(path: Path, engine: str | None, model: ModelSpec, *, named: bool = True) -> Source:
    """A routing trace, a load, or what `engine` recorded.

    Args:
        path: of the file or folder.
        engine: whose it is; None: Wingspan's own file, or a plain matrix.
        model: that the routing must be of; it says which of the engine's layers are MoE layers.
        named: whether the model was asked for, rather than taken as the usual one.

    Raises:
        InputError: it cannot be read, or is of another model.
    """
    if engine is not None:
        found = _imported(path, engine, model, named)
        return Source(f"{path}, recorded by {engine}", lambda _ranks: found)
    if path.suffix == ".parquet" and is_trace(path):
        file = TraceFile.open(path)
        _check_fit(str(path), (file.num_layers, file.top_k, file.num_experts), model, named)
        return Source(f"{path}, {file.origin}", lambda _ranks: file.read(), path)
    load = _of_model(read_load(path, model.experts.count), path, model, named)
    about = str(path) if load.source == str(path) else f"{path}, {load.source}"
    return Source(about, lambda _ranks: load)


def drawn_source(kind: str, model: ModelSpec, seed: int) -> Source:
    """A synthetic trace in the shape of the model."""
    layers, count = len(model.moe_layers), model.experts.count

    def draw(ranks: int) -> RoutingTrace:
        request_tokens = min(64, max(1, _SYNTHETIC_TOKENS // (4 * ranks)))
        step_tokens = ranks * request_tokens
        tokens = step_tokens * 4 * max(1, round(_SYNTHETIC_TOKENS / (4 * step_tokens)))
        shape = TraceShape(tokens, layers, count, model.experts.per_token, ranks, request_tokens)
        return concatenate(list(generate(shape, workload(kind, shape, seed), seed)))

    return Source(f"synthetic: {kind}, shape of {model.name}, seed {seed}", draw)


def on_ranks(source: Source, ranks: int) -> tuple[RoutingTrace | RecordedLoad, str]:
    """The routing over so many home ranks, and in words what it is."""
    found = source.read(ranks)
    if isinstance(found, RecordedLoad) or found.num_ranks == ranks:
        return found, source.about
    dealt = f"; requests of {found.num_ranks} home ranks dealt to {ranks} in turn"
    return spread_requests(found, ranks), source.about + dealt


def written_routing(source: Source, found: RoutingTrace | RecordedLoad) -> Routing:
    """The routing as a deployment's file holds it: a trace by its file, all else by its loads."""
    if source.file is not None:
        return parse_routing(str(source.file))
    if isinstance(found, RecordedLoad):
        return routing_of_load(found)
    return routing_of_load(RecordedLoad(expert_load(found)[None], None, source.about))


def check_size(ranks: int, experts_per_rank: int, model: ModelSpec) -> None:
    """Bound the work before it begins; raises `InputError`."""
    layers = len(model.moe_layers)
    if ranks > MOST_RANKS or ranks * experts_per_rank * layers > MOST_SLOTS:
        raise InputError(
            f"{ranks:,} ranks x {experts_per_rank:,} slots: at most {MOST_RANKS:,} ranks, and {MOST_SLOTS:,} slots "
            f"over the {layers} layers"
        )


def slots_with_redundant(experts: int, redundant: int, ranks: int) -> int:
    """Slots per rank where a layer has so many beyond its experts, over all ranks, as engines count them.

    Raises:
        InputError: they do not divide over the ranks.
    """
    slots = experts + redundant
    if slots % ranks:
        fewer, more = (n * ranks - experts for n in (slots // ranks, slots // ranks + 1))
        raise InputError(
            f"`redundant` {redundant}: {experts} + {redundant} = {slots} slots do not divide over {ranks} ranks; use "
            + (f"{fewer} or {more}" if fewer >= 0 else f"{more}")
        )
    return slots // ranks


def judging_deployment(
    asked: Description,
    ranks: int,
    ranks_per_node: int | None,
    found: RoutingTrace | RecordedLoad,
    planned: Deployment | None,
) -> Deployment:
    """The deployment whose step judges the placements; its tokens per GPU are a trace's mean, unless asked for.

    Args:
        asked: as options say it; where it leaves tokens open, those of a load's step are the usual ones.
        ranks: all of them, spare ones included.
        ranks_per_node: ranks that share the fast link; None: as the cluster has it.
        found: the routing.
        planned: of the deployment file that `asked` names, if it does.

    Raises:
        InputError: the ranks do not fill whole nodes, or something else does not fit.
    """
    tokens = asked.tokens_per_gpu
    if tokens is None and isinstance(found, RoutingTrace):
        tokens = max(1, round(found.num_tokens / len(np.unique(found.step_T)) / ranks))
    if planned is not None and asked.cluster is None and ranks_per_node is None:
        same = (ranks, asked.experts_per_rank) == (planned.ranks, planned.placement.experts_per_rank)
        # An explicit placement has its size; another one is refused there.
        size = (None, None) if same else (ranks, asked.experts_per_rank)
        return deployment_of(replace(asked, ranks=size[0], experts_per_rank=size[1]))
    cluster = cluster_of(asked) if planned is None or asked.cluster else planned.cluster
    per_node = ranks_per_node or min(cluster.gpus_per_node, ranks)
    if ranks % per_node:
        raise InputError(
            f"{ranks} ranks do not fill whole nodes of {per_node}; use a multiple of it (`ranks`, `spare_ranks`) or "
            "other nodes (`ranks_per_node`)"
        )
    wanted = replace(
        asked, ranks=ranks, experts_per_rank=asked.experts_per_rank or 1, tokens_per_gpu=tokens, cluster=None
    )
    return deployment_of(wanted, cluster=cluster.with_nodes(ranks // per_node, per_node))


def _imported(path: Path, engine: str, model: ModelSpec, named: bool) -> RoutingTrace | RecordedLoad:
    # vLLM's load statistics count MoE layers alone; all else numbers the model's layers.
    layers = None if path.suffix == ".jsonl" else model.moe_layers
    try:
        found = import_from(engine, path, ImportOptions(None, model.experts.count, layers))
    except NotSaidError:
        raise InputError(
            f"{path}: holds a placement; give it as `present`, and routing to plan from"
        ) from None
    if isinstance(found, StoredPlacement):
        raise InputError(f"{path}: holds a placement; give it as `present`, and routing to plan from")
    if isinstance(found, RecordedLoad):
        return _of_model(found, path, model, named)
    _check_fit(str(path), (found.num_layers, found.top_k, found.num_experts), model, named)
    return found


def _of_model(load: RecordedLoad, path: Path, model: ModelSpec, named: bool) -> RecordedLoad:
    try:
        return load.of_model(model.moe_layers, model.layers, model.experts.count, model.name)
    except InputError as error:
        mend = "" if named else ", or add `model`, that of the loads"
        raise InputError(f"{path}: {error}{mend}") from None


def _check_fit(path: str, shape: tuple[int, int, int], model: ModelSpec, named: bool) -> None:
    """Raise `InputError` unless a trace is of this model's shape: its rows and experts would be priced wrongly."""
    own = (len(model.moe_layers), model.experts.per_token, model.experts.count)
    if shape == own:
        return
    trace, wanted = ("{} MoE layers, top-{} of {} experts".format(*each) for each in (shape, own))
    if named:
        raise InputError(f"{path}: {trace}; `model` {model.name} has {wanted}")
    raise InputError(f"{path}: {trace}; add `model`, that of the trace ({model.name} has {wanted})")
