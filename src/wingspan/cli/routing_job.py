"""The work behind `wingspan routing`: read the trace, count, show."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wingspan.cli.console import Console
from wingspan.cli.routing_view import show, show_load
from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.placement_file import read_placement
from wingspan.routing.load_file import read_load
from wingspan.routing.load_summary import summarise_load
from wingspan.routing.statistics import collect
from wingspan.routing.summary import summarise
from wingspan.routing.trace_file import TraceFile, is_trace
from wingspan.specs.placement import Placement
from wingspan.specs.routing_text import LOADS_ALONE
from wingspan.writing import json_text


@dataclass(frozen=True)
class RoutingArguments:
    """The command line of `wingspan routing`."""

    trace: Path
    ranks_per_node: str
    ranks: int | None
    placement: Path | None
    windows: int
    pairs: int
    html: Path | None
    as_json: bool


def execute(arguments: RoutingArguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    if arguments.trace.suffix != ".parquet" or not is_trace(arguments.trace):
        _execute_load(arguments)
        return
    file = TraceFile.open(arguments.trace)
    if not file.num_tokens:
        raise InputError(f"{arguments.trace}: the trace holds no token; there is nothing to show")
    rank_LE, laid_out = _rank_of_experts(arguments, file)
    node_maps = {f"{size} ranks a node": rank_LE // size for size in _sizes(arguments.ranks_per_node)}
    counts = collect(file.chunks(), file.num_tokens, num_windows=arguments.windows, nodes=node_maps)
    summary = summarise(counts, node_maps, arguments.pairs)
    if arguments.as_json:
        about = {"trace": str(file.path), "origin": file.origin, "experts_lie": laid_out}
        print(json_text(about | summary.to_dict()), flush=True)
    else:
        show(summary, file, laid_out, Console(highlight=False))
    if arguments.html is not None:
        from wingspan.report.routing_page import write_routing_page

        write_routing_page(summary, counts, file, laid_out, arguments.html)
        if not arguments.as_json:
            print(f"page: {arguments.html} (open in a browser)")


def _execute_load(arguments: RoutingArguments) -> None:
    usual = RoutingArguments(arguments.trace, "8", None, None, 8, 8, None, arguments.as_json)
    for field in fields(usual):
        given = getattr(arguments, field.name)
        if given != getattr(usual, field.name):
            raise InputError(
                f"`{field.name}` {given}: {arguments.trace} holds loads alone; it needs a routing trace"
            )
    load = read_load(arguments.trace)
    summary = summarise_load(load)
    if arguments.as_json:
        print(json_text(summary.to_dict() | {"remarks": (LOADS_ALONE, *load.remarks)}), flush=True)
    else:
        show_load(summary, (LOADS_ALONE, *load.remarks), str(arguments.trace), Console(highlight=False))


def _rank_of_experts(arguments: RoutingArguments, file: TraceFile) -> tuple[NDArray[np.int64], str]:
    """The rank of each expert (L, E), and in words how they lie."""
    if arguments.placement is not None:
        placement = read_placement(arguments.placement).placement
        if (placement.num_layers, placement.num_experts) != (file.num_layers, file.num_experts):
            raise InputError(
                f"{arguments.placement}: {placement.num_layers} layers of {placement.num_experts} experts, the trace "
                f"has {file.num_layers} of {file.num_experts}"
            )
        return first_ranks(placement), f"as {arguments.placement} places them"
    ranks = file.num_experts if arguments.ranks is None else arguments.ranks
    if ranks < 1:
        raise InputError(f"--ranks {ranks}: use 1 or more")
    slots = -(-file.num_experts // ranks)
    return first_ranks(linear(file.num_layers, file.num_experts, ranks, slots)), (
        f"in order over {ranks} ranks"
    )


def first_ranks(placement: Placement) -> NDArray[np.int64]:
    """The rank of each expert's first replica: (L, E)."""
    rank_LE = np.empty((placement.num_layers, placement.num_experts), dtype=np.int64)
    layer, rank, slot = np.nonzero(placement.slots_LRS >= 0)
    # Written from the last to the first, so that the first stays.
    rank_LE[layer[::-1], placement.slots_LRS[layer, rank, slot][::-1]] = rank[::-1]
    return rank_LE


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--ranks-per-node {text!r}: expected whole numbers with commas, as 4,8") from None
    if min(sizes) < 1:
        raise InputError(f"--ranks-per-node {text}: use 1 or more")
    return sizes
