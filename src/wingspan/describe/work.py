"""The work of a description: model, workload and options as asked for, what is usual where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wingspan.deployment import SCHEMA_VERSION, load_deployment
from wingspan.describe.description import Description, file_of, model_of, name_of
from wingspan.errors import InputError
from wingspan.specs.engines import EngineProfile, engine_of
from wingspan.specs.execution import DispatcherKind, parse_schedule, schedule_text
from wingspan.specs.model import ModelSpec
from wingspan.specs.part_precision import AskedPrecision
from wingspan.specs.precision_text import with_precision
from wingspan.specs.reading import choice, parse
from wingspan.specs.routing_text import fitted, parse_routing
from wingspan.specs.workload import Workload, phase_named

_USUAL_CONTEXT = 4096


def described(said: Description) -> dict[str, Any]:
    """Model, work and options as asked; placement and cluster as the deployment file has them, or None."""
    data = _start(said)
    workload, options = data["workload"], data["options"]
    put(workload, "phase", said.phase and phase_named(said.phase, "`phase`"))
    if said.total_sequences is not None and said.tokens_per_gpu is not None:
        raise InputError(
            f"`total_sequences` {said.total_sequences}: `tokens_per_gpu` says another batch; give one"
        )
    if said.tokens_per_gpu is not None:
        workload["total_sequences"] = None
    put(workload, "tokens_per_gpu", said.tokens_per_gpu)
    put(workload, "total_sequences", said.total_sequences)
    if workload.get("total_sequences"):
        workload.pop("tokens_per_gpu", None)  # Follows from the ranks.
    put(workload, "tokens_spread", said.tokens_spread)
    put(workload["context"], "mean_tokens", said.context)
    _set_usual_sizes(workload, data["model"]["max_context"])
    _check_prompts(workload, said)
    put(workload["context"], "spread", said.context_spread)
    if said.routing is not None:
        model = parse(ModelSpec, data["model"], name_of(said))
        workload["routing"] = fitted(parse_routing(said.routing), model).model_dump(mode="json")
    put(workload, "fluctuating", False if said.expected_loads else None)
    put(workload, "mtp_tokens", said.mtp_tokens)
    put(workload, "acceptance", said.acceptance)
    if said.precision is not None:
        before = parse(AskedPrecision, workload.get("precision", {}), name_of(said))
        asked = with_precision(before, said.precision, "`precision`")
        workload["precision"] = asked.model_dump(mode="json")
    put(options, "dispatcher", said.dispatcher and choice(said.dispatcher, "`dispatcher`", DispatcherKind))
    if said.engine is not None:
        engine = engine_of(said.engine, "`engine`")
        options["engine"] = engine.model_dump(mode="json") if isinstance(engine, EngineProfile) else engine
    for name in ("attention_ranks", "expert_tensor_parallel"):
        put(options, name, getattr(said, name))
    if said.schedule is not None:
        options["schedule"] = schedule_text(*parse_schedule(said.schedule))
    return data


def _start(said: Description) -> dict[str, Any]:
    """A deployment file's content, or the defaults for a model."""
    file = file_of(said)
    if file is not None and said.from_weights:
        raise InputError(f"`from_weights`: {file} is a deployment's file, which has the sizes; leave it out")
    if file is not None and said.shared_in_slots:
        raise InputError(f"`shared_in_slots`: {file} is a deployment, which says it itself; leave it out")
    if file is not None:
        return load_deployment(file).model_dump(mode="json")
    model = model_of(said)
    return {
        "schema_version": SCHEMA_VERSION,
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


def set_seed(data: dict[str, Any], said: Description) -> None:
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
        by_chance
        or shares_drawn
        or workload.get("fluctuating", True)
        or workload["context"].get("spread")
        or workload.get("tokens_spread")
    ):
        raise InputError(f"`seed` {said.seed}: does nothing here: with expected loads nothing is drawn")


def spread_sequences(data: dict[str, Any]) -> None:
    """Tokens of the fullest rank, where sequences are counted over all of them."""
    if data["workload"].get("total_sequences"):
        ranks = data["placement"]["ranks"] * data["options"].get("expert_tensor_parallel", 1)
        work = parse(Workload, data["workload"], "workload").spread_over(ranks)
        data["workload"]["tokens_per_gpu"] = work.tokens_per_gpu


def put(data: dict[str, Any], key: str, value: object) -> None:
    """Set the key where there is a value; None leaves what stood there."""
    if value is not None:
        data[key] = value
