"""`wingspan models`: every type of model that is known, and what works with it."""

from __future__ import annotations

from typing import Any

from wingspan.cli.options import Json
from wingspan.writing import json_text


def models(as_json: Json = False) -> None:
    """List every type of Mixture-of-Experts model that is known: whether it is planned, and whether it runs.

    A type is the `model_type` of a `config.json`; of a wrapper of several parts the one that makes text is planned.
    Whether it runs is transformers' to say; without it the column is left out.

    Examples:

      wingspan models

      wingspan models --json
    """
    found = _known()
    if as_json:
        print(json_text(found))
        return
    _print(found)


def _known() -> dict[str, dict[str, Any]]:
    """For each type whether it is planned, and whether it runs; None where nobody can tell."""
    from importlib.util import find_spec

    from wingspan.specs.families import FAMILIES, TEXT_PARTS

    runs: dict[str, bool] = {}
    parts: dict[str, str] = {}
    told = find_spec("torch") is not None and find_spec("transformers") is not None
    if told:
        from wingspan.cli.runtime_import import need_runtime

        need_runtime()
        from wingspan.runtime import api as runtime

        runs = {kind: runtime.makes_text(kind) for kind in runtime.architectures()}
        parts = {kind: runtime.text_type(kind) for kind in runs}
        # Ours, and checkpoints that name another type's code.
        runs |= {kind: runtime.makes_text(kind) for kind in FAMILIES if kind not in runs}
    return {
        kind: {
            "planned": kind in TEXT_PARTS or parts.get(kind, kind) in FAMILIES,
            "runs": runs.get(kind, False) if told else None,
        }
        for kind in sorted({*FAMILIES, *TEXT_PARTS, *runs})
    }


def _print(found: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    from wingspan.cli.console import Console

    told = any(said["runs"] is not None for said in found.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model_type", "planned", *(["runs"] if told else [])):
        table.add_column(title)
    for kind, said in found.items():
        runs = ["yes" if said["runs"] else "-"] if told else []
        table.add_row(kind, "yes" if said["planned"] else "-", *runs)
    console = Console(highlight=False)
    console.print(table)
    planned, run = (sum(bool(said[key]) for said in found.values()) for key in ("planned", "runs"))
    running = f", {run} run" if told else "; install wingspan[runtime] to see which run"
    console.print(f"{len(found)} types: {planned} are planned{running}")
