"""The atlas: deployments that others published, each predicted beside what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from wingspan.deployment import Deployment
from wingspan.deployment_presets import (
    DeploymentPreset,
    PublishedFigure,
    PublishedLoad,
    Terms,
    deployment_preset,
    values_of,
)
from wingspan.schedule.result import Operation, StepReport
from wingspan.simulate.error_bar import holds
from wingspan.simulate.published.judge import PointGroup, group_of
from wingspan.simulate.published.rank_correlation import kendall
from wingspan.simulate.step import simulate
from wingspan.specs.engines import EngineKind
from wingspan.specs.reading import parse


@dataclass(frozen=True, eq=False)
class AtlasRow:
    """One deployment under one load: what was published of it, and what is predicted.

    Args:
        name: as commands take it.
        preset: of the deployment.
        load: of the row, with the published figure.
        terms: of the deployment under this load.
        deployment: the same as a file would have it.
        report: the predicted step.
        even_seconds: the predicted step if every expert got exactly what it is expected to.
    """

    name: str
    preset: DeploymentPreset
    load: PublishedLoad
    terms: Terms
    deployment: Deployment
    report: StepReport
    even_seconds: float

    @cached_property
    def predicted(self) -> float | None:
        """The published figure's prediction; None where nothing was published."""
        match self.load.figure:
            case None:
                return None
            case PublishedFigure.TOKENS:
                return self.tokens_per_second_per_gpu * self.load.gpus
            case PublishedFigure.TOKEN_TIME:
                return self.report.step_seconds * 1e3 / self.deployment.workload.gained_per_sequence
            case PublishedFigure.LAYER_TIME:
                return self.report.step_seconds * 1e3 / self.deployment.model.layers

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Predicted."""
        return self.report.tokens_per_second / self.report.ranks

    @property
    def published_per_gpu(self) -> float | None:
        """Tokens per second and GPU that were published, or that follow from a published time."""
        if self.predicted is None or self.error is None:
            return None
        return self.tokens_per_second_per_gpu * (1 + self.error)

    @property
    def error(self) -> float | None:
        """Relative error of the predicted *time*: above 0 it is too slow."""
        if self.predicted is None or self.load.value is None:
            return None
        ratio = self.predicted / self.load.value
        return 1 / ratio - 1 if self.load.figure is PublishedFigure.TOKENS else ratio - 1

    @property
    def relative_error(self) -> float | None:
        """Half-width of the predicted time's bar."""
        return self.report.relative_error

    @property
    def for_fitting(self) -> bool:
        """Whether constants were fitted on it."""
        return self.load.fitted

    @property
    def held(self) -> bool | None:
        """Whether the published time lies within the predicted one's bar."""
        return holds(self.relative_error, self.error)

    @property
    def waiting_seconds(self) -> float:
        """In which the mean rank waits for fuller ones."""
        return float(np.mean(self.report.operation_seconds.get(Operation.WAIT, [0.0])))

    @property
    def chance_seconds(self) -> float:
        """By how much the step is longer because a batch's tokens fall on experts by chance."""
        return max(0.0, self.report.step_seconds - self.even_seconds)

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "name": self.name,
            "title": self.preset.title,
            "group": self.preset.group,
            "source": self.preset.source,
            "seen": self.load.seen,
            "assumed": self.preset.assumed,
            "terms": self.terms.model_dump(mode="json", exclude_defaults=True),
            "figure": self.load.figure,
            "gpus": self.load.gpus,
            "fitted": self.load.fitted,
            "published": self.load.value,
            "predicted": self.predicted,
            "error": self.error,
            "relative_error": self.relative_error,
            "held": self.held,
            "step_seconds": self.report.step_seconds,
            "waiting_seconds": self.waiting_seconds,
            "chance_seconds": self.chance_seconds,
        }


@dataclass(frozen=True)
class Ranked:
    """How well predictions rank some rows by tokens per second and GPU: Kendall's tau, 1 in the published order."""

    what: str
    rows: int
    kendall: float
    median_error: float

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return asdict(self)


def atlas_rows(names: Sequence[str]) -> list[AtlasRow]:
    """Every load of these presets, predicted.

    Raises:
        InputError: a name is no preset's.
    """
    presets = {name: deployment_preset(name) for name in names}
    return [_row(name, preset, load) for name, preset in presets.items() for load in preset.published]


def _row(name: str, preset: DeploymentPreset, load: PublishedLoad) -> AtlasRow:
    terms = preset.terms_under(load)
    deployment = parse(Deployment, values_of(terms), name)
    even = deployment.workload.model_copy(update={"fluctuating": False})
    expected = simulate(deployment.model_copy(update={"workload": even}))
    return AtlasRow(
        f"{name}:{load.load}", preset, load, terms, deployment, simulate(deployment), expected.step_seconds
    )


def ranked(rows: Sequence[AtlasRow]) -> list[Ranked]:
    """The rank correlation in each group of three rows and more, and over the engines' rows of each phase."""
    known = [row for row in rows if row.published_per_gpu is not None]
    groups = {
        row.preset.group: [other for other in known if other.preset.group == row.preset.group]
        for row in known
    }
    for phase in ("decode", "prefill"):
        alike = [row for row in known if row.terms.phase == phase]
        groups[f"SGLang and vLLM, {phase}"] = [
            row for row in alike if row.terms.engine in (EngineKind.SGLANG, EngineKind.VLLM)
        ]
        groups[f"all, {phase}"] = alike
    return [_ranked(what, members) for what, members in groups.items() if len(members) > 2]


def by_attention(rows: Sequence[AtlasRow]) -> list[PointGroup]:
    """Errors of decode steps apart by how attention is laid out, on the rows that nothing was fitted on."""
    found = [
        group_of(f"decode, {layout} attention", [row for row in rows if _decodes(row, layout)])
        for layout in ("data-parallel", "tensor-parallel")
    ]
    return [group for group in found if group is not None]


def _decodes(row: AtlasRow, layout: str) -> bool:
    return row.terms.phase == "decode" and row.terms.attention == layout


def _ranked(what: str, members: Sequence[AtlasRow]) -> Ranked:
    published = [row.published_per_gpu or 0.0 for row in members]
    tau = kendall(published, [row.tokens_per_second_per_gpu for row in members])
    errors = [abs(row.error) for row in members if row.error is not None]
    return Ranked(what, len(members), tau, float(np.median(errors)))
