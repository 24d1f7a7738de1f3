"""`wingspan diff`: what two deployment files do not have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wingspan.writing import json_text


def diff(
    first: Annotated[Path, typer.Argument(help="A deployment file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="A list of {key, first, second}.")] = False,
) -> None:
    """Show every value in which two deployments differ; exit code 1 if there are any, as `diff` does.

    Example:

      wingspan diff one-per-gpu.json eight-per-gpu.json
    """

    from rich import box
    from rich.table import Table

    from wingspan.cli.console import Console
    from wingspan.deployment import differences, load_deployment

    found = differences(load_deployment(first), load_deployment(second))
    if as_json:
        print(json_text([{"key": key, "first": one, "second": two} for key, one, two in found]))
    elif not found:
        print("no difference")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("key", str(first), str(second)):
            table.add_column(column, overflow="fold")
        for key, one, two in found:
            table.add_row(key, _short(one), _short(two))
        Console(highlight=False).print(table)
    if found:
        raise typer.Exit(1)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"{len(value)} entries"
    return str(value)
