"""What `wingspan place` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.deployment import Deployment
from wingspan.interop.export import Written
from wingspan.placement.objective import Objective
from wingspan.report.columns import bytes_column, seconds_column
from wingspan.simulate.placing import Comparison


def show(
    result: Comparison,
    about: str,
    remarks: Sequence[str],
    deployment: Deployment,
    objective: Objective,
    console: Console,
) -> None:
    """The table of strategies, what its columns are, the advice, and what the routing leaves undecided."""
    on = f"{deployment.model.name} on {deployment.cluster.name}"
    some = next(iter(result.placements.values()))
    console.print(f"[bold]{about}[/bold]")
    workload = deployment.workload
    nodes = "1 node" if objective.nodes == 1 else f"{objective.nodes} nodes"
    console.print(
        f"{on}: {some.num_layers} MoE layers of {some.num_experts} experts on {objective.ranks} ranks x "
        f"{some.slots_per_rank} {'slot' if some.slots_per_rank == 1 else 'slots'}, {nodes}; "
        f"{workload.phase}, {workload.tokens_per_gpu:,} tokens per GPU at context {workload.context.mean_tokens:,}, "
        f"dispatcher {deployment.dispatcher}, schedule {deployment.build_schedule().name}; planned from "
        f"{result.planned_tokens:,} of {result.trace_tokens:,} tokens"
    )
    console.print(_table(result))
    console.print(
        "[dim]max/mean: tokens per rank, per layer, then mean over layers. across: bytes between nodes. "
        "card: the fullest network card of each layer, added up. experts: fullest rank. links: dispatch and combine. "
        "step: all of it, attention and overlap included, as simulate predicts it.[/dim]"
    )
    for name, count in result.eplb_twins.items():
        if count:
            console.print(
                f"[dim]{name}: the rule put {count} replicas on ranks that hold their expert already; "
                "those slots count as empty.[/dim]"
            )
    console.print(f"[dim]{result.judged_on}[/dim]")
    for line in result.advice:
        console.print(line)
    for remark in remarks:
        console.print(f"[dim]- {remark}[/dim]")


def show_export(placement: str, engine: str, path: Path, written: Written) -> None:
    """What was written for an engine, and the command line that uses it."""
    filled = written.filled_slots
    slots = "1 empty slot" if filled == 1 else f"{filled:,} empty slots"
    more = f"; {slots} got a replica, since {engine} knows no empty one" if filled else ""
    print(
        f"{placement} written to {path} for {engine}; reads back as the same placement{more}\n{written.command}"
    )


def _table(result: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    moved = any(score.experts_moved is not None for score in result.scores.values())
    table.add_column("strategy", no_wrap=True)
    scores = [*result.scores.values()]
    figures = {
        "across": bytes_column([score.across_bytes for score in scores]),
        "card": bytes_column([score.busiest_card_bytes for score in scores]),
        "experts": seconds_column([score.experts_seconds for score in scores]),
        "links": seconds_column([score.exchanges_seconds for score in scores]),
        "step": seconds_column([score.step_seconds for score in scores]),
    }
    heads = [f"{name}\n{unit}" for name, (unit, _) in figures.items()]
    for name in ("max/mean", *heads, *(["moved"] if moved else [])):
        table.add_column(name, justify="right", no_wrap=True)
    fastest = min(score.step_seconds for score in scores)
    rows = zip(
        result.scores.items(), zip(*(texts for _, texts in figures.values()), strict=True), strict=True
    )
    for (name, score), (*texts, step) in rows:
        table.add_row(
            name,
            f"{score.imbalance:.3f}",
            *texts,
            f"[bold]{step}[/bold]" if score.step_seconds <= fastest * 1.001 else step,
            *([f"{score.experts_moved:,}"] if moved else []),
        )
    return table
