"""Deployments that others published, by name: what they ran, and what they measured of it.

A preset is a YAML file in `specs/presets/deployments`: one deployment in few words, and figures of it under loads that
differ. `NAME` is the deployment under its first load, `NAME:LOAD` under another.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Self

from pydantic import Field, model_validator

from wingspan.errors import InputError
from wingspan.limits import ExpertCount, Ranks, Tokens
from wingspan.placement.at_balance import AtBalance
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.specs.cluster import load_cluster
from wingspan.specs.engines import EngineKind
from wingspan.specs.execution import DispatcherKind, ScheduleText
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import AskedPrecision
from wingspan.specs.reading import Spec, parse, read_yaml
from wingspan.specs.workload import Phase


class PublishedFigure(StrEnum):
    """What a published figure counts."""

    TOKENS = "tokens/s"
    """Prompt tokens in prefill, answered ones in decode, over `gpus` GPUs."""
    TOKEN_TIME = "ms a token"
    """Between two tokens of a sequence."""
    LAYER_TIME = "ms a layer"
    """A step's time over its layers."""


class Terms(Spec):
    """A deployment in few words; model and cluster are presets."""

    model: str
    cluster: str
    ranks: Ranks
    experts_per_rank: ExpertCount
    shared_in_slots: bool = Field(
        default=False,
        description="the shared expert lies in slots too, and every token sends a row to a copy",
    )
    placement: Strategy = Strategy.LINEAR
    balance: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="mean / max of the ranks' load, as measured; None: an even router",
    )
    phase: Phase
    tokens_per_gpu: Tokens
    total_sequences: int | None = Field(
        default=None, ge=1, description="over all ranks, where these are no multiple; then of the fullest one"
    )
    context: int = Field(ge=1)
    mtp_tokens: int = 0
    acceptance: float = 0.85
    precision: AskedPrecision = AskedPrecision()
    schedule: ScheduleText = "sequential"
    dispatcher: DispatcherKind | None = None
    engine: EngineKind = EngineKind.NONE
    attention_ranks: Ranks = 1
    expert_tensor_parallel: Ranks = 1

    @model_validator(mode="before")
    @classmethod
    def _fullest_rank(cls, data: Any) -> Any:
        """Sequences that are counted in all say how many the fullest rank has."""
        if not isinstance(data, dict) or data.get("total_sequences") is None:
            return data
        return {**data, "tokens_per_gpu": -(-data["total_sequences"] // data["ranks"])}

    @property
    def sequences_per_gpu(self) -> float:
        """In decode."""
        return self.tokens_per_gpu if self.total_sequences is None else self.total_sequences / self.ranks

    @property
    def attention(self) -> str:
        """How attention is laid out."""
        return "data-parallel" if self.attention_ranks == 1 else "tensor-parallel"

    @model_validator(mode="after")
    def _balance_has_a_placement(self) -> Self:
        if self.balance is not None and self.placement not in (Strategy.LINEAR, Strategy.BALANCED):
            raise ValueError("a balance is known of placement linear or balanced")
        return self


class PublishedLoad(Spec):
    """One load of a deployment, and what was published of it."""

    load: str = Field(description="its name behind the preset's, a word")
    changes: dict[str, Any] = Field(default={}, description="terms that differ from the preset's")
    figure: PublishedFigure | None = None
    value: float | None = Field(default=None, gt=0, description="None: nothing was published of it")
    gpus: int = Field(default=1, ge=1, description="GPUs that `tokens/s` are counted of")
    fitted: bool = Field(default=False, description="constants of the cost model were fitted on it")
    seen: str = Field(default="", description="how it was read or derived, and what it leaves open")

    @model_validator(mode="after")
    def _value_of_a_figure(self) -> Self:
        if (self.figure is None) != (self.value is None):
            raise ValueError("a value needs a figure, and a figure a value")
        return self


class DeploymentPreset(Spec):
    """One published deployment."""

    title: str
    source: str
    assumed: str = Field(default="", description="what the source does not say")
    group: str = Field(description="what its rows are ranked among")
    terms: dict[str, Any]
    published: tuple[PublishedLoad, ...] = Field(min_length=1)

    def terms_under(self, load: PublishedLoad) -> Terms:
        """The deployment under a load; raises `InputError` for terms that do not fit."""
        return parse(Terms, {**self.terms, **load.changes}, f"{self.title}, {load.load}")


def deployment_presets() -> list[str]:
    """Names of the deployments that come with Wingspan."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")
    )


@cache
def deployment_preset(name: str) -> DeploymentPreset:
    """A preset by its name, without a load.

    Raises:
        InputError: there is none.
    """
    if name not in deployment_presets():
        raise InputError(f"{name}: no such deployment; presets: {', '.join(deployment_presets())}")
    with resources.as_file(_FOLDER / f"{name}.yaml") as path:
        return parse(DeploymentPreset, read_yaml(path), f"deployment {name}")


def is_preset(text: str) -> bool:
    """Whether the text names a published deployment, with or without a load."""
    return text.partition(":")[0] in deployment_presets()


def preset_values(text: str) -> dict[str, Any]:
    """What a deployment's file would hold, for `NAME` or `NAME:LOAD`.

    Raises:
        InputError: there is no such preset, or no such load of it.
    """
    name, colon, load = text.partition(":")
    preset = deployment_preset(name)
    loads = {each.load: each for each in preset.published}
    if colon and load not in loads:
        raise InputError(f"{text}: no such load; use one of {', '.join(loads)}")
    return values_of(preset.terms_under(loads[load] if colon else preset.published[0]))


def values_of(terms: Terms) -> dict[str, Any]:
    """The content of a deployment's file.

    Raises:
        InputError: an unknown model or cluster, or a model without the shared expert that is to lie in slots.
    """
    model = load_model(terms.model)
    model = model.with_shared_in_slots() if terms.shared_in_slots else model
    cluster = load_cluster(terms.cluster).with_gpus(terms.ranks)
    workload: dict[str, Any] = {
        "phase": terms.phase,
        "tokens_per_gpu": terms.tokens_per_gpu,
        "total_sequences": terms.total_sequences,
        "context": terms.context,
        "mtp_tokens": terms.mtp_tokens,
        "acceptance": terms.acceptance,
        "precision": terms.precision,
    }
    groups = terms.ranks // terms.expert_tensor_parallel
    placement = PlacementSpec(strategy=terms.placement, ranks=groups, experts_per_rank=terms.experts_per_rank)
    if terms.balance is not None:
        of = AtBalance(
            len(model.moe_layers),
            model.experts,
            groups,
            terms.experts_per_rank,
            max(1, terms.ranks // cluster.scale_up_domain_gpus),
            (terms.total_sequences or terms.tokens_per_gpu * terms.ranks) * (1 + terms.mtp_tokens),
        )
        planned = terms.placement is Strategy.BALANCED
        placement, workload["routing"] = (of.planned if planned else of.unplanned)(terms.balance)
    return {
        "model": model,
        "cluster": cluster,
        "workload": workload,
        "placement": placement,
        "options": {
            "schedule": terms.schedule,
            "dispatcher": terms.dispatcher,
            "engine": terms.engine,
            "attention_ranks": terms.attention_ranks,
            "expert_tensor_parallel": terms.expert_tensor_parallel,
        },
    }


_FOLDER = resources.files("wingspan.specs") / "presets" / "deployments"
