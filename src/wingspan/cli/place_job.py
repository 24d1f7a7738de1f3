"""The work behind `wingspan place`: read, plan, score, show, write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wingspan.cli.console import Console
from wingspan.cli.place_view import show, show_export
from wingspan.cli.progress import progress
from wingspan.deployment import Deployment, is_deployment, load_deployment, save_deployment
from wingspan.describe import Description, model_of
from wingspan.errors import InputError
from wingspan.interop.export import export_filled, target
from wingspan.placement.limits import check_memory
from wingspan.placement.objective import Objective
from wingspan.placement.plan import Moving
from wingspan.placement.spec import PlacementSpec
from wingspan.placement_file import placement_of_model, write_placement
from wingspan.simulate.placing import PARTS, STRATEGIES, Comparison, compare, objective_of
from wingspan.simulate.placing_setup import (
    check_size,
    drawn_source,
    judging_deployment,
    on_ranks,
    slots_with_redundant,
    source_of_file,
    written_routing,
)
from wingspan.specs.model import ModelSpec
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import json_text

_USUAL_MODEL = "deepseek-v3"


@dataclass(frozen=True)
class PlaceArguments:
    """The command line of `wingspan place`; `deployment` says what it shares with `simulate`."""

    routing: Path | None
    from_engine: str | None
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
    to_engine: str | None
    html: Path | None
    seed: int
    as_json: bool


def execute(arguments: PlaceArguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    _check_strategy(arguments.placement, STRATEGIES)
    if arguments.to_engine is not None:
        target(arguments.to_engine)
    if (arguments.routing is None) == (arguments.synthetic is None):
        raise InputError("give either a trace or load, or --synthetic KIND")
    asked, planned = _asked(arguments.deployment)
    model = planned.model if planned else model_of(asked)
    ranks, asked = _sized(arguments, asked, model)
    source = (
        drawn_source(str(arguments.synthetic), model, arguments.seed)
        if arguments.routing is None
        else source_of_file(
            arguments.routing, arguments.from_engine, model, named=bool(arguments.deployment.source)
        )
    )
    found, about = on_ranks(source, ranks)
    deployment = judging_deployment(asked, ranks, arguments.ranks_per_node, found, planned)
    objective = objective_of(deployment)
    if arguments.expert_memory_gb is not None:
        budget_bytes, slots = arguments.expert_memory_gb * 1e9, deployment.placement.experts_per_rank
        check_memory(len(model.moe_layers), slots, round(objective.shape.expert_bytes), budget_bytes)
    present = None if arguments.present is None else _present(arguments.present, model, ranks)
    with progress("placing", PARTS) as advance:
        result = compare(
            deployment,
            found,
            present=None if present is None else present.placement,
            moving=Moving(steps=arguments.horizon_steps),
            request_routing=arguments.request_routing,
            seed=arguments.seed,
            begins=lambda part: advance(doing=part),
        )
    # Two of the strategies are there only where groups divide into nodes, and with --current.
    _check_strategy(arguments.placement, result.placements)
    remarks = result.remarks if present is None else (*result.remarks, *present.remarks)
    # Files come first: whoever reads only the first lines of the screen has them too.
    exported = None
    if arguments.out is not None:
        chosen = result.placements[arguments.placement]
        stored = StoredPlacement(chosen, model.moe_layers, model.layers, objective.ranks_per_node)
        if arguments.to_engine is not None:
            exported = export_filled(stored, arguments.to_engine, arguments.out)
        elif planned is not None:
            work = deployment.workload.model_copy(update={"routing": written_routing(source, found)})
            placed = {"placement": PlacementSpec.explicit(chosen), "workload": work}
            save_deployment(deployment.model_copy(update=placed), arguments.out)
        else:
            write_placement(stored, arguments.out)
    if arguments.html is not None:
        from wingspan.cli.place_html import write_place

        write_place(result, arguments.placement, about, remarks, deployment, objective, arguments.html)
    if arguments.as_json:
        said = {"remarks": remarks}
        print(json_text(_to_dict(about, deployment, objective, result) | said), flush=True)
    else:
        show(result, about, remarks, deployment, objective, Console(highlight=False))
        if exported is not None and arguments.to_engine is not None and arguments.out is not None:
            show_export(arguments.placement, arguments.to_engine, arguments.out, exported)
        elif arguments.out is not None:
            print(f"{arguments.placement} written to {arguments.out}")
        if arguments.html is not None:
            print(f"page: {arguments.html} (open in a browser)")


def _sized(arguments: PlaceArguments, asked: Description, model: ModelSpec) -> tuple[int, Description]:
    """All ranks, and what is asked for with its slots per rank said."""
    redundant = asked.redundant
    if redundant is not None:
        if arguments.deployment.experts_per_rank is not None or arguments.spare_ranks:
            raise InputError(
                f"`redundant` {redundant}: `experts_per_rank` and `spare_ranks` say how many slots there are too; "
                "give one of them"
            )
        if asked.ranks is None:
            raise InputError(f"`redundant` {redundant}: over how many ranks? add `ranks`")
        slots = slots_with_redundant(model.experts.count, redundant, asked.ranks)
        asked = replace(asked, redundant=None, experts_per_rank=slots)
    experts = model.experts.count
    slots = asked.experts_per_rank or (1 if asked.ranks is None else -(-experts // asked.ranks))
    ranks = (asked.ranks or -(-experts // slots)) + arguments.spare_ranks
    check_size(ranks, slots, model)
    return ranks, replace(asked, experts_per_rank=slots)


def _asked(said: Description) -> tuple[Description, Deployment | None]:
    """What is asked for, and the deployment where its source is the file of one: that says ranks, slots and tokens."""
    if not is_deployment(str(said.source)):
        source = said.source or _USUAL_MODEL
        return replace(said, source=source, dispatcher=said.dispatcher or "hierarchical"), None
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


def _present(path: Path, model: ModelSpec, ranks: int) -> StoredPlacement:
    stored = placement_of_model(path, model, ranks)
    try:
        stored.check_model(model.moe_layers, model.layers, model.name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return stored


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
        "judged_on": result.judged_on,
        "advice": result.advice,
    }
