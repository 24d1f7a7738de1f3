"""Rooms below the command line name fields in their errors, as `ranks_per_node`; the command line writes options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import wingspan

_ROOT = Path(wingspan.__file__).parent
_OF_OTHERS = ("--map-by", "--distribution", "--no-binary", "--force-reinstall")
"""Options of mpirun, srun and pip, which an error may tell to use."""


def _raised(file: Path) -> Iterator[tuple[int, str]]:
    """Every piece of text in a raise statement, with its line."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Raise):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.lineno, inner.value


def test_no_error_below_the_command_line_names_an_option() -> None:
    found = [
        f"{file.relative_to(_ROOT)}:{line}: {option}"
        for file in sorted(_ROOT.rglob("*.py"))
        if file.relative_to(_ROOT).parts[0] != "cli"
        for line, text in _raised(file)
        for option in re.findall(r"--[a-z][a-z-]*", text)
        if option not in _OF_OTHERS
    ]
    assert found == []
