"""Which ranks to show where there are too many to show all: the slowest, the median and the fastest."""

from __future__ import annotations

from collections.abc import Collection

from wingspan.schedule.result import Operation, StepReport


def busy_seconds(report: StepReport) -> list[float]:
    """Time each rank computes or waits for transfers, slower ranks left out: (ranks,)."""
    own = [seconds for operation, seconds in report.spent_seconds.items() if operation is not Operation.WAIT]
    return [sum(seconds[rank] for seconds in own) for rank in range(report.ranks)]


def representative(report: StepReport, among: Collection[int] | None = None) -> dict[int, str]:
    """Rank -> "slowest", "median" or "fastest", in this order; fewer where there are fewer ranks.

    Args:
        among: only these ranks may be chosen (those with spans); all if None.
    """
    busy = busy_seconds(report)
    order = sorted(range(report.ranks) if among is None else among, key=lambda rank: (busy[rank], rank))
    if not order:
        return {}
    slowest = report.slowest_rank if report.slowest_rank in order else order[-1]
    chosen = {slowest: "slowest"}
    others = [rank for rank in order if rank != slowest]
    if len(others) > 1:
        chosen[others[len(others) // 2]] = "median"
    if others:
        chosen.setdefault(others[0], "fastest")
    return chosen
