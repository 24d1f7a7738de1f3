"""The page of `run --html`: what the report needs to know of a run, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.report.page import write_page
from wingspan.report.run_page import run_page

if TYPE_CHECKING:
    from wingspan.runtime.api import RunRequest, RunResult


def write_run(result: RunResult, request: RunRequest, path: Path) -> None:
    """The run's page: its decode steps, or its prefill where each prompt got one token."""
    prefill = result.prefill if result.decode is not None else None
    page = run_page(result.report, prefill, result.timeline, result.rebalance, _conditions(result, request))
    write_page(page, path)


def _conditions(result: RunResult, request: RunRequest) -> dict[str, str]:
    """What a reader must know of a run to trust its figures."""
    engine = request.engine
    model, placement, dispatch = engine.model, engine.placement, engine.dispatch
    ids = [len(output.prompt_ids) for output in result.outputs]
    new = sum(len(output.token_ids) for output in result.outputs)
    sampling = f"temperature {request.sampling.temperature:g}" if request.sampling.temperature else "greedy"
    schedules = {phase: flow.name for phase, flow in engine.flows.items()} or {"decode": "sequential"}
    alike = len(set(schedules.values())) == 1
    return {
        "Model": f"{model.folder.resolve().name}: {len(model.shape.paths)} layers with {model.shape.num_experts} "
        f"experts, top-{model.shape.top_k}; {str(model.dtype).removeprefix('torch.')}",
        "Ranks": f"{placement.num_ranks}, computing on {engine.device.type}",
        "Placement": f"{placement.slots_per_rank} per rank and layer",
        "Prompts": f"{len(ids)} of {min(ids)} to {max(ids)} tokens; {new} new tokens, {sampling}",
        "Schedule": next(iter(schedules.values()))
        if alike
        else ", ".join(f"{phase} {name}" for phase, name in schedules.items()),
        "Rows travel": f"{dispatch.plugin or dispatch.kind or 'by the dispatcher that sends least'}, "
        f"{'as computed' if dispatch.precision == 'same' else dispatch.precision}",
        "Live balancing": "off" if result.rebalance is None else "on",
    }
