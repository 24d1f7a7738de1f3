"""The deployment that a description makes, and the one that a search starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wingspan.deployment import Deployment, read_routing_trace
from wingspan.describe.description import Description, asked_cluster, is_open, name_of
from wingspan.describe.slots import explicit_slots, kept_placement, on_as_many_gpus, sized, strategy_named
from wingspan.describe.work import described, put, set_seed, spread_sequences
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.reading import parse


def deployment_of(said: Description, cluster: Cluster | None = None) -> Deployment:
    """The deployment that was asked for, on `cluster` where one is given.

    Raises:
        InputError: an unknown preset or file, or values that do not fit together.
    """
    said = on_as_many_gpus(said)
    data = described(said) | {"planned": None}
    whole = cluster or asked_cluster(said)
    if said.placement is not None and Path(said.placement).is_file():
        data["placement"] = explicit_slots(data, said)
    else:
        if data["placement"] is None or said.ranks is not None or said.experts_per_rank is not None:
            data["placement"] = (data["placement"] or {}) | sized(data, said, whole)
        put(data["placement"], "strategy", said.placement and strategy_named(said.placement))
    if whole is not None:
        # A preset is as large as its ranks need, a file as large as it says.
        cut = cluster is None and is_open(said)
        gpus = data["placement"]["ranks"] * data["options"].get("expert_tensor_parallel", 1)
        data["cluster"] = (whole.with_gpus(gpus) if cut else whole).model_dump(mode="json")
    return _parsed(data, said)


def template_of(said: Description, longest_step_seconds: float | None = None) -> Deployment:
    """What was asked for, with all open that a search chooses: one rank that holds everything, on the whole cluster.

    A file that a plan wrote keeps what that plan was to keep, and leaves open what it chose: its `planned`.

    Raises:
        InputError: as `deployment_of`.
    """
    data, cluster = described(said), asked_cluster(said)
    experts = parse(ModelSpec, data["model"], name_of(said)).experts
    data["placement"] = {"ranks": 1, "experts_per_rank": experts.count}
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
            ("placement", said.placement and kept_placement(data, said)),
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


def _parsed(data: dict[str, Any], said: Description) -> Deployment:
    set_seed(data, said)
    spread_sequences(data)
    return read_routing_trace(parse(Deployment, data, name_of(said)))
