"""The work behind `wingspan calibrate --from-bench`: read, predict, fit, write the file, say what was found."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.progress import progress
from wingspan.deployment import Deployment
from wingspan.describe import Description, deployment_of
from wingspan.errors import InputError
from wingspan.interop.benchmarks.chrome_trace import TracedStep
from wingspan.interop.benchmarks.files import read_benchmarks
from wingspan.interop.benchmarks.load import BenchmarkLoad
from wingspan.simulate.fitting.fit import Fit, described, fit
from wingspan.simulate.fitting.loads import ServedLoads
from wingspan.simulate.fitting.measurements import Predictor
from wingspan.simulate.fitting.steps import AllMeasured, TracedSteps
from wingspan.specs.engines import engine_text, save_engine


@dataclass(frozen=True)
class FromBench:
    """What `calibrate --from-bench` is asked for."""

    said: Description
    files: list[Path]
    max_sequences: int | None
    step_tokens: int | None
    out: Path | None
    as_json: bool


def fit_engine(asked: FromBench) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    check_outputs(asked.out)
    if not asked.said.source:
        raise InputError("`from_bench`: name the model or the deployment file that was measured, too")
    deployment = deployment_of(asked.said)
    predictor = _predictor(deployment, asked)
    with progress("predicting", _MOST_PREDICTIONS) as advance, cleared_up(asked.out):
        found = fit(predictor, deployment.options.engine, lambda: advance(1))
    _finish(deployment, found, asked)


def _predictor(deployment: Deployment, asked: FromBench) -> Predictor:
    """All that is in the files, to be predicted."""
    found = [one for path in asked.files for one in read_benchmarks(path, deployment.model.layers)]
    loads = [one for one in found if isinstance(one, BenchmarkLoad)]
    steps = [one for one in found if isinstance(one, TracedStep)]
    said = {name for name in _OF_STEPS if getattr(asked.said, name) is not None}
    if said and not steps:
        raise InputError(f"`{min(said)}`: a server's load says it; leave it out, or give a profiler's trace")
    for name in ("max_sequences", "step_tokens"):
        if getattr(asked, name) is not None and not loads:
            raise InputError(
                f"`{name}`: a trace's steps are as they are; leave it out, or give a server's load"
            )
    predictors: list[Predictor] = []
    if loads:
        limits = asked.max_sequences or _USUAL_SEQUENCES, asked.step_tokens or _USUAL_STEP_TOKENS
        predictors.append(ServedLoads(deployment, loads, *limits))
    if steps:
        predictors.append(TracedSteps(deployment, steps, said))
    return AllMeasured(predictors)


_USUAL_SEQUENCES, _USUAL_STEP_TOKENS = 128, 1024
_OF_STEPS = ("phase", "tokens_per_gpu", "total_sequences", "context")
_MOST_PREDICTIONS = 20
"""About: the line of progress counts to it."""


def _finish(deployment: Deployment, found: Fit, asked: FromBench) -> None:
    """The file, and a summary on standard error (standard output may be the file)."""
    from wingspan.cli.calibrate_bench_view import print_json, show

    profile = described(found, asked.out.stem if asked.out else "fitted")
    if asked.out is not None:
        save_engine(profile, asked.out)
    if asked.as_json:
        print_json(found, profile)
        return
    show(deployment, found, profile)
    if asked.out is None:
        sys.stdout.write(engine_text(profile))
    else:
        print(f"wrote {asked.out}: give it as --engine", file=sys.stderr)
