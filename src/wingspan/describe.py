"""A deployment in a few words, and the whole deployment that they make: what is left out follows or is usual."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wingspan.deployment import Deployment, load_deployment, read_routing_trace
from wingspan.errors import InputError
from wingspan.interop.physical import ImportOptions, NotSaidError
from wingspan.placement.simple import check_fits, whole_nodes
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.placement_file import read_placement
from wingspan.reading import json_value
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.cluster_files import has_any_size
from wingspan.specs.execution import parse_schedule, schedule_text
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.reading import parse
from wingspan.specs.routing_text import fitted, parse_routing
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.specs.workload import Workload

_USUAL_CONTEXT = 4096
_USUAL_CLUSTER = "h100-sxm"


@dataclass(frozen=True)
class Description:
    """What is asked for; None = the deployment file's value, or the default.

    Args:
        source: a model, or by name: a preset, a config.json or its folder, or a deployment file, whose values the
            others then change.
        cluster: or its preset or file (default h100-sxm).
        ranks: GPUs that hold one copy of the experts: the EP size, times `expert_tensor_parallel` (default: a rank per
            expert, in whole nodes; with `expert_tensor_parallel` so many).
        experts_per_rank: slots per (layer, rank) (default: as few as hold all experts).
        placement: `linear` (default), `round-robin`, `random`, `balanced`, or a placement's JSON file.
        phase: `prefill` or `decode` (default).
        tokens_per_gpu: new tokens per GPU and step (default 64; in prefill 4096, or one prompt).
        total_sequences: sequences of a step over all GPUs, instead of `tokens_per_gpu`; with fewer than GPUs some wait.
        context: mean tokens of context per sequence; in prefill, of a prompt (default 4096, or the most that fits).
        context_spread: standard deviation / mean of contexts (default 0).
        routing: as `parse_routing` reads it (default `uniform`).
        expected_loads: loads exactly as the routing's shares, not one draw of them.
        schedule: `sequential` (default), `chunks:N` or `two-batch`.
        dispatcher: `flat` (default in decode), `deduplicated` or `hierarchical` (default in prefill).
        attention_ranks: GPUs of a node that share attention (default 1); beyond a node where experts are cut too.
        expert_tensor_parallel: neighbouring GPUs over which every expert's width is cut (default 1).
        weights: their precision (default: as published).
        activations: their precision (default: FP8 beside FP8 weights, else BF16).
        kv: the KV cache's precision (default BF16).
        seed: of all draws (default 0).
        redundant: slots beyond the experts, in all of a layer; says `experts_per_rank` otherwise.
    """

    source: str | ModelSpec
    cluster: str | Cluster | None = None
    ranks: int | None = None
    experts_per_rank: int | None = None
    placement: str | None = None
    phase: str | None = None
    tokens_per_gpu: int | None = None
    total_sequences: int | None = None
    context: int | None = None
    context_spread: float | None = None
    routing: str | None = None
    expected_loads: bool = False
    schedule: str | None = None
    dispatcher: str | None = None
    attention_ranks: int | None = None
    expert_tensor_parallel: int | None = None
    weights: str | None = None
    activations: str | None = None
    kv: str | None = None
    seed: int | None = None
    redundant: int | None = None


def deployment_of(said: Description, cluster: Cluster | None = None) -> Deployment:
    """The deployment that was asked for, on `cluster` where one is given.

    Raises:
        InputError: an unknown preset or file, or values that do not fit together.
    """
    said = _on_as_many_gpus(said)
    data = _described(said) | {"planned": None}
    whole = cluster or _cluster(said)
    if said.placement is not None and Path(said.placement).is_file():
        data["placement"] = _explicit(data, said)
    else:
        if data["placement"] is None or said.ranks is not None or said.experts_per_rank is not None:
            data["placement"] = (data["placement"] or {}) | _sized(data, said, whole)
        _set(data["placement"], "strategy", said.placement and _strategy(said.placement))
    if whole is not None:
        # A preset is as large as its ranks need, a file as large as it says.
        cut = cluster is None and _is_open(said)
        gpus = data["placement"]["ranks"] * data["options"].get("expert_tensor_parallel", 1)
        data["cluster"] = (whole.with_gpus(gpus) if cut else whole).model_dump(mode="json")
    return _parsed(data, said)


def template_of(said: Description, longest_step_seconds: float | None = None) -> Deployment:
    """What was asked for, with all open that a search chooses: one rank that holds everything, on the whole cluster.

    A file that a plan wrote keeps what that plan was to keep, and leaves open what it chose: its `planned`.

    Raises:
        InputError: as `deployment_of`.
    """
    data, cluster = _described(said), _cluster(said)
    data["placement"] = {"ranks": 1, "experts_per_rank": data["model"]["experts"]["count"]}
    data["options"]["attention_ranks"] = 1
    shared = data["options"].pop("expert_tensor_parallel", 1)
    before = data.get("planned") or {"dispatcher": data["options"].get("dispatcher")}
    if said.expert_tensor_parallel is not None or (data.get("planned") is None and shared > 1):
        before |= {"expert_tensor_parallel": shared}
    data["planned"] = before | {
        name: value
        for name, value in (
            ("dispatcher", said.dispatcher),
            ("tokens_per_gpu", said.tokens_per_gpu),
            ("total_sequences", said.total_sequences),
            ("longest_step_seconds", longest_step_seconds),
            ("experts_per_rank", said.experts_per_rank),
            ("redundant", said.redundant),
            ("placement", said.placement and _asked_placement(data, said)),
        )
        if value is not None
    }
    if said.tokens_per_gpu is not None:
        data["planned"]["total_sequences"] = None
    if said.total_sequences is not None:
        data["planned"]["tokens_per_gpu"] = None
    data["workload"]["total_sequences"] = data["planned"].get("total_sequences")
    data["options"]["dispatcher"] = data["planned"]["dispatcher"]
    if cluster is not None:
        data["cluster"] = cluster.model_dump(mode="json")
    return _parsed(data, said)


def model_of(said: Description) -> ModelSpec:
    """The model, where the source is none in a deployment file.

    Raises:
        InputError: as `load_model`.
    """
    return said.source if isinstance(said.source, ModelSpec) else load_model(said.source)


def cluster_of(said: Description) -> Cluster:
    """The cluster, or the usual one, as large as it says.

    Raises:
        InputError: as `load_cluster`.
    """
    return said.cluster if isinstance(said.cluster, Cluster) else load_cluster(said.cluster or _USUAL_CLUSTER)


def _parsed(data: dict[str, Any], said: Description) -> Deployment:

    _set_seed(data, said)
    _spread_sequences(data)
    return read_routing_trace(parse(Deployment, data, _name(said)))


def _described(said: Description) -> dict[str, Any]:
    """Model, work and options as asked; placement and cluster as the deployment file has them, or None."""

    data = _start(said)
    workload, options = data["workload"], data["options"]
    _set(workload, "phase", said.phase)
    if said.total_sequences is not None and said.tokens_per_gpu is not None:
        raise InputError(
            f"`total_sequences` {said.total_sequences}: `tokens_per_gpu` says another batch; give one"
        )
    if said.tokens_per_gpu is not None:
        workload["total_sequences"] = None
    _set(workload, "tokens_per_gpu", said.tokens_per_gpu)
    _set(workload, "total_sequences", said.total_sequences)
    if workload.get("total_sequences"):
        workload.pop("tokens_per_gpu", None)  # Follows from the ranks.
    _set(workload["context"], "mean_tokens", said.context)
    _set_usual_sizes(workload, data["model"]["max_context"])
    _check_prompts(workload, said)
    _set(workload["context"], "spread", said.context_spread)
    if said.routing is not None:
        model = parse(ModelSpec, data["model"], _name(said))
        workload["routing"] = fitted(parse_routing(said.routing), model).model_dump(mode="json")
    _set(workload, "fluctuating", False if said.expected_loads else None)
    for name in ("weights", "activations", "kv"):
        _set(workload, name, getattr(said, name))
    for name in ("dispatcher", "attention_ranks", "expert_tensor_parallel"):
        _set(options, name, getattr(said, name))
    if said.schedule is not None:
        options["schedule"] = schedule_text(*parse_schedule(said.schedule))
    return data


def _start(said: Description) -> dict[str, Any]:
    """A deployment file's content, or the defaults for a model."""

    file = _file(said)
    if file is not None:
        return load_deployment(file).model_dump(mode="json")
    model = model_of(said)
    return {
        "schema_version": 1,
        "model": model.model_dump(mode="json"),
        "cluster": None,
        "workload": {"phase": "decode", "context": {}},
        "placement": None,
        "options": {},
        "checkpoint": None if isinstance(said.source, ModelSpec) else _checkpoint(Path(said.source)),
    }


def _checkpoint(path: Path) -> str | None:
    """The folder of weights that `path` is; None where it has none."""
    return str(path.resolve()) if path.is_dir() and any(path.glob("*.safetensors")) else None


def _set_usual_sizes(workload: dict[str, Any], longest: int | None) -> None:
    """Tokens per GPU and context where nobody gave them: 64 sequences, or one or several whole prompts."""
    prefill = workload["phase"] == "prefill"
    context = workload["context"].get("mean_tokens")
    if "tokens_per_gpu" not in workload:
        workload["tokens_per_gpu"] = max(_USUAL_CONTEXT, context or 1) if prefill else 64
    if context is None:
        fitting = min(_USUAL_CONTEXT, longest or _USUAL_CONTEXT)
        workload["context"]["mean_tokens"] = min(fitting, workload["tokens_per_gpu"]) if prefill else fitting


def _check_prompts(workload: dict[str, Any], said: Description) -> None:
    """Raise `InputError` where prompts were asked for that the step's tokens cannot hold."""

    tokens, context = workload["tokens_per_gpu"], workload["context"]["mean_tokens"]
    given = said.context is not None or said.tokens_per_gpu is not None
    if workload["phase"] == "prefill" and given and context > tokens:
        raise InputError(
            f"a prefill of {tokens:,} tokens per GPU cannot hold a prompt of {context:,}: raise `tokens_per_gpu` or "
            "lower `context`"
        )


def _set_seed(data: dict[str, Any], said: Description) -> None:
    """One seed for all draws; raises `InputError` where it was asked for and nothing is drawn."""

    if said.seed is None:
        return
    workload, placement = data["workload"], data["placement"]
    workload["seed"] = said.seed
    by_chance = placement.get("strategy") == "random"
    if by_chance:
        placement["seed"] = said.seed
    shares_drawn = workload.get("routing", {}).get("kind") in ("log_normal", "power_law")
    if not (
        by_chance or shares_drawn or workload.get("fluctuating", True) or workload["context"].get("spread")
    ):
        raise InputError(f"`seed` {said.seed}: does nothing here: with expected loads nothing is drawn")


def _spread_sequences(data: dict[str, Any]) -> None:
    """Tokens of the fullest rank, where sequences are counted over all of them."""
    if data["workload"].get("total_sequences"):
        ranks = data["placement"]["ranks"] * data["options"].get("expert_tensor_parallel", 1)
        work = parse(Workload, data["workload"], "workload").spread_over(ranks)
        data["workload"]["tokens_per_gpu"] = work.tokens_per_gpu


def _file(said: Description) -> Path | None:
    """The deployment file that is the source; None: a model is."""
    if isinstance(said.source, ModelSpec):
        return None
    path = Path(said.source)
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return path if isinstance(data, dict) and "schema_version" in data and "slots" not in data else None


def _name(said: Description) -> str:
    return said.source.name if isinstance(said.source, ModelSpec) else said.source


def _explicit(data: dict[str, Any], said: Description) -> dict[str, Any]:
    """The placement of a file, slot by slot."""

    path = Path(str(said.placement))
    model = parse(ModelSpec, data["model"], _name(said))
    own = said.ranks is not None or said.experts_per_rank is not None
    stored = placement_of_model(path, model, said.ranks)
    of_engine = said.experts_per_rank is None and stored.placement.num_ranks == said.ranks
    if own and not of_engine:
        raise InputError(
            f"`placement` {said.placement}: its slots say how many ranks; leave `ranks` and `experts_per_rank` out"
        )
    try:
        stored.check_model(model.moe_layers, model.layers, model.name)
    except InputError as error:
        raise InputError(f"{said.placement}: {error}") from None
    return PlacementSpec.explicit(stored.placement, stored.remarks).model_dump(mode="json")


def placement_of_model(path: Path, model: ModelSpec, ranks: int | None) -> StoredPlacement:
    """The placement in a file for this model; an engine's file is completed by the model, and by `ranks`.

    Raises:
        InputError: as `read_placement`; or an engine's file that does not say over how many ranks.
    """
    options = ImportOptions(ranks, model.experts.count, model.moe_layers, None)
    try:
        return read_placement(path, options)
    except NotSaidError as error:
        raise InputError(f"{error}; add `ranks`") from None


def _asked_placement(data: dict[str, Any], said: Description) -> dict[str, Any]:
    """A placement that a search keeps: every slot of a file, or a strategy at any EP size."""
    if Path(str(said.placement)).is_file():
        return _explicit(data, said)
    return {"strategy": _strategy(str(said.placement)), "ranks": 1}


def _strategy(name: str) -> str:

    rules = [rule.value for rule in Strategy if rule is not Strategy.EXPLICIT]
    if name.replace("-", "_") not in rules:
        shown = ", ".join(rules).replace("_", "-")
        raise InputError(f"`placement` {name}: neither one of {shown}, nor an existing file")
    return name.replace("-", "_")


def _on_as_many_gpus(said: Description) -> Description:
    """A file's ranks, where its experts are to be cut otherwise and nobody says over how many."""
    file = _file(said)
    if file is None or said.ranks is not None or said.expert_tensor_parallel is None:
        return said
    before = load_deployment(file)
    same = before.options.expert_tensor_parallel == said.expert_tensor_parallel
    return said if same else replace(said, ranks=before.ranks)


def _sized(data: dict[str, Any], said: Description, cluster: Cluster | None) -> dict[str, Any]:
    """Ranks and slots: whichever is not given follows from the experts and the cluster.

    Ranks: as many as the experts need, in whole nodes, and no more than a given cluster has; where experts are cut, one
    group that shares all. The placement's are groups of ranks that share their experts.
    """

    if data["placement"] is not None and data["placement"].get("slots") is not None:
        raise InputError(
            f"{_name(said)}: its placement is explicit; `ranks` and `experts_per_rank` would need another one"
        )
    experts, slots = data["model"]["experts"]["count"], said.experts_per_rank
    shared = data["options"].get("expert_tensor_parallel", 1)
    if said.ranks is not None and said.ranks % shared:
        raise InputError(f"`expert_tensor_parallel` {shared} must divide the {said.ranks} ranks")
    cluster = cluster or Cluster.model_validate(data["cluster"])
    if said.ranks is not None or shared > 1:
        groups = -(-experts // (slots or experts)) if said.ranks is None else said.ranks // shared
        slots = slots or -(-experts // groups)
        if groups * slots < experts and shared > 1:
            needed = -(-experts // slots) * shared
            raise InputError(
                f"{experts} experts per layer do not fit {groups} groups x {slots} slots; use `ranks` {needed} or "
                f"`experts_per_rank` {-(-experts // groups)}"
            )
        check_fits(experts, groups, slots, cluster.gpus_per_node)
        return {"ranks": groups, "experts_per_rank": slots}
    ranks = whole_nodes(-(-experts // (slots or 1)), cluster.gpus_per_node)
    if not _is_open(said) and ranks > cluster.gpus:
        if slots is not None:
            raise InputError(
                f"`experts_per_rank` {slots}: the {cluster.gpus} GPUs of {cluster.name} hold {slots * cluster.gpus} "
                f"of {experts} experts; use {-(-experts // cluster.gpus)} or more"
            )
        ranks = cluster.gpus
    return {"ranks": ranks, "experts_per_rank": slots or -(-experts // ranks)}


def _cluster(said: Description) -> Cluster | None:
    """The cluster that is asked for, as large as it says; None: the deployment file's."""

    if said.cluster is None and _file(said) is not None:
        return None
    return cluster_of(said)


def _is_open(said: Description) -> bool:
    """Whether the cluster has as many nodes as the ranks need: a preset has, what a file describes has its own."""

    if said.cluster is None:
        return _file(said) is None
    name = said.cluster.name if isinstance(said.cluster, Cluster) else said.cluster
    return has_any_size(name)


def _set(data: dict[str, Any], key: str, value: object) -> None:
    if value is not None:
        data[key] = value
