"""What `wingspan place` prints."""

from __future__ import annotations

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.placement.compare import Comparison
from wingspan.placement.topology import Topology
from wingspan.report.units import bytes_text, seconds_text


def show(result: Comparison, about: str, on: str, topology: Topology, console: Console) -> None:
    """The table of strategies, what its columns are, and the advice."""
    some = next(iter(result.placements.values()))
    console.print(f"[bold]{about}[/bold]")
    console.print(
        f"{on}: {some.num_layers} MoE layers of {some.num_experts} experts on {topology.ranks} ranks x "
        f"{some.slots_per_rank} {'slot' if some.slots_per_rank == 1 else 'slots'}, {topology.nodes} nodes; "
        f"planned from {result.planned_tokens:,} tokens, scored on the {result.scored_tokens:,} after them "
        f"in steps of {result.step_tokens:,.0f}"
    )
    console.print(_table(result, topology))
    dispatcher = "once per node" if topology.once_per_node else "once per expert"
    console.print(
        f"[dim]max/mean: tokens per rank, per layer, then mean over layers. across: between nodes, out and back, rows "
        f"sent {dispatcher}. card: the fullest network card of each layer, added up. step: fullest rank's experts + "
        "fullest link of each layer, no overlap, no attention.[/dim]"
    )
    for name, count in result.eplb_twins.items():
        if count:
            console.print(
                f"[dim]{name}: the rule put {count} replicas on ranks that hold their expert already; "
                "those slots count as empty.[/dim]"
            )
    for line in result.advice:
        console.print(line)


def _table(result: Comparison, topology: Topology) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    moved = any(score.experts_moved is not None for score in result.scores.values())
    table.add_column("strategy", no_wrap=True)
    for name in ("max/mean", "across", "card", "experts", "links", "step", *(["moved"] if moved else [])):
        table.add_column(name, justify="right", no_wrap=True)
    fastest = min(score.step_seconds for score in result.scores.values())
    across = "across_deduplicated_bytes" if topology.once_per_node else "across_flat_bytes"
    for name, score in result.scores.items():
        step = seconds_text(score.step_seconds)
        table.add_row(
            name,
            f"{score.imbalance:.3f}",
            bytes_text(getattr(score, across)),
            bytes_text(score.busiest_card_bytes),
            seconds_text(score.compute_seconds),
            seconds_text(score.link_seconds),
            f"[bold]{step}[/bold]" if score.step_seconds <= fastest * 1.001 else step,
            *([str(score.experts_moved)] if moved else []),
        )
    return table
