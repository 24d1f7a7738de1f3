"""Every field of a deployment acts in `run`, `LLM`, `serve` and `compare`, is refused, or is said to be left out.

The tables are held to the schema: a new field must be put into them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.cli.command import TINY
from wingspan.cli.serve import serve
from wingspan.deployment import Deployment, load_deployment, save_deployment
from wingspan.errors import InputError
from wingspan.placement.simple import round_robin
from wingspan.placement.spec import PlacementSpec
from wingspan.runtime import llm, start
from wingspan.runtime.llm import LLM
from wingspan.runtime.model.engine import describe
from wingspan.runtime.setup.setup import Asked, read_setup
from wingspan.runtime.start import engine_setup
from wingspan.schedule.result import Operation
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import WEIGHTS
from wingspan.specs.workload import Context, Workload

# What the other value of each field is. Where a field acts only beside others, those stand with it.
OTHER: dict[str, dict[str, Any]] = {
    "cluster": {"cluster": "gb200-nvl72"},
    "workload.phase": {"workload.phase": "prefill", "workload.context.mean_tokens": 4},
    "workload.tokens_per_gpu": {"workload.tokens_per_gpu": 3},
    "workload.context.mean_tokens": {"workload.context.mean_tokens": 40},
    "workload.context.spread": {"workload.context.spread": 0.5},
    "workload.tokens_spread": {"workload.tokens_spread": 0.5},
    "workload.routing": {"workload.routing": {"kind": "log_normal", "sigma": 1.0}},
    "workload.total_sequences": {"workload.total_sequences": 7},
    "workload.fluctuating": {"workload.fluctuating": False},
    "workload.seed": {"workload.seed": 5},
    "workload.mtp_tokens": {"workload.mtp_tokens": 1},
    "workload.acceptance": {"workload.acceptance": 0.5},
    "workload.precision.attention": {f"workload.precision.{part}": "fp32" for part in WEIGHTS},
    "workload.precision.dense": {"workload.precision.dense": "fp32"},
    "workload.precision.shared": {"workload.precision.shared": "fp32"},
    "workload.precision.experts": {"workload.precision.experts": "fp32"},
    "workload.precision.activations": {"workload.precision.activations": "fp32"},
    "workload.precision.dispatch": {"workload.precision.dispatch": "fp8"},
    "workload.precision.combine": {"workload.precision.combine": "fp8"},
    "workload.precision.kv": {"workload.precision.kv": "fp32"},
    "workload.precision.core": {"workload.precision.core": "fp32"},
    "placement.strategy": {"placement.strategy": "round_robin"},
    "placement.ranks": {"placement.ranks": 4},
    "placement.experts_per_rank": {"placement.experts_per_rank": 5},
    "placement.seed": {"placement.seed": 7},
    "placement.slots": {"placement": "SLOTS"},
    "options.schedule": {"options.schedule": "two-batch"},
    "options.shared_beside_dispatch": {"options.shared_beside_dispatch": False},
    "options.dispatcher": {"options.dispatcher": "deduplicated"},
    "options.attention_ranks": {"options.attention_ranks": 2},
    "options.expert_tensor_parallel": {"options.expert_tensor_parallel": 2},
    "options.reserve_share": {"options.reserve_share": 0.2},
    "options.engine": {"options.engine": "sglang"},
    "checkpoint": {"checkpoint": "/nowhere"},
    "placement.remarks": {"placement.remarks": ["read otherwise"]},
    "planned": {"planned": {"tokens_per_gpu": 9}},
}

ACTS, REFUSED, SAID = "acts", "refused", "said"
_STEP = "what one line says of the planned step: run has prompts, this machine and the model's own router"
_ONLY_PLAN = "read by `plan` alone: what its search was to keep; docs/planning.md"
_REMARKS = "predictions repeat them beside their figures; the slots that run are as read"
_ENGINE = "predictions' alone: whose step they predict; what runs here is Wingspan"
_TRIED = "acts beside mtp_tokens alone, which is refused"
_SENT = "paced ranks have no weights, and say so"

# field: what it does in `run` (so in `LLM` and `serve`), in `compare`, in `compare --compute real`; or why nothing.
FIELDS: dict[str, tuple[str, str, str]] = {
    "cluster": (SAID, ACTS, "the prediction is of this machine; the table names it"),
    "workload.phase": (ACTS, ACTS, ACTS),
    "workload.tokens_per_gpu": (SAID, ACTS, ACTS),
    "workload.context.mean_tokens": (SAID, ACTS, ACTS),
    "workload.context.spread": (SAID, ACTS, ACTS),
    "workload.tokens_spread": (SAID, REFUSED, REFUSED),
    "workload.routing": (SAID, ACTS, "the model routes: the table says whose choices are counted"),
    "workload.total_sequences": (_STEP, REFUSED, REFUSED),
    "workload.fluctuating": (_STEP, "drawn token by token: a step always fluctuates", "the model routes"),
    "workload.seed": (_STEP, ACTS, ACTS),
    "workload.mtp_tokens": (REFUSED, REFUSED, REFUSED),
    "workload.acceptance": (_TRIED, _TRIED, _TRIED),
    "workload.precision.attention": (ACTS, ACTS, ACTS),
    "workload.precision.dense": (REFUSED, ACTS, REFUSED),
    "workload.precision.shared": (REFUSED, REFUSED, REFUSED),
    "workload.precision.experts": (REFUSED, ACTS, REFUSED),
    "workload.precision.activations": (REFUSED, REFUSED, REFUSED),
    "workload.precision.dispatch": (ACTS, ACTS, ACTS),
    "workload.precision.combine": (REFUSED, REFUSED, REFUSED),
    "workload.precision.kv": (SAID, ACTS, SAID),
    "workload.precision.core": (SAID, ACTS, SAID),
    "placement.strategy": (ACTS, ACTS, ACTS),
    "placement.ranks": (ACTS, ACTS, ACTS),
    "placement.experts_per_rank": (ACTS, ACTS, ACTS),
    "placement.seed": (ACTS, ACTS, ACTS),
    "placement.slots": (ACTS, ACTS, ACTS),
    "placement.remarks": (_REMARKS, _REMARKS, _REMARKS),
    "options.schedule": (ACTS, ACTS, ACTS),
    "options.shared_beside_dispatch": (ACTS, ACTS, ACTS),
    "options.dispatcher": (ACTS, ACTS, ACTS),
    "options.attention_ranks": (REFUSED, REFUSED, REFUSED),
    "options.expert_tensor_parallel": (REFUSED, REFUSED, REFUSED),
    "options.reserve_share": (_STEP, ACTS, ACTS),
    "options.engine": (_ENGINE, ACTS, _ENGINE),
    "checkpoint": (REFUSED, _SENT, REFUSED),
    "planned": (_ONLY_PLAN, _ONLY_PLAN, _ONLY_PLAN),
}


def _leaves(data: Any, key: str = "") -> Iterator[str]:
    """Dotted keys of what a file says; routing, cluster, model and what was planned are one thing each."""
    if isinstance(data, dict) and key not in ("model", "cluster", "planned", "workload.routing"):
        for name, value in data.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    else:
        yield key


@pytest.fixture(scope="module")
def planned() -> Deployment:
    return Deployment(
        model=load_model(TINY),
        cluster=load_cluster("h100-sxm"),
        workload=Workload(tokens_per_gpu=4, context=Context(mean_tokens=24)),
        placement=PlacementSpec(strategy="random", ranks=2, experts_per_rank=4),
        checkpoint=TINY,
    )


def _changed(planned: Deployment, changes: dict[str, Any], path: Path) -> Path:
    save_deployment(planned, path)
    data = json.loads(path.read_text())
    for key, value in changes.items():
        *inside, last = key.split(".")
        part = data
        for name in inside:
            part = part[name]
        if value == "SLOTS":
            value = PlacementSpec.explicit(round_robin(7, 8, 2, 4)).model_dump(mode="json")
        part[last] = load_cluster(value).model_dump(mode="json") if key == "cluster" else value
    path.write_text(json.dumps(data))
    return path


def _run(path: Path) -> tuple[Any, Any]:
    """What runs, and what is said of it."""
    setup = read_setup(Asked(path), {})
    ranks = setup.group({}).size
    flow = (setup.schedule, setup.shared_beside_dispatch)
    what = (ranks, setup.ranks_per_node, setup.build_placement(7, 8, ranks).to_dict(), flow, setup.dispatcher,
            setup.dtype, setup.row_precision)  # fmt: skip
    return what, (setup.notes, setup.planned_step)


class _CapturedError(Exception):
    """Holds what ranks would have been started with."""


def _object(path: Path, make: Any = LLM) -> tuple[Any, Any]:
    """What an `LLM` starts its ranks with, and warns of."""
    said, made = [], []

    def start_none(_prepare: Any, group: Any, _device: Any) -> Any:
        raise _CapturedError(group.size, group.ranks_per_node)

    def keep(*given: Any) -> Any:
        made.append(engine_setup(*given))
        return made[0]

    with (
        mock.patch.object(llm, "ObeyingRanks", start_none),
        mock.patch.object(llm, "engine_setup", keep),
        mock.patch.object(llm._LOG, "warning", lambda _, line: said.append(line)),
        mock.patch.object(start, "describe", cache(describe)),
        pytest.raises(_CapturedError) as group,
    ):
        make(path)
    (engine,) = made
    what = (group.value.args, engine.placement.to_dict(), engine.flows, engine.dispatch, engine.model.dtype)
    return what, said


def _server(path: Path) -> tuple[Any, Any]:
    return _object(path, lambda file: serve(str(file), port=0))


def _paced(path: Path) -> tuple[Any, Any]:
    from wingspan.simulate.pace import ModelledPace
    from wingspan.testbed.emulate import choices, paced_step

    given = load_deployment(path)
    if given.options.attention_ranks > 1 or given.options.expert_tensor_parallel > 1:
        raise InputError("compare refuses it by name (tests/cli/test_compare.py)")
    step = paced_step(given, 1)
    pace = ModelledPace(given, step.flow.micro_batches, 0)
    seconds = [pace.seconds(op, 3) for op in (Operation.ATTENTION, Operation.GATE)]
    seconds.append(pace.seconds(Operation.DENSE, 0))
    drawn = choices(given)
    what = (step.placement.to_dict(), step.flow, step.dispatch, step.dtype, seconds, pace.experts_seconds(3, [9] * 4),
            drawn.shape, drawn.tolist(), given.options.reserve_share, given.workload.phase)  # fmt: skip
    return what, ()


def _real(path: Path) -> tuple[Any, Any]:
    from wingspan.testbed.real import work_of

    what, (notes, _) = _run(path)
    given = load_deployment(path)
    prompts = [(prompt.home_rank, prompt.ids) for prompt in work_of(given, 3).prompts]
    return (*what, prompts, given.options.reserve_share, given.workload.phase), notes


def test_every_field_of_the_schema_is_here(planned):
    keys = set(_leaves(planned.model_dump(mode="json")))
    # A model is held to its checkpoint's, key by key; the version says how the file is read.
    assert keys - {"model", "schema_version"} == set(FIELDS) == set(OTHER)


@pytest.mark.parametrize(("way", "column"), [(_run, 0), (_object, 0), (_server, 0), (_paced, 1), (_real, 2)])
def test_every_field_acts_is_refused_or_said(planned, tmp_path, way, column):
    before = way(_changed(planned, {}, tmp_path / "d.json"))
    wrong = {}
    for field, others in OTHER.items():
        path = _changed(planned, others, tmp_path / "d.json")
        try:
            what, said = way(path)
        except InputError:
            found = REFUSED
        else:
            found = ACTS if what != before[0] else SAID if said != before[1] else "nothing"
        expected = FIELDS[field][column]
        if expected not in (ACTS, REFUSED, SAID):
            expected = "nothing"
        if found != expected:
            wrong[field] = (found, expected)
    assert wrong == {}
