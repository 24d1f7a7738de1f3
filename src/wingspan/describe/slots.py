"""The slots of a description: a placement's file, or as many ranks and slots as the experts need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wingspan.deployment import load_deployment
from wingspan.describe.description import Description, file_of, is_open, name_of
from wingspan.errors import InputError
from wingspan.placement.simple import check_fits, whole_nodes
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.reading import parse


def explicit_slots(data: dict[str, Any], said: Description) -> dict[str, Any]:
    """The placement of a file, slot by slot."""
    # The formats of all engines take longer to load than a prediction.
    from wingspan.placement_file import placement_of_model

    path = Path(str(said.placement))
    model = parse(ModelSpec, data["model"], name_of(said))
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


def kept_placement(data: dict[str, Any], said: Description) -> dict[str, Any]:
    """A placement that a search keeps: every slot of a file, or a strategy at any EP size."""
    if Path(str(said.placement)).is_file():
        return explicit_slots(data, said)
    return {"strategy": strategy_named(str(said.placement)), "ranks": 1}


def strategy_named(name: str) -> str:
    """A strategy as deployment files spell it; raises `InputError` for one that is none."""
    rules = [rule.value for rule in Strategy if rule is not Strategy.EXPLICIT]
    if name.replace("-", "_") not in rules:
        shown = ", ".join(rules).replace("_", "-")
        raise InputError(f"`placement` {name}: neither one of {shown}, nor an existing file")
    return name.replace("-", "_")


def on_as_many_gpus(said: Description) -> Description:
    """A file's ranks, where its experts are to be cut otherwise and nobody says over how many."""
    file = file_of(said)
    if file is None or said.ranks is not None or said.expert_tensor_parallel is None:
        return said
    before = load_deployment(file)
    same = before.options.expert_tensor_parallel == said.expert_tensor_parallel
    return said if same else replace(said, ranks=before.ranks)


def sized(data: dict[str, Any], said: Description, cluster: Cluster | None) -> dict[str, Any]:
    """Ranks and slots: whichever is not given follows from the experts and the cluster.

    Ranks: as many as the experts need, in whole nodes, and no more than a given cluster has; where experts are cut, one
    group that shares all. The placement's are groups of ranks that share their experts.
    """
    if data["placement"] is not None and data["placement"].get("slots") is not None:
        raise InputError(
            f"{name_of(said)}: its placement is explicit; `ranks` and `experts_per_rank` would need another one"
        )
    experts, slots = parse(ModelSpec, data["model"], name_of(said)).experts.count, said.experts_per_rank
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
    if not is_open(said) and ranks > cluster.gpus:
        if slots is not None:
            raise InputError(
                f"`experts_per_rank` {slots}: the {cluster.gpus} GPUs of {cluster.name} hold {slots * cluster.gpus} "
                f"of {experts} experts; use {-(-experts // cluster.gpus)} or more"
            )
        ranks = cluster.gpus
    return {"ranks": ranks, "experts_per_rank": slots or -(-experts // ranks)}
