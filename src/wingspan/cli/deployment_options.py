"""The options by which `plan` and `simulate` describe a deployment, and the deployment that they make."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wingspan.deployment import Deployment

Source = Annotated[
    str,
    typer.Argument(
        help="A model preset, a config.json or its folder, or a deployment file; options then change the file's values."
    ),
]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", help="Cluster preset or YAML file (default h100-sxm).")
]
Phase = Annotated[str | None, typer.Option(help="prefill or decode (default).")]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens-per-gpu",
        "-b",
        min=1,
        help="New tokens per GPU; in decode one per sequence (default 64; in prefill 4096, or one prompt).",
    ),
]
ContextTokens = Annotated[
    int | None,
    typer.Option(
        "--context",
        min=1,
        help="Mean tokens of context per sequence; in prefill, of a prompt (default 4096, or the most that the "
        "model and the step hold).",
    ),
]
Spread = Annotated[
    float | None, typer.Option("--context-spread", min=0.0, help="Standard deviation / mean of contexts.")
]
RoutingText = Annotated[
    str | None,
    typer.Option(
        "--routing",
        help="uniform (default), power-law:EXPONENT, log-normal:SIGMA, a routing trace, or a JSON list of loads.",
    ),
]
PlacementName = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help="linear (default), round-robin, random, balanced (by load, with replicas in spare slots), or the JSON "
        "file that place or import wrote.",
    ),
]
ScheduleName = Annotated[
    str | None, typer.Option("--schedule", help="sequential (default), chunks or two-batch.")
]
Chunks = Annotated[int | None, typer.Option(min=1, help="Parts of a layer's rows, with --schedule chunks.")]
DispatcherName = Annotated[
    str | None,
    typer.Option("--dispatcher", help="flat (default in decode) or hierarchical (default in prefill)."),
]
AttentionRanks = Annotated[
    int | None, typer.Option(min=1, help="GPUs of a node that share attention; 1 = data-parallel.")
]
Weights = Annotated[
    str | None, typer.Option(help="Precision of the weights: bf16, fp8, ... (default: as published).")
]
Kv = Annotated[str | None, typer.Option(help="Precision of the KV cache (default bf16).")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all draws (default 0).")]


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
    chunks: int | None = None
    dispatcher: str | None = None
    attention_ranks: int | None = None
    weights: str | None = None
    kv: str | None = None
    seed: int | None = None


def deployment_of(asked: Asked) -> Deployment:
    """The deployment that was asked for.

    Raises:
        InputError: an unknown preset or file, or values that do not fit together.
    """
    from wingspan.deployment import Deployment
    from wingspan.errors import InputError
    from wingspan.specs.reading import parse

    data = _start(asked)
    workload, options, placement = data["workload"], data["options"], data["placement"]
    _set(workload, "phase", asked.phase)
    _set(workload, "tokens_per_gpu", asked.tokens_per_gpu)
    _set(workload["context"], "mean_tokens", asked.context)
    _set_usual_sizes(workload, data["model"]["max_context"])
    _check_prompts(workload, asked)
    _set(workload["context"], "spread", asked.context_spread)
    _set(workload, "routing", None if asked.routing is None else _routing(asked.routing))
    _set(workload, "fluctuating", False if asked.expected_loads else None)
    for name in ("weights", "kv", "seed"):
        _set(workload, name, getattr(asked, name))
    for name in ("schedule", "chunks", "dispatcher", "attention_ranks"):
        _set(options, name, getattr(asked, name))
    if asked.chunks is not None and options.get("schedule") != "chunks":
        raise InputError(f"--chunks {asked.chunks}: only --schedule chunks has them")
    if asked.placement is not None and Path(asked.placement).is_file():
        data["placement"] = _explicit(data, asked)
    else:
        if asked.ranks is not None or asked.experts_per_rank is not None:
            placement.update(_sized(data, asked))
        _set(placement, "strategy", asked.placement and _strategy(asked.placement))
    data["cluster"] = _cluster(data, asked)
    return parse(Deployment, data, asked.source)


def _start(asked: Asked) -> dict[str, Any]:
    """A deployment file's content, or the defaults for a model."""
    from wingspan.deployment import load_deployment
    from wingspan.specs.models import load_model

    path = Path(asked.source)
    if path.is_file() and _is_deployment(path):
        return load_deployment(path).model_dump(mode="json")
    model = load_model(asked.source)
    return {
        "schema_version": 1,
        "model": model.model_dump(mode="json"),
        "cluster": None,
        "workload": {"phase": "decode", "context": {}},
        "placement": {"ranks": model.experts.count, "experts_per_rank": 1},
        "options": {},
    }


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


def _is_deployment(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "schema_version" in data and "slots" not in data


def _explicit(data: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """The placement of a file, slot by slot."""
    from wingspan.cli.placement_file import read_placement
    from wingspan.deployment import PlacementSpec
    from wingspan.errors import InputError
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
    from wingspan.deployment import Strategy
    from wingspan.errors import InputError

    rules = [rule.value for rule in Strategy if rule is not Strategy.EXPLICIT]
    if name.replace("-", "_") not in rules:
        shown = ", ".join(rules).replace("_", "-")
        raise InputError(f"--placement {name}: neither one of {shown}, nor an existing file")
    return name.replace("-", "_")


def _sized(data: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """Ranks and slots: whichever is not given follows from the number of experts."""
    from wingspan.errors import InputError

    if data["placement"].get("slots") is not None:
        raise InputError(
            f"{asked.source}: its placement is explicit; --ranks and --experts-per-rank would need another one"
        )
    experts = data["model"]["experts"]["count"]
    ranks = asked.ranks or -(-experts // (asked.experts_per_rank or 1))
    return {"ranks": ranks, "experts_per_rank": asked.experts_per_rank or -(-experts // ranks)}


def _cluster(data: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """The cluster; a preset is as large as the ranks need, a file as large as it says."""
    from wingspan.specs.cluster import cluster_presets, load_cluster

    name = asked.cluster or ("h100-sxm" if data["cluster"] is None else None)
    if name is None:
        given: dict[str, Any] = data["cluster"]
        return given
    cluster = load_cluster(name)
    if name in cluster_presets():
        cluster = cluster.with_gpus(data["placement"]["ranks"])
    return cluster.model_dump(mode="json")


def _routing(text: str) -> dict[str, Any]:
    from wingspan.errors import InputError

    name, _, number = text.partition(":")
    kind = name.replace("-", "_")
    names = {"power_law": "exponent", "log_normal": "sigma"}
    if kind == "uniform" and not number:
        return {"kind": "uniform"}
    if kind in names:
        try:
            return {"kind": kind, names[kind]: float(number)}
        except ValueError:
            raise InputError(f"--routing {text}: {name} needs a number, as in {name}:0.8") from None
    path = Path(text)
    if not path.is_file():
        raise InputError(
            f"--routing {text}: neither uniform, power-law:EXPONENT, log-normal:SIGMA nor an existing file"
        )
    loads = _trace_loads(path) if path.suffix == ".parquet" else _json_loads(path)
    return {"kind": "recorded", "source": text, "loads": loads}


def _trace_loads(path: Path) -> list[list[int]]:
    """Tokens per (MoE layer, expert) of a routing trace."""
    import numpy as np

    from wingspan.routing.statistics import expert_load
    from wingspan.routing.trace_file import TraceFile

    loads: list[list[int]] = np.sum([expert_load(p) for p in TraceFile.open(path).chunks()], axis=0).tolist()
    return loads


def _json_loads(path: Path) -> Any:
    from wingspan.errors import InputError

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"--routing {path}: not JSON ({error}); expected loads per (layer, expert)"
        ) from None


def _set(data: dict[str, Any], key: str, value: object) -> None:
    if value is not None:
        data[key] = value
