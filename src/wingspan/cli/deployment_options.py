"""What a command line says of a deployment, and the deployment that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wingspan.reading import json_value

if TYPE_CHECKING:
    from wingspan.deployment import Deployment
    from wingspan.specs.cluster import Cluster

_USUAL_CONTEXT = 4096


@dataclass(frozen=True)
class Asked:
    """What the command line says; None = the deployment file's value, or the default."""

    source: str
    cluster: str | None = None
    ranks: int | None = None
    experts_per_rank: int | None = None
    placement: str | None = None
    phase: str | None = None
    tokens_per_gpu: int | None = None
    context: int | None = None
    context_spread: float | None = None
    routing: str | None = None
    expected_loads: bool = False
    schedule: str | None = None
    dispatcher: str | None = None
    attention_ranks: int | None = None
    weights: str | None = None
    activations: str | None = None
    kv: str | None = None
    seed: int | None = None


def deployment_of(asked: Asked, cluster: Cluster | None = None) -> Deployment:
    """The deployment that was asked for, on `cluster` where one is given.

    Raises:
        InputError: an unknown preset or file, or values that do not fit together.
    """
    data = _described(asked)
    whole = cluster or _cluster(asked)
    if asked.placement is not None and Path(asked.placement).is_file():
        data["placement"] = _explicit(data, asked)
    else:
        if data["placement"] is None or asked.ranks is not None or asked.experts_per_rank is not None:
            data["placement"] = (data["placement"] or {}) | _sized(data, asked, whole)
        _set(data["placement"], "strategy", asked.placement and _strategy(asked.placement))
    if whole is not None:
        # A preset is as large as its ranks need, a file as large as it says.
        cut = cluster is None and _is_open(asked)
        data["cluster"] = (whole.with_gpus(data["placement"]["ranks"]) if cut else whole).model_dump(
            mode="json"
        )
    return _parsed(data, asked)


def template_of(asked: Asked) -> Deployment:
    """What was asked for, with all open that a search chooses: one rank that holds everything, on the whole cluster.

    Raises:
        InputError: as `deployment_of`.
    """
    data, cluster = _described(asked), _cluster(asked)
    data["placement"] = {"ranks": 1, "experts_per_rank": data["model"]["experts"]["count"]}
    data["options"]["attention_ranks"] = 1
    if cluster is not None:
        data["cluster"] = cluster.model_dump(mode="json")
    return _parsed(data, asked)


def _parsed(data: dict[str, Any], asked: Asked) -> Deployment:
    from wingspan.deployment import Deployment, read_routing_trace
    from wingspan.specs.reading import parse

    _set_seed(data, asked)
    return read_routing_trace(parse(Deployment, data, asked.source), Path())


def _described(asked: Asked) -> dict[str, Any]:
    """Model, work and options as asked; placement and cluster as the deployment file has them, or None."""
    from wingspan.specs.execution import parse_schedule
    from wingspan.specs.routing_text import parse_routing

    data = _start(asked)
    workload, options = data["workload"], data["options"]
    _set(workload, "phase", asked.phase)
    _set(workload, "tokens_per_gpu", asked.tokens_per_gpu)
    _set(workload["context"], "mean_tokens", asked.context)
    _set_usual_sizes(workload, data["model"]["max_context"])
    _check_prompts(workload, asked)
    _set(workload["context"], "spread", asked.context_spread)
    if asked.routing is not None:
        workload["routing"] = parse_routing(asked.routing).model_dump(mode="json")
    _set(workload, "fluctuating", False if asked.expected_loads else None)
    for name in ("weights", "activations", "kv"):
        _set(workload, name, getattr(asked, name))
    for name in ("dispatcher", "attention_ranks"):
        _set(options, name, getattr(asked, name))
    if asked.schedule is not None:
        options["schedule"], options["chunks"] = parse_schedule(asked.schedule)
    return data


def _start(asked: Asked) -> dict[str, Any]:
    """A deployment file's content, or the defaults for a model."""
    from wingspan.deployment import load_deployment
    from wingspan.specs.models import load_model

    path = Path(asked.source)
    if _is_deployment(path):
        return load_deployment(path).model_dump(mode="json")
    model = load_model(asked.source)
    return {
        "schema_version": 1,
        "model": model.model_dump(mode="json"),
        "cluster": None,
        "workload": {"phase": "decode", "context": {}},
        "placement": None,
        "options": {},
        "checkpoint": _checkpoint(path),
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


def _check_prompts(workload: dict[str, Any], asked: Asked) -> None:
    """Raise `InputError` where prompts were asked for that the step's tokens cannot hold."""
    from wingspan.errors import InputError

    tokens, context = workload["tokens_per_gpu"], workload["context"]["mean_tokens"]
    given = asked.context is not None or asked.tokens_per_gpu is not None
    if workload["phase"] == "prefill" and given and context > tokens:
        raise InputError(
            f"a prefill of {tokens:,} tokens per GPU cannot hold a prompt of {context:,}: raise --tokens-per-gpu or "
            "lower --context"
        )


def _set_seed(data: dict[str, Any], asked: Asked) -> None:
    """One seed for all draws; raises `InputError` where it was asked for and nothing is drawn."""
    from wingspan.errors import InputError

    if asked.seed is None:
        return
    workload, placement = data["workload"], data["placement"]
    workload["seed"] = asked.seed
    by_chance = placement.get("strategy") == "random"
    if by_chance:
        placement["seed"] = asked.seed
    shares_drawn = workload.get("routing", {}).get("kind") in ("log_normal", "power_law")
    if not (
        by_chance or shares_drawn or workload.get("fluctuating", True) or workload["context"].get("spread")
    ):
        raise InputError(f"--seed {asked.seed}: does nothing here: with expected loads nothing is drawn")


def _is_deployment(path: Path) -> bool:
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "schema_version" in data and "slots" not in data


def _explicit(data: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """The placement of a file, slot by slot."""
    from wingspan.cli.placement_file import read_placement
    from wingspan.errors import InputError
    from wingspan.placement.spec import PlacementSpec
    from wingspan.specs.model import ModelSpec
    from wingspan.specs.reading import parse

    if asked.ranks is not None or asked.experts_per_rank is not None:
        raise InputError(
            f"--placement {asked.placement}: its slots say how many ranks; leave --ranks and --experts-per-rank out"
        )
    stored = read_placement(Path(str(asked.placement)))
    model = parse(ModelSpec, data["model"], asked.source)
    try:
        stored.check_model(model.moe_layers, model.layers, model.name)
    except InputError as error:
        raise InputError(f"{asked.placement}: {error}") from None
    return PlacementSpec.explicit(stored.placement).model_dump(mode="json")


def _strategy(name: str) -> str:
    from wingspan.errors import InputError
    from wingspan.placement.spec import Strategy

    rules = [rule.value for rule in Strategy if rule is not Strategy.EXPLICIT]
    if name.replace("-", "_") not in rules:
        shown = ", ".join(rules).replace("_", "-")
        raise InputError(f"--placement {name}: neither one of {shown}, nor an existing file")
    return name.replace("-", "_")


def _sized(data: dict[str, Any], asked: Asked, cluster: Cluster | None) -> dict[str, Any]:
    """Ranks and slots: whichever is not given follows from the experts and the cluster.

    Ranks: as many as the experts need, in whole nodes, and no more than a given cluster has.
    """
    from wingspan.errors import InputError
    from wingspan.specs.cluster import Cluster

    if data["placement"] is not None and data["placement"].get("slots") is not None:
        raise InputError(
            f"{asked.source}: its placement is explicit; --ranks and --experts-per-rank would need another one"
        )
    experts, slots = data["model"]["experts"]["count"], asked.experts_per_rank
    if asked.ranks is not None:
        return {"ranks": asked.ranks, "experts_per_rank": slots or -(-experts // asked.ranks)}
    cluster = cluster or Cluster.model_validate(data["cluster"])
    ranks, node = -(-experts // (slots or 1)), cluster.gpus_per_node
    if ranks > node:
        ranks = -(-ranks // node) * node
    if not _is_open(asked) and ranks > cluster.gpus:
        if slots is not None:
            raise InputError(
                f"--experts-per-rank {slots}: the {cluster.gpus} GPUs of {cluster.name} hold {slots * cluster.gpus} "
                f"of {experts} experts; use {-(-experts // cluster.gpus)} or more"
            )
        ranks = cluster.gpus
    return {"ranks": ranks, "experts_per_rank": slots or -(-experts // ranks)}


def _cluster(asked: Asked) -> Cluster | None:
    """The cluster that is asked for, as large as it says; None: the deployment file's."""
    from wingspan.specs.cluster import load_cluster

    if asked.cluster is None and _is_deployment(Path(asked.source)):
        return None
    return load_cluster(asked.cluster or "h100-sxm")


def _is_open(asked: Asked) -> bool:
    """Whether the cluster has as many nodes as the ranks need: a preset has, what a file describes has its own."""
    from wingspan.specs.cluster import cluster_presets

    if asked.cluster is None:
        return not _is_deployment(Path(asked.source))
    return asked.cluster in cluster_presets()


def _set(data: dict[str, Any], key: str, value: object) -> None:
    if value is not None:
        data[key] = value
