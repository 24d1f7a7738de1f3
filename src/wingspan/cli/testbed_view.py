"""How `wingspan testbed` shows testbeds and their traffic."""

from __future__ import annotations

import sys
from dataclasses import asdict

from rich.table import Table

from wingspan.cli.console import Console
from wingspan.testbed.command import Outcome
from wingspan.testbed.counters import LinkCount
from wingspan.testbed.layout import Layout, show_rate
from wingspan.testbed.network import FoundTestbed
from wingspan.writing import json_text


def show_up(layout: Layout) -> None:
    """What was built, and what to do with it."""
    name = "" if layout.name == "default" else f" --name {layout.name}"
    print(f"testbed {layout.name} is up: {describe(layout)}")
    print(f"  wingspan testbed run{name} -- wingspan run models/tiny --prompt 'def main():'")
    print(f"  wingspan testbed down{name}")


def show_down(name: str, namespaces: list[str]) -> None:
    """What was removed."""
    if namespaces:
        print(f"testbed {name} removed: {len(namespaces)} network namespaces")
    else:
        print(f"testbed {name} is not up; nothing to remove")


def show_outcome(outcome: Outcome) -> None:
    """Each node's bytes beside what the runtime says it sent, on stderr: stdout is the command's."""
    table = Table(title="Bytes through each node's link (kernel counters, MB = 1e6 bytes)")
    for heading in ("node", "sent MB", "received MB", "packets sent"):
        table.add_column(heading, justify="right")
    if outcome.reconciled:
        table.add_column("rows sent MB", justify="right")
        table.add_column("kernel / rows", justify="right")
    for node, link in enumerate(outcome.links):
        cells = [str(node), _mb(link.sent_bytes), _mb(link.received_bytes), f"{link.sent_packets:,}"]
        if outcome.reconciled:
            pair = outcome.reconciled[node]
            cells += [_mb(pair.rows_bytes), "-" if pair.ratio is None else f"{pair.ratio:.3f}"]
        table.add_row(*cells)
    # At least so wide that no column is cut where stderr is a file.
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 100)
    console.print(table)
    total = sum(link.sent_bytes for link in outcome.links)
    if outcome.reconciled:
        console.print(
            "rows: hidden states that the runtime says it sent to other nodes. Above 1: headers, acknowledgements, "
            "counts, and what the run gathers outside its steps.",
            style="dim",
        )
    elif not total and not outcome.exit_code:
        console.print("nothing crossed a link: the command started no ranks in the nodes")
    console.print(f"{outcome.seconds:.1f} s, {_mb(total)} MB in all", highlight=False)


def show_status(found: list[FoundTestbed], links: dict[str, list[LinkCount]]) -> None:
    """One line per testbed, one row per node."""
    if not found:
        print("no testbed is up; wingspan testbed up --nodes 4 --ranks-per-node 4 --link-rate 400mbit")
    for testbed in found:
        state = describe(testbed.layout) if testbed.layout else "incomplete; remove it with down"
        print(f"testbed {testbed.name}: {state}; {len(testbed.processes)} processes in it")
        for node, link in enumerate(links.get(testbed.name, ())):
            print(f"  node {node}: {_mb(link.sent_bytes)} MB sent, {_mb(link.received_bytes)} MB received")


def print_json(found: list[FoundTestbed], links: dict[str, list[LinkCount]]) -> None:
    """Print the testbeds and their links as JSON."""
    rows = [
        {
            "name": testbed.name,
            "layout": testbed.layout.model_dump() if testbed.layout else None,
            "namespaces": testbed.namespaces,
            "processes": testbed.processes,
            "links": [asdict(link) for link in links.get(testbed.name, ())],
        }
        for testbed in found
    ]
    print(json_text({"testbeds": rows}))


def describe(layout: Layout) -> str:
    """A layout in words."""
    text = f"{layout.nodes} nodes x {layout.ranks_per_node} ranks, links of {show_rate(layout.rate_bits)}"
    if layout.uplink_bits is None:
        return text
    return f"{text}, groups of {layout.nodes_per_group} nodes behind {show_rate(layout.uplink_bits)}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.3f}"
