"""Published figures beside predicted ones: a point each, with its error, and whether its bar holds it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from wingspan.cost.compute import sorting_seconds
from wingspan.errors import InputError
from wingspan.interop.published.exchanges import exchange_figure, speed_kept
from wingspan.interop.published.rows import PublishedRow
from wingspan.placement.at_balance import clustered
from wingspan.schedule.result import Operation, StepReport
from wingspan.simulate.error_bar import holds
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.published.setups import PublishedSetup, cluster_of, setup_of
from wingspan.simulate.step import predict
from wingspan.simulate.summary import step_report
from wingspan.specs.engines import profile_of
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.models import load_model


class Kind(StrEnum):
    """What a published figure is of."""

    STEP = "step"
    """Tokens per second of an engine, or the time that a layer of it takes in all."""
    PART = "part of a step"
    EXCHANGE = "exchange alone"
    BALANCE = "balance"
    """Mean / max of the ranks' load that recorded routing has, against what the generator of skew gives."""
    KEPT = "speed kept"
    """What an exchange keeps of its speed on more ranks."""


_PARTS = {
    "MoE GEMM": Operation.EXPERT,
    "dispatch core": Operation.DISPATCH,
    "combine core": Operation.COMBINE,
}
"""What a profile calls an operation; its other parts are cut otherwise than a prediction's."""
_Steps = dict[str, tuple[PublishedSetup, Prediction, StepReport]]
"""What was predicted, by the deployment."""
_NODE_GPUS = 8
"""GPUs of a node in `tok/s/node`."""


@dataclass(frozen=True)
class PublishedPoint:
    """One figure, published and predicted, in the row's unit.

    Args:
        relative_error: half-width of the predicted time's bar; None: it has none.
        setup: the deployment, of whole steps.
    """

    row: PublishedRow
    kind: Kind
    published: float
    predicted: float
    relative_error: float | None
    setup: PublishedSetup | None = None

    @property
    def for_fitting(self) -> bool:
        """Whether constants may be fitted on it."""
        return self.row.for_fitting

    @property
    def is_rate(self) -> bool:
        """Whether more is faster."""
        return "/s" in self.row.unit

    @property
    def batch_text(self) -> str:
        """The row's tokens or sequences per GPU."""
        return "?" if self.row.batch is None else f"{self.row.batch:g}"

    @property
    def error(self) -> float:
        """Relative error of the predicted *time*: above 0 it is too slow."""
        ratio = self.predicted / self.published
        return 1 / ratio - 1 if self.is_rate else ratio - 1

    @property
    def held(self) -> bool | None:
        """Whether the published time lies within the predicted one's bar."""
        return holds(self.relative_error, self.error)

    @property
    def attention(self) -> str:
        """How attention is laid out, of steps."""
        group = 1 if self.setup is None else self.setup.deployment.options.attention_ranks
        return "data-parallel" if group == 1 else "tensor-parallel"

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "id": self.row.id,
            "system": self.row.system,
            "metric": self.row.metric,
            "unit": self.row.unit,
            "kind": self.kind,
            "fitted": self.row.for_fitting,
            "published": self.published,
            "predicted": self.predicted,
            "error": self.error,
            "relative_error": self.relative_error,
            "held": self.held,
            "assumed": [] if self.setup is None else [*self.setup.assumed],
        }


def points_of(rows: list[PublishedRow]) -> tuple[list[PublishedPoint], dict[str, list[str]]]:
    """Every row that the model has a prediction for, and the ids of the others by the reason why it has none."""
    points: list[PublishedPoint] = []
    refused: dict[str, list[str]] = {}
    reports: _Steps = {}
    for row in rows:
        try:
            points.append(_point(row, reports))
        except InputError as error:
            reason = str(error).removeprefix(f"{row.id}: ")
            refused.setdefault(reason, []).append(row.id)
    return points, refused


def _point(row: PublishedRow, reports: _Steps) -> PublishedPoint:
    if row.value is None or row.value <= 0:
        raise InputError(f"{row.id}: not one figure")
    if row.unit in ("us", "GB/s"):
        figure = exchange_figure(row, cluster_of(row))
        return PublishedPoint(row, Kind.EXCHANGE, row.value, figure.value, figure.relative_error)
    if " kept from EP" in row.metric:
        return PublishedPoint(row, Kind.KEPT, row.value, speed_kept(row, cluster_of(row)), None)
    if row.metric == "GPU balancedness mean/max" and row.says("no EPLB") and row.ep is not None:
        return PublishedPoint(row, Kind.BALANCE, row.value, _balance(row.ep), None)
    rate, layer = row.unit.startswith("tok/s"), row.unit == "ms" and row.metric.startswith("per-layer ")
    if not rate and not layer:
        raise InputError(f"{row.id}: {row.metric} in {row.unit} is not predicted")
    setup, prediction, report = _step(row, reports)
    if rate:
        per = _NODE_GPUS if "node" in row.unit else 1
        predicted = report.tokens_per_second / report.ranks * per
        return PublishedPoint(row, Kind.STEP, row.value, predicted, report.relative_error, setup)
    # Profiles are drawn at another batch than they ran with where that did not fit: then times are scaled.
    layers, name = setup.deployment.model.layers, row.metric.removeprefix("per-layer ")
    if name == "overall":
        return PublishedPoint(
            row,
            Kind.STEP,
            row.value,
            _milliseconds(report.step_seconds / layers, row),
            report.relative_error,
            setup,
        )
    if name not in _PARTS or row.overlap == "-":
        raise InputError(f"{row.id}: a profile's `{name}` is cut otherwise than a prediction's operations")
    operation = _PARTS[name]
    seconds = float(np.mean(report.operation_seconds[operation])) / len(setup.deployment.model.moe_layers)
    seconds *= _share_in_profile(operation, prediction)
    return PublishedPoint(row, Kind.PART, row.value, _milliseconds(seconds, row), None, setup)


def _share_in_profile(operation: Operation, prediction: Prediction) -> float:
    """How much of an operation a profile counts under its name, the rest under others.

    What an engine adds to a normal combine is the barrier before it (`combine barrier`); kernels that sort rows to
    experts and sum them are no products.
    """
    deployment = prediction.deployment
    if deployment.sending is not DispatcherKind.HIERARCHICAL:
        return 1.0
    if operation is Operation.COMBINE:
        return 1 / profile_of(deployment.options.engine).normal_combine
    if operation is not Operation.EXPERT:
        return 1.0
    activations = deployment.precisions.experts.activations
    sorting_LR = sorting_seconds(
        prediction.cluster,
        prediction.rows_LRS.sum(axis=2),
        prediction.arrived_LR,
        deployment.model.row_width,
        activations,
    )
    return 1 - float(sorting_LR.sum() / prediction.moe.experts_PLR.sum())


def _balance(ranks: int) -> float:
    """Mean / max of the load of so many ranks that hold DeepSeek-V3's experts in their order."""
    model = load_model("deepseek-v3")
    shares_LE = clustered(len(model.moe_layers), model.experts)
    load_LR = shares_LE.reshape(len(shares_LE), ranks, -1).sum(axis=2)
    return float((load_LR.mean(axis=1) / load_LR.max(axis=1)).mean())


def _step(row: PublishedRow, reports: _Steps) -> tuple[PublishedSetup, Prediction, StepReport]:
    setup = setup_of(row)
    key = setup.deployment.model_dump_json()
    if key not in reports:
        prediction = predict(setup.deployment)
        reports[key] = setup, prediction, step_report(prediction)
    return setup, *reports[key][1:]


def _milliseconds(seconds: float, row: PublishedRow) -> float:
    scaled = (
        16384 / row.batch if row.phase == "prefill" and "scaled to 16k" in row.notes and row.batch else 1.0
    )
    return seconds * 1e3 * scaled
