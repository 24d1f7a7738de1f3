"""`wingspan doctor`: what this machine offers, and what each missing thing costs."""

from __future__ import annotations

from typing import Annotated

import typer

from wingspan.writing import json_text


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False,
) -> None:
    """Say what this machine offers a run: devices, backends, network, MPI, shared memory.

    Examples:

      wingspan doctor

      wingspan doctor --json
    """
    from dataclasses import asdict

    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from wingspan.cli.console import Console
    from wingspan.runtime.measuring.machine import examine

    findings = examine()
    if as_json:
        print(json_text([asdict(finding) for finding in findings]))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("found")
    table.add_column("if missing")
    for finding in findings:
        found = escape(finding.found) or "[yellow]missing[/yellow]"
        table.add_row(finding.name, found, "" if finding.found else escape(finding.costs))
    Console(highlight=False).print(table)
