"""What a sweep's points say together, in sentences: how far scaling holds, and how many experts per GPU are best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, Value

_GOOD = 0.9
"""The seed's claim: more than 90 % parallel efficiency (section 4.1)."""
_MOST_SENTENCES = 12


def findings(axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> list[str]:
    """Sentences on parallel efficiency over EP, and on experts per GPU, where these were varied."""
    names = {axis.name: axis for axis in axes}
    sentences: list[str] = []
    if "ep" in names:
        sentences += _efficiency(names["ep"], axes, points)
    if "experts_per_gpu" in names:
        sentences += _best_experts(names["experts_per_gpu"], axes, points)
    if len(sentences) > _MOST_SENTENCES:
        left = len(sentences) - _MOST_SENTENCES
        sentences = [*sentences[:_MOST_SENTENCES], f"{left} more lines like these; the table has all points."]
    return sentences


def _lines(
    along: SweepAxis, axes: Sequence[SweepAxis], points: Sequence[SweepPoint]
) -> Iterator[tuple[str, list[SweepPoint]]]:
    """The points over one axis, for each combination of the others, with a name for it."""
    others = [axis for axis in axes if axis is not along]
    groups: dict[tuple[Value, ...], list[SweepPoint]] = {}
    for point in points:
        groups.setdefault(tuple(point.at[axis.name] for axis in others), []).append(point)
    for values, group in groups.items():
        where = ", ".join(_said(axis, value) for axis, value in zip(others, values, strict=True))
        yield where, sorted(group, key=lambda point: float(point.at[along.name]))


def _said(axis: SweepAxis, value: Value) -> str:
    return str(value) if isinstance(value, str) else f"{axis.label.split(',')[0]} {value:g}"


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


def _efficiency(ep: SweepAxis, axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> list[str]:
    sentences = []
    for where, line in _lines(ep, axes, points):
        known = [(p.at["ep"], p.parallel_efficiency) for p in line if p.parallel_efficiency is not None]
        if len(known) < 2:
            continue
        shown = ", ".join(f"{share * 100:.1f} % at EP {size}" for size, share in known)
        good = 0
        while good < len(known) and known[good][1] >= _GOOD:
            good += 1
        if good == len(known):
            verdict = "stays above 90 % throughout"
        elif good == 0:
            verdict = "is below 90 % from the start"
        else:
            verdict = f"is above 90 % up to EP {known[good - 1][0]}, below from EP {known[good][0]} on"
        sentences.append(f"{_prefix(where)}parallel efficiency {verdict} ({shown})")
    return sentences


def _best_experts(per_gpu: SweepAxis, axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> list[str]:
    """Best number of experts per GPU for each line, and where the best changes between neighbouring lines."""
    lines = list(_lines(per_gpu, axes, points))
    best = {where: max(line, key=lambda p: p.tokens_per_second_per_gpu) for where, line in lines}
    sentences = []
    for where, line in lines:
        if len(line) < 2:
            continue
        top = best[where]
        count = int(top.at["experts_per_gpu"])
        rates = {int(p.at["experts_per_gpu"]): p.tokens_per_second_per_gpu for p in line}
        one = rates.get(1)
        gain = "" if one is None or count == 1 else f", {rates[count] / one:.2f} x the throughput of one"
        sentences.append(f"{_prefix(where)}best is {_experts(count)} per GPU{gain}{_crossover(rates, count)}")
    return sentences


def _experts(count: int) -> str:
    return "one expert" if count == 1 else f"{count} experts"


def _crossover(rates: dict[int, float], best: int) -> str:
    """From where on more experts per GPU do worse than one, or that they never do."""
    one = rates.get(1)
    if one is None:
        return ""
    worse = [count for count, rate in rates.items() if count > 1 and rate < one]
    if best == 1:
        others = {count: rate for count, rate in rates.items() if count != 1}
        lost = ", ".join(f"{count}: {rate / one:.2f} x" for count, rate in others.items())
        return f" (others against it: {lost})"
    beyond = [count for count in worse if count > best]
    if beyond:
        return f"; the crossover is at {min(beyond)}: from there on one expert per GPU is better"
    last = max(rates)
    falling = f", at {last} it is {rates[last] / one:.2f} x" if last != best else ""
    return f"; no crossover: up to {last} experts per GPU none does worse than one{falling}"
