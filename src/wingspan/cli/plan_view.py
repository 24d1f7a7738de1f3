"""What a person sees of a plan."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.cli.simulate_view import describe, fit_line, memory_table
from wingspan.deployment import Deployment
from wingspan.report.columns import Column, aligned, counts_column, price_columns, seconds_column, table
from wingspan.report.units import parameters_text
from wingspan.schedule.price import price_per_million_tokens
from wingspan.simulate.group_search import MOST_PREFILL
from wingspan.simulate.knee import ENOUGH
from wingspan.simulate.planning import Plan
from wingspan.simulate.search import DeploymentChoice
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import routing_remarks
from wingspan.writing import json_text


def show(plan: Plan, out: Path | None, price: float | None = None) -> None:
    """The choices, then the best one's memory, or the ways out."""
    console = Console(highlight=False)
    deployment = plan.shown.deployment
    console.print(model_line(deployment.model))
    if plan.choices:
        console.print(f"{plan.shown.gpus} GPUs, {_work(deployment)}: the fastest that fits")
        console.print(_choices(plan, price, console.width))
        console.print()
        groups = plan.shown.gpus // deployment.ranks
        beside = f"{groups} groups side by side, each " if groups > 1 else ""
        console.print(f"[bold]best:[/bold] {beside}" + describe(deployment))
    else:
        console.print(
            "[red]nothing fits[/red]; as asked, at the EP size that comes closest:\n" + describe(deployment)
        )
    capacity = deployment.cluster.gpu.memory_bytes
    console.print(fit_line(plan.shown.report, capacity))
    if plan.sizes:
        console.print()
        console.print(_sizes(plan, console.width))
        console.print(_why_this_size(plan))
    console.print()
    console.print(memory_table(plan.shown.report, capacity))
    if plan.breaking_part is not None:
        console.print(f"\nmemory overflows with: [bold]{plan.breaking_part}[/bold]\n")
        console.print(_ways(plan))
    console.print()
    console.print(_batches(plan))
    for remark in (
        *deployment.model.remarks,
        *deployment.precisions.remarks,
        *routing_remarks(deployment.workload.routing),
    ):
        console.print(f"[dim]- {remark}[/dim]")
    if out is not None:
        console.print(f"deployment: {out} (wingspan simulate {out})")


def _work(deployment: Deployment) -> str:
    return f"{deployment.workload.phase}, context {deployment.workload.context.mean_tokens}"


def model_line(model: ModelSpec) -> str:
    """The model's name and size."""
    parameters, shared = model.parameters, model.experts.shared_slots
    return (
        f"[bold]{model.name}[/bold]: {parameters_text(parameters.total)} parameters, "
        f"{parameters_text(parameters.active)} active; {parameters.moe_layers} MoE layers of "
        f"{parameters.experts_per_layer} experts, top-{parameters.experts_per_token}"
        + (f", {shared} of them shared" if shared else "")
    )


def to_json(plan: Plan, price: float | None = None) -> str:
    """Everything, as one object."""
    parameters = plan.shown.deployment.model.parameters
    rank = plan.shown.report.peak_memory_bytes.index(max(plan.shown.report.peak_memory_bytes))
    return json_text(
        {
            "model": plan.shown.deployment.model.name,
            "parameters": {"total": parameters.total, "active": parameters.active, **parameters.model_dump()},
            "choices": [_record(choice, price) for choice in plan.choices],
            "best": _record(plan.shown, price) if plan.choices else None,
            "fits": plan.breaking_part is None,
            "breaking_part": plan.breaking_part,
            "memory_bytes": {part: sizes[rank] for part, sizes in plan.shown.report.memory_bytes.items()},
            "precision": plan.shown.deployment.precisions.model_dump(mode="json"),
            "remarks": list(plan.shown.deployment.model.remarks),
            "gpu_memory_bytes": plan.shown.deployment.cluster.gpu.memory_bytes,
            "largest_batch_by_context": plan.batches,
            "batches_of_the_best": [_record(choice, price) for choice in plan.sizes],
            "ways_out": [
                {
                    "change": way.text,
                    "kind": way.kind,
                    "peak_memory_bytes": way.peak_bytes,
                    "tokens_per_second_per_gpu": way.tokens_per_second_per_gpu,
                    "cost": way.cost,
                }
                for way in plan.ways
            ],
        }
    )


def print_csv(plan: Plan, price: float | None = None) -> None:
    """One line per EP size."""
    records = [_record(choice, price) for choice in plan.choices]
    if records:
        out = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(records)


def _record(choice: DeploymentChoice, price: float | None = None) -> dict[str, Any]:
    report, options = choice.report, choice.deployment.options
    rate = choice.tokens_per_second_per_gpu
    priced = {} if price is None else {"price_per_million_tokens": price_per_million_tokens(price, rate)}
    return priced | {
        "ranks": report.ranks,
        "experts_per_rank": report.experts_per_rank,
        "placement": choice.deployment.placement.strategy.value,
        "attention_ranks": options.attention_ranks,
        "expert_tensor_parallel": options.expert_tensor_parallel,
        "tokens_per_gpu": choice.deployment.workload.tokens_per_gpu,
        "dispatcher": choice.deployment.dispatcher.value,
        "schedule": report.schedule,
        "step_seconds": report.step_seconds,
        "relative_error": report.relative_error,
        "tokens_per_second_per_gpu": choice.tokens_per_second_per_gpu,
        "tokens_per_second": choice.tokens_per_second,
        "exposed_communication_share": report.overhead,
        "peak_memory_bytes": max(report.peak_memory_bytes),
    }


def _choices(plan: Plan, price: float | None, width: int) -> Table:
    """A row for each layout; where they find no room, first the rate of all GPUs is left to the CSV."""
    choices = plan.choices
    reports = [choice.report for choice in choices]
    step_unit, steps = seconds_column([report.step_seconds for report in reports])
    rate_unit, rates = counts_column([choice.tokens_per_second_per_gpu for choice in choices], widest=7)
    total_unit, totals = counts_column([choice.tokens_per_second for choice in choices], widest=7)
    prices = [
        None if price is None else price_per_million_tokens(price, choice.tokens_per_second_per_gpu)
        for choice in choices
    ]
    columns = [
        Column("groups", [_groups(choice) for choice in choices], words=True),
        Column("slots\n/GPU", [str(report.experts_per_rank) for report in reports]),
        Column("attn.\nGPUs", [str(choice.deployment.options.attention_ranks) for choice in choices]),
        Column("batch\n/GPU", [str(choice.deployment.workload.tokens_per_gpu) for choice in choices]),
        Column("rows", [_rows(choice) for choice in choices], words=True, spared=1),
        Column("schedule", [report.schedule for report in reports], words=True),
        Column(f"step\n{step_unit}", steps),
        Column(f"{rate_unit}tokens/s\n/GPU", rates),
        Column(f"{total_unit}tokens/s\nall GPUs", totals, spared=2),
        *price_columns("price\n/million", prices),
        Column("exp.", [f"{report.overhead:.0%}" for report in reports]),
        Column("GB", aligned([max(report.peak_memory_bytes) / 1e9 for report in reports], widest=5)),
    ]
    return table(columns, ["bold" if choice is plan.shown else None for choice in choices], width)


def _groups(choice: DeploymentChoice) -> str:
    """EP 36 x 2: two groups side by side."""
    beside = choice.gpus // choice.report.ranks
    return choice.deployment.layout.replace(" x ", " ") + (f" x {beside}" if beside > 1 else "")


def _rows(choice: DeploymentChoice) -> str:
    """How rows travel; none do where one group shares all experts."""
    if choice.deployment.placement.ranks == 1 < choice.report.ranks:
        return "-"
    return "hier." if choice.deployment.dispatcher is DispatcherKind.HIERARCHICAL else "flat"


def _ways(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("cheapest ways out", max_width=41)
    table.add_column("changes", no_wrap=True)
    for column in ("GB", "tokens/s/GPU"):
        table.add_column(column, justify="right", no_wrap=True)
    shown = plan.shown
    _way(table, "(as asked, were there room)", "", shown.peak_bytes, shown.tokens_per_second_per_gpu)
    for way in plan.ways:
        _way(table, way.text, way.changes, way.peak_bytes, way.tokens_per_second_per_gpu)
    if not plan.ways:
        table.add_row("none found: no change of one or two settings fits", "", "", "")
    return table


def _way(table: Table, text: str, changed: str, peak_bytes: float, rate: float) -> None:
    table.add_row(text, changed, f"{peak_bytes / 1e9:.1f}", f"{rate:,.0f}")


def _sizes(plan: Plan, width: int) -> Table:
    rates = [choice.tokens_per_second_per_gpu for choice in plan.sizes]
    unit, steps = seconds_column([choice.report.step_seconds for choice in plan.sizes])
    columns = [
        Column("tokens\n/GPU", [f"{choice.deployment.workload.tokens_per_gpu:,}" for choice in plan.sizes]),
        Column(f"step\n{unit}", steps),
        Column("tokens/s\n/GPU", aligned(rates, widest=7)),
        Column("\nof most", [f"{rate / rates[0]:.0%}" for rate in rates]),
    ]
    return table(columns, ["bold" if choice is plan.shown else None for choice in plan.sizes], width)


def _why_this_size(plan: Plan) -> str:
    largest = plan.sizes[0].deployment.workload.tokens_per_gpu
    if largest >= MOST_PREFILL:
        limit = "larger ones are not tried"
    else:
        limit = (
            "memory holds no more" if largest in plan.batches.values() else "more do not fit, or gain nothing"
        )
    return (
        f"A prompt waits for a step, so of a batch and its halves the smallest with {ENOUGH:.0%} of the tokens/s is "
        f"taken; {largest:,}: {limit}. Limits: --longest-step-ms, or --ttft for requests."
    )


def _batches(plan: Plan) -> Table:
    unit = "sequences" if plan.shown.deployment.workload.phase == "decode" else "tokens"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("context", justify="right")
    table.add_column(f"most {unit} per GPU that fit", justify="right")
    for context, batch in plan.batches.items():
        short = unit == "tokens" and batch < context
        table.add_row(f"{context:,}", f"none: a prompt is longer than {batch:,}" if short else f"{batch:,}")
    return table
