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
from wingspan.report.units import parameters_text, thousands
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
        console.print(_choices(plan, price))
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
        console.print(_sizes(plan))
        console.print(_why_this_size(plan))
    console.print()
    console.print(memory_table(plan.shown.report, capacity))
    if plan.breaking_part is not None:
        console.print(f"\nmemory overflows with: [bold]{plan.breaking_part}[/bold]\n")
        console.print(_ways(plan))
    console.print()
    console.print(_batches(plan))
    for remark in routing_remarks(deployment.workload.routing):
        console.print(f"[dim]- {remark}[/dim]")
    if out is not None:
        console.print(f"deployment: {out} (wingspan simulate {out})")


def model_line(model: ModelSpec) -> str:
    """The model's name and size."""
    parameters = model.parameters
    return (
        f"[bold]{model.name}[/bold]: {parameters_text(parameters.total)} parameters, "
        f"{parameters_text(parameters.active)} active; {parameters.moe_layers} MoE layers of "
        f"{parameters.experts_per_layer} experts, top-{parameters.experts_per_token}"
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


def _choices(plan: Plan, price: float | None) -> Table:
    work = plan.shown.deployment.workload
    title = f"{plan.shown.gpus} GPUs, {work.phase}, context {work.context.mean_tokens}: the fastest that fits"
    table = Table(
        box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, title=title, title_justify="left"
    )
    columns = ("groups", "slots\n/GPU", "attn.\nGPUs", "batch\n/GPU", "rows", "schedule", "step\nms")
    unit, divisor = thousands(max(choice.tokens_per_second for choice in plan.choices))
    # Beside a price the total has no room; it is in the CSV.
    last = f"{unit}tokens/s\nall GPUs" if price is None else "price\n/million"
    for column in (*columns, "tokens/s\n/GPU", last, "exp.", "GB"):
        left = column in ("groups", "rows", "schedule")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for choice in plan.choices:
        record = _record(choice, price)
        table.add_row(
            _groups(choice),
            str(record["experts_per_rank"]),
            str(record["attention_ranks"]),
            str(record["tokens_per_gpu"]),
            _rows(choice),
            record["schedule"],
            _milliseconds(record["step_seconds"]),
            f"{record['tokens_per_second_per_gpu']:,.0f}",
            f"{record['tokens_per_second'] / divisor:,.0f}"
            if price is None
            else f"{record['price_per_million_tokens']:.3g}",
            f"{record['exposed_communication_share']:.0%}",
            _gigabytes(record["peak_memory_bytes"]),
            style="bold" if choice is plan.shown else None,
        )
    return table


def _groups(choice: DeploymentChoice) -> str:
    """EP 36 x 2: two groups side by side."""
    beside = choice.gpus // choice.report.ranks
    return choice.deployment.layout.replace(" x ", " ") + (f" x {beside}" if beside > 1 else "")


def _rows(choice: DeploymentChoice) -> str:
    """How rows travel; none do where one group shares all experts."""
    if choice.deployment.placement.ranks == 1 < choice.report.ranks:
        return "-"
    return "hier." if choice.deployment.dispatcher is DispatcherKind.HIERARCHICAL else "flat"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def _gigabytes(size_bytes: float) -> str:
    """Four characters up to a terabyte."""
    return f"{size_bytes / 1e9:.{1 if size_bytes < 99.95e9 else 0}f}"


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


def _sizes(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for column in ("tokens per GPU", "step ms", "tokens/s/GPU", "of most"):
        table.add_column(column, justify="right", no_wrap=True)
    most = plan.sizes[0].tokens_per_second_per_gpu
    for choice in plan.sizes:
        rate = choice.tokens_per_second_per_gpu
        table.add_row(
            f"{choice.deployment.workload.tokens_per_gpu:,}",
            _milliseconds(choice.report.step_seconds),
            f"{rate:,.0f}",
            f"{rate / most:.0%}",
            style="bold" if choice is plan.shown else None,
        )
    return table


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
