"""What `wingspan routing` does: a trace or a load in figures, on the terminal, as JSON and as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wingspan.cli import routing_view
from wingspan.cli.console import Console
from wingspan.cli.values import integers
from wingspan.placement.trace_summary import placed_in_order, summarise_trace
from wingspan.placement_file import read_placement
from wingspan.routing.load_file import read_load
from wingspan.routing.load_summary import summarise_load
from wingspan.routing.trace_file import TraceFile
from wingspan.specs.routing_text import LOADS_ALONE
from wingspan.writing import json_text


@dataclass(frozen=True)
class RoutingOutput:
    """Where results go, and as what."""

    html: Path | None
    as_json: bool

    def say_page(self) -> None:
        """Name the page to a person."""
        if not self.as_json:
            print(f"page: {self.html} (open in a browser)")


def show_trace(
    path: Path,
    shown: RoutingOutput,
    *,
    placement: Path | None,
    ranks: int | None,
    ranks_per_node: str,
    windows: int,
    pairs: int,
) -> None:
    """All figures of a routing trace; raises `WingspanError` where that fails."""
    file = TraceFile.open(path)
    sizes = integers(ranks_per_node, "--ranks-per-node")
    if placement is None:
        placed = placed_in_order(file, ranks)
        laid_out = f"in order over {placed.num_ranks} ranks"
    else:
        placed, laid_out = read_placement(placement).placement, f"as {placement} places them"
    summary, counts = summarise_trace(file, placed, sizes, windows=windows, pairs=pairs)
    if shown.as_json:
        about = {"trace": str(file.path), "origin": file.origin, "experts_lie": laid_out}
        print(json_text(about | summary.to_dict()), flush=True)
    else:
        routing_view.show(summary, file, laid_out, Console(highlight=False))
    if shown.html is not None:
        from wingspan.report.routing_page import write_routing_page

        write_routing_page(summary, counts, file, laid_out, shown.html)
        shown.say_page()


def show_load(path: Path, shown: RoutingOutput) -> None:
    """All figures of a load; raises `WingspanError` where that fails."""
    load = read_load(path)
    summary, remarks = summarise_load(load), (LOADS_ALONE, *load.remarks)
    if shown.as_json:
        print(json_text(summary.to_dict() | {"remarks": remarks}), flush=True)
    else:
        routing_view.show_load(summary, remarks, str(path), Console(highlight=False))
    if shown.html is not None:
        from wingspan.report.load_page import write_load_page

        write_load_page(summary, load, remarks, shown.html)
        shown.say_page()
