"""`wingspan calibrate --from-bench` on files that this machine makes now: how far is a load that was held out?

`wingspan calibrate --ranks 1` measures the machine. Then, in rounds, files are made of three kinds:

- `served`: `wingspan serve models/tiny --ranks 1` under `wingspan bench serve`, 1 to 16 requests at a time
- `profiler`: torch.profiler's traces of decode steps of the same model in transformers, 1 to 32 sequences
- `traces`: `wingspan run --trace` with 1 to 32 prompts

For each kind one engine is fitted, and each load is predicted by an engine fitted to the others. Loads that lie between
others are held to a promise: for each kind and figure the median error is at most 5 %. The smallest and the largest lie
beyond the others; their errors are printed, and not promised. Exits with 1 where that is not kept, or time ran out.

    python -m benchmarks.calibration
    python -m benchmarks.calibration --only served --rounds 5 --folder /tmp/calibration

Everything computes with one thread (`--threads`): threads that wait for each other would measure what else the machine
does. How many cores were busy with other work is printed with each table.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks import calibration_files as files
from benchmarks.profiled_decode import MEAN_CONTEXT

PROMISED = 0.05
_MADE_SECONDS = 1.0
"""Files that were found sooner were there already."""
_FIGURES = {
    "time per output token": "TPOT",
    "time to first token": "TTFT",
    "output tokens/s": "tokens/s",
    "step": "step",
}


@dataclass(frozen=True)
class Kind:
    """One kind of files.

    Args:
        what: it is, for a table.
        counts: what a load's number counts.
        make: makes the files, or finds them.
        options: of `calibrate` beside them.
    """

    what: str
    counts: str
    make: Callable[[files.Making], list[Path]]
    options: Sequence[str] = ()


KINDS = {
    "served": Kind(
        f"wingspan serve under wingspan bench serve, {files.PROMPT_TOKENS} + {files.OUTPUT_TOKENS} tokens",
        "requests at a time",
        files.served,
    ),
    "profiler": Kind(
        "torch.profiler on decode steps in transformers",
        "sequences",
        files.profiled,
        ("--context", str(MEAN_CONTEXT)),
    ),
    "traces": Kind(
        "wingspan run --trace", "sequences", files.traced, ("--context", str(files.TRACE_CONTEXT))
    ),
}


@dataclass(frozen=True)
class Row:
    """One figure of one load: measured, and predicted with the engines. Errors are relative."""

    load: int
    figure: str
    measured: float
    before: float
    fitted_error: float
    held_out_error: float
    between: bool
    """Whether other loads lie on both sides."""


@dataclass(frozen=True)
class Found:
    """What one kind of files gave; `busy_cores`: that did other work meanwhile; None: the files were there."""

    rows: Sequence[Row]
    engine: Mapping[str, Any]
    terms: Sequence[str]
    busy_cores: float | None

    def errors(self, figure: str, *, between: bool) -> list[float]:
        """Of held-out loads."""
        return [abs(r.held_out_error) for r in self.rows if r.figure == figure and r.between == between]

    @property
    def medians(self) -> dict[str, float]:
        """What is promised: of each figure, over the loads that lie between others."""
        return {
            figure: statistics.median(self.errors(figure, between=True))
            for figure in dict.fromkeys(row.figure for row in self.rows)
        }


def found(kind: Kind, making: files.Making, base: Path) -> Found:
    """Make a kind's files, and calibrate on them."""
    begun, own = time.monotonic(), (_busy_seconds(), _own_seconds())
    made = kind.make(making)
    elapsed = time.monotonic() - begun
    others = (_busy_seconds() - own[0]) - (_own_seconds() - own[1])
    busy_cores = max(0.0, others / elapsed) if elapsed > _MADE_SECONDS else None
    making.say(f"fitting to {len(made)} files")
    given = [part for file in made for part in ("--from-bench", str(file))]
    command = [sys.executable, "-m", "wingspan.cli.main", "calibrate", str(files.MODEL), "--ranks", "1"]
    out = making.do([*command, "--cluster", str(base), *kind.options, *given, "--json"])
    result = json.loads(out)
    return Found(list(rows(result["measurements"])), result["engine"], result["fitted"], busy_cores)


def rows(measurements: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Each figure of each load, as `calibrate --json` has them."""
    loads = [int(re.search(r"\d+", one["load"])[0]) for one in measurements]  # type: ignore[index]
    for load, one in zip(loads, measurements, strict=True):
        for key, figure in _FIGURES.items():
            if key in one["measured"]:
                measured = one["measured"][key]
                yield Row(
                    load,
                    figure,
                    measured,
                    one["before"][key],
                    one["after"][key] / measured - 1,
                    one["held_out"][key] / measured - 1,
                    min(loads) < load < max(loads),
                )


def _busy_seconds() -> float:
    """Core seconds in which the machine did anything, since it started."""
    times = psutil.cpu_times()
    return float(
        sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    )


def _own_seconds() -> float:
    """Core seconds of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def table(kind: Kind, one: Found) -> Iterator[str]:
    """The lines of a table as docs/calibrate.md has it."""
    busy = "made before" if one.busy_cores is None else f"{one.busy_cores:.2f} of {os.cpu_count()} cores"
    yield f"{kind.what} (busy with other work: {busy}):"
    yield ""
    yield f"| {kind.counts} | | measured | before | fitted to all | held out | |"
    yield "|---|---|---|---|---|---|---|"
    for row in one.rows:
        unit, scale = ("", 1.0) if row.figure == "tokens/s" else (" ms", 1e3)
        yield (
            f"| {row.load} | {row.figure} | {row.measured * scale:.1f}{unit} | {row.before * scale:.1f} "
            f"| {row.fitted_error:+.1%} | {row.held_out_error:+.1%} | {'between' if row.between else 'beyond'} |"
        )
    yield ""
    terms = ", ".join(f"{term} {one.engine[term]:.3g}" for term in one.terms)
    yield f"Fitted: {terms}{'; prompts apart' if one.engine['prompts_apart'] else ''}."
    for figure, median in one.medians.items():
        between, beyond = (one.errors(figure, between=side) for side in (True, False))
        yield (
            f"{figure}: median {median:.1%} (promised: {PROMISED:.0%}) and worst {max(between):.1%} between others, "
            f"{max(beyond):.1%} beyond them"
        )


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Of served, profiler, traces; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each load is measured.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of each process that computes.")] = 1,
    limit_seconds: Annotated[float, typer.Option(min=1, help="Give up after so long.")] = 900,
    real_time: Annotated[
        bool, typer.Option(help="Take real-time priority (root, Linux): beside other work.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Keep files here, and take those that are there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Make files, calibrate on them, and print how far held-out loads are."""
    if unknown := set(only or ()) - KINDS.keys():
        raise typer.BadParameter(f"{min(unknown)}: use {', '.join(KINDS)}", param_hint="--only")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:4.0f} s  {line}", file=sys.stderr, flush=True)

    results: dict[str, Found] = {}
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="calibration-")))
        place.mkdir(parents=True, exist_ok=True)
        making = files.Making(place, rounds, begun + limit_seconds, say, real_time)
        try:
            base = files.base(making)
            for name in only or KINDS:
                results[name] = found(KINDS[name], making, base)
                if not as_json:
                    print("\n".join(["", *table(KINDS[name], results[name])]), flush=True)
        except files.OutOfTimeError:
            say(f"{limit_seconds:.0f} s are over (--limit-seconds); what is there is printed")
    kept = len(results) == len(only or KINDS) and all(
        median <= PROMISED for one in results.values() for median in one.medians.values()
    )
    if as_json:
        parts = {name: asdict(one) | {"medians": one.medians} for name, one in results.items()}
        print(json.dumps({"threads": threads, "rounds": rounds, "kept": kept, "kinds": parts}))
    else:
        print(f"\n{'kept' if kept else 'NOT KEPT'}: median error at most {PROMISED:.0%} between other loads")
    raise SystemExit(not kept)


if __name__ == "__main__":
    typer.run(main)
