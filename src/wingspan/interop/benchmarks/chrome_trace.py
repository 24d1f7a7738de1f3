"""Steps in a Chrome trace: of torch.profiler, or of `wingspan run` and `compare`.

torch.profiler marks steps as `ProfilerStep#N` where its user calls `step()`, modules as `nn.Module: CLASS_N` with
`with_stack` and `with_modules`, and shapes as `Input Dims` with `record_shapes`; microseconds throughout (Kineto's
`traceEvents`). Wingspan's slices are named `decode step`, with the rank's tokens, and what lies in a layer says so.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wingspan.errors import InputError

_OF_TORCH = re.compile(r"ProfilerStep#\d+")
_OF_WINGSPAN = re.compile(r"(decode|prefill) step")
_MODULE = re.compile(r"nn\.Module: (\w+)_(\d+)")
_WORK = {"cpu_op", "kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver"}


@dataclass(frozen=True)
class TracedStep:
    """Steps that are alike: how long one took in the median.

    Args:
        source: the file.
        phase: prefill or decode; None: the trace does not say.
        tokens: new ones of a step, over all ranks in the trace; None: the trace does not say.
        ranks: how many are in the trace.
        count: of the steps.
        seconds: of one, until the slowest rank ended.
        layers_seconds: from the begin of its first layer to the end of its last; None: the trace does not say.
        remarks: what was assumed, and what was left out.
    """

    source: str
    phase: str | None
    tokens: int | None
    ranks: int
    count: int
    seconds: float
    layers_seconds: float | None
    remarks: tuple[str, ...] = ()


def is_trace(data: Any) -> bool:
    """Whether the value is a Chrome trace: an object with events, or the list of them."""
    events = data.get("traceEvents") if isinstance(data, Mapping) else data
    return isinstance(events, list) and any(isinstance(one, Mapping) and "ph" in one for one in events[:100])


def read_trace(data: Any, source: str, layers: int) -> list[TracedStep]:
    """The steps of a trace, those that are alike together.

    Args:
        data: as `is_trace` has it.
        source: the file.
        layers: of the model, by which its layers' modules are known.

    Raises:
        InputError: it holds no complete events, or times that are none.
    """
    events = _slices(data["traceEvents"] if isinstance(data, Mapping) else data, source)
    if own := [event for event in events if _OF_WINGSPAN.fullmatch(event.name)]:
        return _of_wingspan(own, events, source)
    steps = [event for event in events if _OF_TORCH.fullmatch(event.name) and event.kind == "user_annotation"]
    if steps:
        return [_of_torch(steps, events, source, layers, ())]
    if outer := _outermost([event for event in events if _MODULE.fullmatch(event.name)]):
        said = "no ProfilerStep in it: each pass of its outermost module is a step"
        return [_of_torch(outer, events, source, layers, (said,))]
    work = [event for event in events if event.kind in _WORK]
    if not work:
        raise InputError(
            f"{source}: a trace without steps or operators; give one of torch.profiler, or of a run"
        )
    start, end = min(event.start for event in work), max(event.end for event in work)
    whole = _Slice("", "", start, end, 0, 0, {})
    return [_of_torch([whole], events, source, layers, ("no ProfilerStep in it: all of it is one step",))]


@dataclass(frozen=True)
class _Slice:
    """A complete event; microseconds."""

    name: str
    kind: str
    start: float
    end: float
    process: Any
    thread: Any
    about: Mapping[str, Any]

    def holds(self, other: _Slice) -> bool:
        return self.start <= other.start and other.end <= self.end


def _slices(events: Iterable[Any], source: str) -> list[_Slice]:
    found = []
    for event in events:
        if isinstance(event, Mapping) and event.get("ph") == "X":
            start, length = event.get("ts"), event.get("dur", 0)
            if not all(isinstance(x, int | float) and math.isfinite(x) for x in (start, length)):
                raise InputError(
                    f"{source}: a slice of {event.get('name')!r} has no times; take a whole trace"
                )
            found.append(
                _Slice(
                    str(event.get("name")),
                    str(event.get("cat", "")),
                    float(start or 0),
                    float(start or 0) + float(length),
                    event.get("pid"),
                    event.get("tid"),
                    about if isinstance(about := event.get("args"), Mapping) else {},
                )
            )
    return found


def _of_wingspan(steps: Sequence[_Slice], events: Sequence[_Slice], source: str) -> list[TracedStep]:
    """Steps of one phase and as many tokens are alike; a rank's slice of a step has its number."""
    inside = sorted((event for event in events if "layer" in event.about), key=lambda event: event.start)
    starts = [event.start for event in inside]
    by_number: dict[tuple[str, Any], list[_Slice]] = defaultdict(list)
    for step in steps:
        by_number[step.name, step.about.get("step")].append(step)
    alike: dict[tuple[str, int | None, int], list[tuple[float, float | None]]] = defaultdict(list)
    first = min(by_number, key=lambda key: min(one.start for one in by_number[key]))
    warm = by_number if len(by_number) == 1 else {key: by_number[key] for key in by_number if key != first}
    remarks = () if len(by_number) == 1 else ("the first step is left out: it warms up",)
    for (name, _), slices in warm.items():
        counts = [count for one in slices if isinstance(count := one.about.get("tokens"), int)]
        tokens = sum(counts) if len(counts) == len(slices) else None
        start, end = min(one.start for one in slices), max(one.end for one in slices)
        times = end - start, _extent(inside[bisect_left(starts, start) : bisect_right(starts, end)])
        alike[name.split()[0], tokens, len(slices)].append(times)
    return [
        _traced(source, phase, tokens, ranks, times, remarks)
        for (phase, tokens, ranks), times in alike.items()
    ]


def _of_torch(
    steps: Sequence[_Slice], events: Sequence[_Slice], source: str, layers: int, remarks: tuple[str, ...]
) -> TracedStep:
    modules = _layers(events, layers)
    times = [
        (step.end - step.start, _extent([event for event in modules if step.holds(event)])) for step in steps
    ]
    embedded = [event for event in events if event.name == "aten::embedding"]
    phase, tokens = _shape([event for event in embedded if any(step.holds(event) for step in steps)])
    if modules == []:
        remarks += ("no modules of layers in it (with_stack, with_modules)",)
    return _traced(source, phase, tokens, 1, times, remarks)


def _traced(
    source: str,
    phase: str | None,
    tokens: int | None,
    ranks: int,
    times: Sequence[tuple[float, float | None]],
    remarks: tuple[str, ...],
) -> TracedStep:
    inner = [one for _, one in times if one is not None]
    return TracedStep(
        source=source,
        phase=phase,
        tokens=tokens,
        ranks=ranks,
        count=len(times),
        seconds=statistics.median(whole for whole, _ in times) / 1e6,
        layers_seconds=statistics.median(inner) / 1e6 if len(inner) == len(times) else None,
        remarks=remarks,
    )


def _extent(slices: Sequence[_Slice]) -> float | None:
    return max(one.end for one in slices) - min(one.start for one in slices) if slices else None


def _layers(events: Sequence[_Slice], layers: int) -> list[_Slice]:
    """Modules of the class of which there are as many as layers; of several such classes the one that lasts longest.

    On a GPU modules say when kernels were launched, not when they ran: there are none then.
    """
    if any(event.kind == "kernel" for event in events):
        return []
    found: dict[str, list[_Slice]] = defaultdict(list)
    numbers: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if match := _MODULE.fullmatch(event.name):
            found[match[1]].append(event)
            numbers[match[1]].add(match[2])
    of_layers = [found[name] for name in found if len(numbers[name]) == layers]
    return max(of_layers, key=lambda slices: sum(one.end - one.start for one in slices), default=[])


def _outermost(modules: Sequence[_Slice]) -> list[_Slice]:
    """Those in no other, of the class that lasts longest: a sampler beside the model is no step."""
    found: dict[str, list[_Slice]] = defaultdict(list)
    end = -math.inf
    for one in sorted(modules, key=lambda each: (each.start, -each.end)):
        if one.start >= end:
            end = one.end
            found[one.name].append(one)
    return max(found.values(), key=lambda slices: sum(each.end - each.start for each in slices), default=[])


def _shape(embedded: Sequence[_Slice]) -> tuple[str | None, int | None]:
    """Phase and tokens, by the ids that the first embedding takes: (sequences, tokens), or tokens alone."""
    for event in embedded:
        dims = event.about.get("Input Dims")
        if isinstance(dims, list) and len(dims) > 1:
            ids = dims[1]
            if isinstance(ids, list) and ids and all(isinstance(n, int) for n in ids):
                phase = None if len(ids) == 1 else ("decode" if ids[-1] == 1 else "prefill")
                return phase, math.prod(ids)
    return None, None
