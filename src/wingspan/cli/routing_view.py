"""What `wingspan routing` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.routing.load_summary import LoadSummary
from wingspan.routing.summary import RoutingSummary
from wingspan.routing.trace_file import TraceFile

F = TypeVar("F")
_MOST_LAYERS = 20


def show(summary: RoutingSummary, file: TraceFile, laid_out: str, console: Console) -> None:
    """All tables, in the order of the questions."""
    console.print(f"[bold]{file.path}[/bold]  {file.origin}")
    console.print(
        f"{summary.tokens:,} tokens, {summary.num_layers} MoE layers, top-{summary.top_k} of "
        f"{summary.num_experts} experts, {summary.num_ranks} home ranks "
        f"(tokens per rank, max/mean {summary.source_imbalance:.2f})"
    )
    console.print(f"tokens per expert, max/mean, mean over layers: [bold]{summary.imbalance:.2f}[/bold]\n")
    console.print(_layer_table(summary))
    console.print(
        "[dim]together: co-activation on other pairs than the loads alone would give; drift: load on other "
        f"experts than in the window before ({summary.windows} windows). 0 none, 1 all; in brackets what chance "
        "alone shows in a sample of this size.[/dim]\n"
    )
    console.print(_node_table(summary, laid_out))
    if summary.pairs:
        console.print(_pair_table(summary))


def show_load(summary: LoadSummary, remarks: Sequence[str], path: str, console: Console) -> None:
    """What a load alone says."""
    source = "" if summary.source == path else f"  {summary.source}"
    moments = f", {summary.moments} moments" if summary.moments > 1 else ""
    console.print(f"[bold]{path}[/bold]{source}")
    console.print(
        f"{summary.choices:,.0f} choices, {len(summary.layers)} layers of {summary.num_experts} experts{moments}\n"
        f"tokens per expert, max/mean, mean over layers: [bold]{summary.imbalance:.2f}[/bold]\n"
    )
    drifts = summary.moments > 1
    table = Table(title="by layer", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    names = ("layer", "max/mean", "hottest", "its share", "idle", *(["drift"] if drifts else []))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for figures in _chosen(summary.layers):
        if figures is None:
            table.add_row(*["..."] * len(names))
            continue
        table.add_row(
            str(figures.layer),
            f"{figures.imbalance:.2f}",
            str(figures.hottest_expert),
            f"{figures.hottest_share:.1%}",
            str(figures.idle_experts),
            *([f"{figures.drift or 0:.2f}"] if drifts else []),
        )
    console.print(table)
    for remark in remarks:
        console.print(f"[dim]- {remark}[/dim]")


def _layer_table(summary: RoutingSummary) -> Table:
    table = Table(title="by MoE layer", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("layer", "max/mean", "hottest", "picked by", "idle", "together", "drift"):
        table.add_column(name, justify="right", no_wrap=True)
    for figures in _chosen(summary.layers):
        if figures is None:
            table.add_row(*["..."] * 7)
            continue
        table.add_row(
            str(figures.layer),
            f"{figures.imbalance:.2f}",
            str(figures.hottest_expert),
            f"{figures.hottest_share:.1%}",
            str(figures.idle_experts),
            f"{figures.community:.2f} ({figures.community_by_chance:.2f})",
            f"{figures.drift:.2f} ({figures.drift_by_chance:.2f})",
        )
    return table


def _chosen(layers: list[F]) -> list[F | None]:
    """All layers, or first and last ones with a gap; --json and --html show every one."""
    if len(layers) <= _MOST_LAYERS:
        return list(layers)
    half = _MOST_LAYERS // 2
    return [*layers[:half], None, *layers[-half:]]


def _node_table(summary: RoutingSummary, laid_out: str) -> Table:
    table = Table(
        title=f"different nodes per token and layer, experts {laid_out}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    for name in ("node size", "nodes", "mean", "if uniform", "lowest layer", "highest layer"):
        table.add_column(name, justify="right", no_wrap=True)
    for figures in summary.nodes:
        table.add_row(
            figures.name,
            str(figures.nodes),
            f"{figures.mean:.2f}",
            f"{figures.uniform:.2f}",
            f"{min(figures.mean_per_layer):.2f}",
            f"{max(figures.mean_per_layer):.2f}",
        )
    return table


def _pair_table(summary: RoutingSummary) -> Table:
    table = Table(
        title="pairs picked together more than loads alone give",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    for name in ("layer", "experts", "tokens", "share", "times expected"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in summary.pairs:
        table.add_row(
            str(pair.layer),
            f"{pair.first} + {pair.second}",
            f"{pair.tokens:,}",
            f"{pair.tokens / summary.tokens:.1%}",
            f"{pair.lift:.2f}",
        )
    return table
