"""What a sweep's points say together, in sentences: how far scaling holds, and how many experts per GPU are best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, Value

_GOOD = 0.9
"""Least parallel efficiency that docs/reference-model.md claims."""
_MOST_SENTENCES = 12
_ALIKE = 3


def findings(axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> list[str]:
    """Sentences on experts per GPU, else on parallel efficiency over EP, where these were varied."""
    names = {axis.name: axis for axis in axes}
    if "experts_per_rank" in names:
        sentences = _best_experts(names["experts_per_rank"], axes, points)
    elif "ranks" in names:
        sentences = _efficiency(names["ranks"], axes, points)
    else:
        sentences = []
    if len(sentences) > _MOST_SENTENCES:
        left = len(sentences) - _MOST_SENTENCES
        sentences = [*sentences[:_MOST_SENTENCES], f"{left} more lines like these; the table has all points"]
    return sentences


def best_points(
    axes: Sequence[SweepAxis], points: Sequence[SweepPoint], longest_step_seconds: float | None = None
) -> list[str]:
    """The point with most tokens/s per GPU of those that fit, and of these within a step time where one is said."""
    fitting = [point for point in points if point.fits]
    if not fitting:
        least = min(point.peak_memory_bytes for point in points)
        return [f"no point fits into memory; the least needs {least / 1e9:,.1f} GB"]
    sentences = [f"best that fits: {_best_point(axes, fitting)}"]
    if longest_step_seconds is not None:
        within = [point for point in fitting if point.step_seconds <= longest_step_seconds]
        limit = f"{longest_step_seconds * 1e3:g} ms"
        sentences.append(
            f"best within {limit}: {_best_point(axes, within)}"
            if within
            else f"no step within {limit}: the shortest that fits takes "
            f"{min(point.step_seconds for point in fitting) * 1e3:,.4g} ms"
        )
    return sentences


def _best_point(axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> str:
    best = max(points, key=lambda point: point.tokens_per_second_per_gpu)
    where = ", ".join(_said(axis, best.at[axis.name]) for axis in axes)
    return f"{where}: {best.tokens_per_second_per_gpu:,.0f} tokens/s per GPU, step {best.step_seconds * 1e3:,.4g} ms"


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
    alike: dict[str, list[tuple[str, str, list[float]]]] = {}
    for where, line in _lines(ep, axes, points):
        known = [(p.at["ranks"], p.parallel_efficiency) for p in line]
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
        alike.setdefault(verdict, []).append((where, shown, [share for _, share in known]))
    return [sentence for verdict, found in alike.items() for sentence in _once(verdict, found)]


def _once(verdict: str, found: Sequence[tuple[str, str, list[float]]]) -> list[str]:
    """One sentence for each line; from three alike on, one for all of them."""
    if len(found) < _ALIKE:
        return [f"{_prefix(where)}parallel efficiency {verdict} ({shown})" for where, shown, _ in found]
    shares = [share for _, _, line in found for share in line]
    return [
        f"parallel efficiency {verdict} on {len(found)} lines, from {found[0][0]} to {found[-1][0]} "
        f"({min(shares) * 100:.1f} to {max(shares) * 100:.1f} %)"
    ]


def _best_experts(per_gpu: SweepAxis, axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> list[str]:
    """How many experts per GPU are best, and where that changes; points that do not fit count only if none fits."""
    across = [axis for axis in axes if axis is not per_gpu and axis.numeric and len(axis.values) > 1]
    sentences = []
    if across:
        # The batch decides most: weights of every expert are read for however few rows it gets.
        along = next((axis for axis in across if axis.name == "tokens_per_gpu"), across[0])
        sentences = _best_along(along, per_gpu, axes, points)
    lines = [(where, line) for where, line in _lines(per_gpu, axes, points) if len(line) > 1]
    if len(lines) + len(sentences) <= _MOST_SENTENCES:
        sentences += [f"{_prefix(where)}{_verdict(line)}" for where, line in lines]
    return sentences


def _best_along(
    along: SweepAxis, per_gpu: SweepAxis, axes: Sequence[SweepAxis], points: Sequence[SweepPoint]
) -> list[str]:
    """For each combination of the other axes: the best count over `along`, as stretches of equal ones."""
    others = [axis for axis in axes if axis is not per_gpu]
    sentences = []
    for where, line in _lines(along, others, points):
        stretches: list[tuple[int, Value, Value]] = []
        for value in dict.fromkeys(point.at[along.name] for point in line):
            best = _best([point for point in line if point.at[along.name] == value]).experts_per_rank
            if stretches and stretches[-1][0] == best:
                stretches[-1] = (best, stretches[-1][1], value)
            else:
                stretches.append((best, value, value))
        name = along.label.split(",")[0]
        said = ", then ".join(
            f"{count} at {name} {first}" + (f" to {last}" if last != first else "")
            for count, first, last in stretches
        )
        sentences.append(f"{_prefix(where)}best number of experts per GPU: {said}")
    return sentences


def _best(line: Sequence[SweepPoint]) -> SweepPoint:
    fitting = [point for point in line if point.fits]
    return max(fitting or line, key=lambda point: point.tokens_per_second_per_gpu)


def _verdict(line: Sequence[SweepPoint]) -> str:
    """The best count of one line, by how much, and from which count on more is worse than one per GPU."""
    rates = {point.experts_per_rank: point.tokens_per_second_per_gpu for point in line}
    best, one = _best(line).experts_per_rank, rates.get(1)
    unfit = [str(point.experts_per_rank) for point in line if not point.fits]
    memory = f" ({', '.join(unfit)} per GPU do not fit into memory)" if 0 < len(unfit) < len(line) else ""
    memory = " (none fits into memory)" if len(unfit) == len(line) else memory
    if one is None:
        return f"best is {best} experts per GPU{memory}"
    against = ", ".join(f"{count}: {rate / one:.2f} x" for count, rate in rates.items() if count != 1)
    if best == 1:
        return f"best is one expert per GPU{memory}; throughput of others against it: {against}"
    worse = [count for count, rate in rates.items() if count > best and rate < one]
    crossover = f"the crossover is at {min(worse)}: from there on one is better" if worse else "no crossover"
    return f"best is {best} experts per GPU{memory}; {crossover}; throughput against one per GPU: {against}"
