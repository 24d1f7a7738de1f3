"""What published points say of the predictions: errors by group, trends, and the decisions they would have led to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from wingspan.simulate.published.points import Kind, PublishedPoint
from wingspan.simulate.published.rank_correlation import kendall

_WIDE_EP = 64


@dataclass(frozen=True)
class PointGroup:
    """Errors of some points: `median` and `p90` of their absolute values, `bias` with its sign (above 0 too slow).

    Args:
        held: share of the points that their bars hold.
        bar: median half-width of the bars.
    """

    name: str
    fitted: int
    judged: int
    median: float
    p90: float
    bias: float
    held: float | None
    bar: float | None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Trend:
    """How much faster one point is than another that differs in one thing: 0.25 is a quarter more tokens a second."""

    what: str
    ids: tuple[str, str]
    judged: bool
    published: float
    predicted: float

    @property
    def right(self) -> bool:
        """Whether the predicted change goes the published way."""
        return (self.published > 0) == (self.predicted > 0)

    @property
    def error(self) -> float:
        """Relative error of the ratio of the two points."""
        return (1 + self.predicted) / (1 + self.published) - 1

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {**asdict(self), "right": self.right, "error": self.error}


@dataclass(frozen=True)
class Choosing:
    """What the prediction would have chosen among published alternatives.

    Args:
        regret: of tokens per second, what its choice loses against the best.
        kendall: rank correlation of predicted with published; None of fewer than three.
    """

    what: str
    ids: tuple[str, ...]
    chosen: str
    best: str
    regret: float
    kendall: float | None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return asdict(self)


class Judged(Protocol):
    """A published figure beside its prediction: `error` above 0 is too slow; None: nothing to compare."""

    @property
    def error(self) -> float | None:
        """Relative error of the predicted time."""

    @property
    def relative_error(self) -> float | None:
        """Half-width of its bar."""

    @property
    def held(self) -> bool | None:
        """Whether the bar holds the published time."""

    @property
    def for_fitting(self) -> bool:
        """Whether constants may be fitted on it."""


def group_of(name: str, members: Sequence[Judged]) -> PointGroup | None:
    """Errors of the members that judge; None where there is none."""
    known = [member for member in members if member.error is not None]
    judged = [member for member in known if not member.for_fitting]
    if not judged:
        return None
    errors = np.array([member.error for member in judged])
    bars = [member.relative_error for member in judged if member.relative_error is not None]
    held = [bool(member.held) for member in judged if member.held is not None]
    return PointGroup(
        name,
        len(known) - len(judged),
        len(judged),
        float(np.median(np.abs(errors))),
        float(np.percentile(np.abs(errors), 90)),
        float(np.median(errors)),
        float(np.mean(held)) if bars else None,
        float(np.median(bars)) if bars else None,
    )


def groups(points: list[PublishedPoint]) -> list[PointGroup]:
    """Errors of every group with rows to judge, on these alone."""

    def of(name: str, keep: Callable[[PublishedPoint], bool]) -> Iterator[PointGroup]:
        found = group_of(name, [point for point in points if keep(point)])
        if found is not None:
            yield found

    def steps(point: PublishedPoint) -> bool:
        return point.kind is Kind.STEP

    wide = f"EP >= {_WIDE_EP}"
    return [
        *of("steps", steps),
        *of(f"steps: {wide}", lambda p: steps(p) and (p.row.ep or 0) >= _WIDE_EP),
        *of("steps: decode", lambda p: steps(p) and p.row.phase == "decode"),
        *of("steps: prefill", lambda p: steps(p) and p.row.phase == "prefill"),
        *of("steps: data-parallel attention", lambda p: steps(p) and p.attention == "data-parallel"),
        *of("steps: tensor-parallel attention", lambda p: steps(p) and p.attention == "tensor-parallel"),
        *of("parts of a step", lambda p: p.kind is Kind.PART),
        *of("exchanges alone", lambda p: p.kind is Kind.EXCHANGE),
    ]


def trends(points: list[PublishedPoint]) -> list[Trend]:
    """Each pair of an engine's points that differ in the schedule, in balance or in the batch alone."""
    found = []
    for one, other in combinations(_rates(points), 2):
        (kind, one_says), (_, other_says) = _features(one), _features(other)
        if kind != _features(other)[0]:
            continue
        unlike = [name for name in one_says if one_says[name] != other_says[name]]
        if len(unlike) != 1:
            continue
        (name,) = unlike
        first, second = (one, other) if str(one_says[name]) <= str(other_says[name]) else (other, one)
        if name == "batch":
            first, second = sorted((one, other), key=lambda point: point.row.batch or 0)
        was, now = _features(first)[1][name], _features(second)[1][name]
        fixed = "" if name == "batch" else f", {first.batch_text} a GPU"
        found.append(
            Trend(
                f"EP {first.row.ep} {first.row.phase}{fixed}: {name} {was} to {now}",
                (first.row.id, second.row.id),
                not (first.row.for_fitting and second.row.for_fitting),
                second.published / first.published - 1,
                second.predicted / first.predicted - 1,
            )
        )
    return found


def decisions(points: list[PublishedPoint]) -> list[Choosing]:
    """Each group of alternatives of one engine: what was best, what the prediction would take."""
    by_kind: dict[tuple[object, ...], list[PublishedPoint]] = {}
    for point in _rates(points):
        by_kind.setdefault(_features(point)[0], []).append(point)
    found = []
    for kind, members in by_kind.items():
        if len(members) < 2:
            continue
        best = max(members, key=lambda point: point.published)
        chosen = max(members, key=lambda point: point.predicted)
        tau = kendall([p.published for p in members], [p.predicted for p in members])
        found.append(
            Choosing(
                f"{kind[0]}: EP {kind[1]} {kind[2]}",
                tuple(point.row.id for point in members),
                chosen.row.id,
                best.row.id,
                1 - chosen.published / best.published,
                tau if len(members) > 2 else None,
            )
        )
    return found


def _rates(points: list[PublishedPoint]) -> list[PublishedPoint]:
    return [point for point in points if point.kind is Kind.STEP and point.is_rate]


def _features(point: PublishedPoint) -> tuple[tuple[object, ...], dict[str, object]]:
    """What points must have in common to be compared, and what they may differ in."""
    row, setup = point.row, point.setup
    balance = None if setup is None else setup.placement_balance
    schedule = None if setup is None else setup.deployment.options.schedule
    kind = (row.hardware, row.ep, row.phase, row.unit, row.seq)
    return kind, {"batch": point.batch_text, "balance": balance, "schedule": schedule}
