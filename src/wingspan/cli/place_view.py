"""What `wingspan place` prints."""

from __future__ import annotations

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.deployment import Deployment
from wingspan.placement.objective import Objective
from wingspan.report.units import bytes_text, seconds_text
from wingspan.simulate.placing import Comparison


def show(
    result: Comparison, about: str, on: str, deployment: Deployment, objective: Objective, console: Console
) -> None:
    """The table of strategies, what its columns are, and the advice."""
    some = next(iter(result.placements.values()))
    console.print(f"[bold]{about}[/bold]")
    workload = deployment.workload
    console.print(
        f"{on}: {some.num_layers} MoE layers of {some.num_experts} experts on {objective.ranks} ranks x "
        f"{some.slots_per_rank} {'slot' if some.slots_per_rank == 1 else 'slots'}, {objective.nodes} nodes; "
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
    console.print("[dim]On the later half of the trace, which no plan has seen:[/dim]")
    for line in result.advice:
        console.print(line)


def _table(result: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    moved = any(score.experts_moved is not None for score in result.scores.values())
    table.add_column("strategy", no_wrap=True)
    for name in ("max/mean", "across", "card", "experts", "links", "step", *(["moved"] if moved else [])):
        table.add_column(name, justify="right", no_wrap=True)
    fastest = min(score.step_seconds for score in result.scores.values())
    for name, score in result.scores.items():
        step = seconds_text(score.step_seconds)
        table.add_row(
            name,
            f"{score.imbalance:.3f}",
            bytes_text(score.across_bytes),
            bytes_text(score.busiest_card_bytes),
            seconds_text(score.experts_seconds),
            seconds_text(score.exchanges_seconds),
            f"[bold]{step}[/bold]" if score.step_seconds <= fastest * 1.001 else step,
            *([str(score.experts_moved)] if moved else []),
        )
    return table
