"""Compare predictions with measurements, group by group, on the rows that no constant was fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.interop.silicon.groups import MeasurementGroup
from wingspan.specs.cluster import Cluster

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """Errors of one group, relative to the measurement; `median` and `p90` of their absolute values.

    `bias` is the median with its sign: above 0, predictions are too slow.
    """

    group: str
    operation: str
    source: str
    cluster: str
    fitted_rows: int
    judged_rows: int
    median: float
    p90: float
    bias: float
    fitted_median: float | None
    smallest_size: float
    largest_size: float
    fastest_seconds: float
    slowest_seconds: float
    target: float | None
    suspect: str | None

    @property
    def holds(self) -> bool | None:
        """Whether the promised median is met; `None` where none is promised."""
        return None if self.target is None else self.median <= self.target

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {**asdict(self), "holds": self.holds}


def judge(groups: list[MeasurementGroup], cluster_named: Callable[[str], Cluster]) -> list[Verdict]:
    """One verdict per group with rows to judge, in order."""
    return [_verdict(group, cluster_named(group.cluster)) for group in groups if not group.for_fitting.all()]


def errors(group: MeasurementGroup, cluster: Cluster) -> Array:
    """(predicted - measured) / measured, per row."""
    relative: Array = group.predict(cluster) / group.measured - 1
    return relative


def _verdict(group: MeasurementGroup, cluster: Cluster) -> Verdict:
    every = errors(group, cluster)
    judged, fitted = every[~group.for_fitting], every[group.for_fitting]
    return Verdict(
        group=group.name,
        operation=group.operation,
        source=group.source,
        cluster=group.cluster,
        fitted_rows=len(fitted),
        judged_rows=len(judged),
        median=float(np.median(np.abs(judged))),
        p90=float(np.percentile(np.abs(judged), 90)),
        bias=float(np.median(judged)),
        fitted_median=float(np.median(np.abs(fitted))) if len(fitted) else None,
        smallest_size=float(group.sizes.min()),
        largest_size=float(group.sizes.max()),
        fastest_seconds=float(group.measured.min()),
        slowest_seconds=float(group.measured.max()),
        target=group.target,
        suspect=group.suspect,
    )
