"""The deployment: model, cluster, workload, placement and options in one file that a person can read and diff.

`Deployment` is what `simulate` predicts and `run` runs.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wingspan.errors import InputError
from wingspan.placement import simple
from wingspan.placement.balanced import balanced
from wingspan.placement.placement import Placement
from wingspan.routing.workload_shares import expert_shares
from wingspan.schedule.schedule import Layers, Schedule, chunked, sequential, two_batch
from wingspan.specs.cluster import Cluster
from wingspan.specs.limits import MOST_SLOTS, ExpertCount, Ranks
from wingspan.specs.model import HeadAttention, ModelSpec
from wingspan.specs.reading import Spec, json_value, parse
from wingspan.specs.workload import Workload
from wingspan.writing import json_text, write_text

SCHEMA_VERSION = 1
"""Raised whenever a file of the version before would be read otherwise."""


class Strategy(StrEnum):
    """How experts are put into slots."""

    LINEAR = "linear"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    BALANCED = "balanced"
    """By expected load, with replicas of the hottest experts in spare slots."""
    EXPLICIT = "explicit"


class PlacementSpec(Spec):
    """Where the experts are: a rule, or every slot written out.

    Slots beyond the number of experts (spare ranks) stay empty, but hold replicas with strategy balanced.
    """

    strategy: Strategy = Strategy.LINEAR
    ranks: Ranks = Field(description="EP size")
    experts_per_rank: ExpertCount = Field(
        default=1, description="slots per rank and layer; 1 = one expert per GPU"
    )
    seed: int = Field(default=0, ge=0, description="of strategy random")
    slots: tuple[tuple[tuple[int, ...], ...], ...] | None = Field(
        default=None, description="strategy explicit: expert per (MoE layer, rank, slot), -1 = empty"
    )

    @model_validator(mode="after")
    def _slots_where_explicit(self) -> Self:
        if (self.strategy is Strategy.EXPLICIT) != (self.slots is not None):
            raise ValueError("slots belong to strategy explicit, and only to it")
        return self

    @classmethod
    def explicit(cls, placement: Placement) -> PlacementSpec:
        """Every slot of `placement` written out."""
        slots = tuple(tuple(tuple(rank) for rank in layer) for layer in placement.slots_LRS.tolist())
        return cls(
            strategy=Strategy.EXPLICIT,
            ranks=placement.num_ranks,
            experts_per_rank=placement.slots_per_rank,
            slots=slots,
        )

    def build(self, shares_LE: NDArray[np.float64]) -> Placement:
        """The placement itself.

        Args:
            shares_LE: expected load of each (MoE layer, expert), for strategy balanced.

        Raises:
            InputError: the experts do not fit, or the slots are not a placement of these layers.
        """
        num_layers, num_experts = shares_LE.shape
        if self.slots is not None:
            placement = Placement(np.array(self.slots, dtype=np.int64), num_experts)
            given = (placement.num_layers, placement.num_ranks, placement.slots_per_rank)
            wanted = (num_layers, self.ranks, self.experts_per_rank)
            if given != wanted:
                raise InputError(f"placement: slots are {given} (layers, ranks, slots), expected {wanted}")
            return placement
        if self.strategy is Strategy.BALANCED:
            return balanced(shares_LE, self.ranks, self.experts_per_rank)
        shape = (num_layers, num_experts, self.ranks, self.experts_per_rank)
        if self.strategy is Strategy.ROUND_ROBIN:
            return simple.round_robin(*shape)
        if self.strategy is Strategy.RANDOM:
            return simple.random(*shape, seed=self.seed)
        return simple.linear(*shape)


class ScheduleKind(StrEnum):
    """The order of operations (DESIGN.md section 6)."""

    SEQUENTIAL = "sequential"
    CHUNKS = "chunks"
    TWO_BATCH = "two-batch"


class Dispatcher(StrEnum):
    """How rows travel."""

    FLAT = "flat"
    """One row per (token, expert), straight to its rank."""
    HIERARCHICAL = "hierarchical"
    """One row per (token, node), forwarded inside; sums of a node come back as one row."""


class Options(Spec):
    """How the step is executed."""

    schedule: ScheduleKind = ScheduleKind.SEQUENTIAL
    chunks: int = Field(
        default=2,
        ge=1,
        le=64,
        description="parts of a layer's rows, with schedule chunks; each pays the latency of its own exchange",
    )
    shared_beside_dispatch: bool = Field(default=True, description="shared experts compute while rows travel")
    dispatcher: Dispatcher | None = Field(
        default=None, description="default: flat in decode, hierarchical in prefill"
    )
    attention_ranks: Ranks = Field(
        default=1, description="1: data-parallel; more: tensor-parallel over that many ranks of a node"
    )
    reserve_share: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="of GPU memory, for the driver, libraries and fragments that no formula counts",
    )


class Deployment(Spec):
    """What is to be predicted, or run."""

    schema_version: Literal[1] = 1
    model: ModelSpec
    cluster: Cluster
    workload: Workload
    placement: PlacementSpec
    options: Options = Options()

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranks, group = self.placement.ranks, self.options.attention_ranks
        slots = ranks * self.placement.experts_per_rank * self.model.layers
        if slots > MOST_SLOTS:
            raise ValueError(
                f"{ranks} ranks x {self.placement.experts_per_rank} slots in {self.model.layers} layers are "
                f"{slots:,} slots, more than {MOST_SLOTS:,}"
            )
        if ranks > self.cluster.gpus:
            raise ValueError(
                f"{ranks} ranks exceed the cluster's {self.cluster.gpus} GPUs; give it more nodes or use fewer ranks"
            )
        in_node = min(ranks, self.cluster.gpus_per_node)
        if ranks % group or in_node % group:
            raise ValueError(
                f"attention_ranks {group} must divide the {ranks} ranks and the {in_node} of a node"
            )
        if self.model.attention.heads % group:
            raise ValueError(f"attention_ranks {group} must divide the {self.model.attention.heads} heads")
        context, longest = self.workload.context.mean_tokens, self.model.max_context
        if longest is not None and context > longest:
            raise ValueError(
                f"a context of {context:,} tokens is longer than the {longest:,} that {self.model.name} was made for; "
                "shorten it, or raise max_position_embeddings in its config.json"
            )
        return self

    @property
    def ranks(self) -> int:
        """EP size."""
        return self.placement.ranks

    @property
    def used_cluster(self) -> Cluster:
        """As much of the cluster as the ranks fill."""
        return self.cluster.part(self.ranks)

    @property
    def dispatcher(self) -> Dispatcher:
        """The one asked for, or the usual one of the phase."""
        if self.options.dispatcher is not None:
            return self.options.dispatcher
        return Dispatcher.FLAT if self.workload.phase == "decode" else Dispatcher.HIERARCHICAL

    @property
    def kv_heads_share(self) -> float:
        """Share of a layer's cached values that one rank of an attention group holds.

        Heads divide over the group as far as there are key-value heads; a latent row is kept whole by each.
        """
        attention = self.model.attention
        if isinstance(attention, HeadAttention):
            return 1 / min(self.options.attention_ranks, attention.kv_heads)
        return 1.0

    def build_placement(self) -> Placement:
        """The placement of every MoE layer.

        Raises:
            InputError: it does not fit the model.
        """
        return self.placement.build(expert_shares(self.model, self.workload))

    def build_schedule(self) -> Schedule:
        """The order of operations."""
        layers = Layers(
            count=self.model.layers,
            dense=frozenset(self.model.dense_layers),
            shared_expert=self.model.experts.shared_intermediate > 0,
            shared_beside_dispatch=self.options.shared_beside_dispatch,
            tensor_parallel=self.options.attention_ranks > 1,
        )
        if self.options.schedule is ScheduleKind.TWO_BATCH:
            return two_batch(layers)
        if self.options.schedule is ScheduleKind.CHUNKS:
            return chunked(layers, self.options.chunks)
        return sequential(layers)


def save_deployment(deployment: Deployment, path: Path) -> None:
    """Write the file; what is at its default is written too, so that a later default changes nothing."""
    text = json_text(deployment.model_dump(mode="json"), indent=2)
    # One line per list of numbers: a layer's slots can be read and diffed.
    text = re.sub(r"\[[-\d.,e\s]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    write_text(path, text + "\n")


def load_deployment(path: Path) -> Deployment:
    """Read a deployment file.

    Raises:
        InputError: no such file, not JSON, another schema version, or a key or value that does not fit.
    """
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a deployment file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, found {type(data).__name__}")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version {version!r} is not {SCHEMA_VERSION}; write the file with this version's `plan`"
        )
    return parse(Deployment, data, str(path))


def differences(one: Deployment, two: Deployment) -> list[tuple[str, Any, Any]]:
    """Every key with unlike values, as (dotted key, first value, second value); explicit slots as one entry."""
    return list(_differences(one.model_dump(mode="json"), two.model_dump(mode="json"), ""))


def _differences(one: Any, two: Any, key: str) -> list[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(two, dict):
        found: list[tuple[str, Any, Any]] = []
        for name in [*one, *(n for n in two if n not in one)]:
            found += _differences(one.get(name), two.get(name), f"{key}.{name}" if key else name)
        return found
    return [] if one == two else [(key, one, two)]
