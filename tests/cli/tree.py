"""All commands of the command line, as click has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from wingspan.cli.main import application


def _commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from _commands(inner, f"{path}{name} ")
        else:
            yield f"{path}{name}", inner


COMMANDS: dict[str, Any] = dict(_commands(typer.main.get_command(application())))
"""By their words after `wingspan`."""
