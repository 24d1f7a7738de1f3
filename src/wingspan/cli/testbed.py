"""`wingspan testbed`: a real multi-node network on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from wingspan.cli.option_rules import CheckedCommand

app = typer.Typer(
    name="testbed",
    help="A real multi-node network on this Linux machine: namespaces as nodes, a switch, shaped links.",
    no_args_is_help=True,
)

NameOption = Annotated[str, typer.Option("--name", help="Which testbed; several can stand side by side.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


@app.command(cls=CheckedCommand)
def up(
    nodes: Annotated[int, typer.Option(help="Nodes: network namespaces on one switch.")] = 4,
    ranks_per_node: Annotated[int, typer.Option(help="Ranks that share a node and its link.")] = 4,
    link_rate: Annotated[str, typer.Option(help="Each node's link, each way, as tc writes it.")] = "400mbit",
    group_uplink: Annotated[
        str | None, typer.Option(help="Oversubscription: the one link of a group of nodes to the others.")
    ] = None,
    nodes_per_group: Annotated[int | None, typer.Option(help="Nodes behind one such uplink.")] = None,
    name: NameOption = "default",
) -> None:
    """Build a testbed (needs root).

    Examples:

      wingspan testbed up --nodes 4 --ranks-per-node 4 --link-rate 400mbit

      wingspan testbed up --name slow --nodes 4 --link-rate 1gbit --group-uplink 500mbit --nodes-per-group 2
    """
    from wingspan.cli import testbed_view as view
    from wingspan.testbed import layout, network

    plan = layout.make_layout(name, nodes, ranks_per_node, link_rate, group_uplink, nodes_per_group)
    network.up(plan)
    view.show_up(plan)


@app.command(
    cls=CheckedCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def run(
    command: Annotated[list[str], typer.Argument(help="-- and a command, such as: wingspan run ...")],
    name: NameOption = "default",
) -> None:
    """Run a command with its ranks spread over the nodes, and count each link's bytes.

    What the command prints goes through; the table of bytes follows on stderr. The exit code is the command's.

    Examples:

      wingspan testbed run -- wingspan run models/tiny --experts-per-rank 1 --prompt "def main():"

      wingspan testbed run --name slow -- wingspan run models/tiny --dispatcher hierarchical --prompt "import "
    """
    import os

    from wingspan.cli import testbed_view as view
    from wingspan.testbed import command as commands
    from wingspan.testbed import network

    outcome = commands.run(network.get(name), command, os.environ)
    view.show_outcome(outcome)
    raise typer.Exit(outcome.exit_code)


@app.command(cls=CheckedCommand)
def down(
    name: NameOption = "default",
    everything: Annotated[bool, typer.Option("--all", help="All testbeds of this machine.")] = False,
) -> None:
    """Remove a testbed and end what runs in it, also after a crash: what is left is found in the kernel."""
    from wingspan.cli import testbed_view as view
    from wingspan.testbed import network

    for each in [found.name for found in network.find()] if everything else [name]:
        view.show_down(each, network.down(each))


@app.command(cls=CheckedCommand)
def status(as_json: JsonOption = False) -> None:
    """Show the testbeds that are up, what runs in them, and their links' counters."""
    from wingspan.cli import testbed_view as view
    from wingspan.testbed import counters, network

    found = network.find()
    links = {f.name: counters.read(f.layout) for f in found if f.layout is not None}
    if as_json:
        view.print_json(found, links)
    else:
        view.show_status(found, links)
