"""The `wingspan` command: its commands, and how an error becomes one line and an exit code.

Command files import only typer at their top and the work inside the command, so that `wingspan --help`
starts at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from wingspan import __version__
from wingspan.cli import testbed
from wingspan.cli.calibrate import calibrate
from wingspan.cli.claims import claims
from wingspan.cli.compare import compare
from wingspan.cli.create import create
from wingspan.cli.diff import diff
from wingspan.cli.doctor import doctor
from wingspan.cli.export import export
from wingspan.cli.import_ import import_
from wingspan.cli.inspect import inspect
from wingspan.cli.place import place
from wingspan.cli.plan import plan
from wingspan.cli.record import record
from wingspan.cli.routing import routing
from wingspan.cli.run import run
from wingspan.cli.serving import serving
from wingspan.cli.simulate import simulate
from wingspan.cli.sweep import sweep
from wingspan.cli.synthesize import synthesize
from wingspan.cli.validate import validate
from wingspan.errors import WingspanError

app = typer.Typer(
    name="wingspan",
    help="Plan, predict, run and compare wide expert parallelism: one expert per GPU per layer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wingspan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
    ),
) -> None: ...


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Plan and predict": (plan, simulate, sweep, serving, claims, diff, validate),
    "Run": (run, compare, inspect, create, doctor, calibrate),
    "Routing and placement": (record, routing, synthesize, place, export),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("import", rich_help_panel="Routing and placement")(import_)
app.add_typer(testbed.app, rich_help_panel="Run")


def main() -> None:
    """Run the command line; every foreseen failure ends as one line on stderr and its exit code."""
    try:
        app()
    except WingspanError as error:
        print(f"wingspan: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (`head`, a pager) left; keep the interpreter's flush at exit from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("wingspan: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
