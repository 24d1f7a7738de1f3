"""`wingspan models`: every type of model that is known, what works with it, and the presets that are of it."""

from __future__ import annotations

from typing import Any

from wingspan.cli.options import Json
from wingspan.writing import json_text


def models(as_json: Json = False) -> None:
    """List every type of Mixture-of-Experts model that is known: whether it is planned, whether it runs, its presets.

    A type is the `model_type` of a `config.json`; of a wrapper of several parts the one that makes text is planned and
    run. Checked are the dtypes in which a small random model of the type, on three ranks, gave what plain transformers
    gives. Of a preset, all parameters and those that a token uses.

    Examples:

      wingspan models

      wingspan models --json
    """
    found = _known()
    if as_json:
        print(json_text(found))
        return
    _print(found)


_REASONS = {
    "diffusion_gemma": "writes many tokens at once, by diffusion",
    "openai_privacy_filter": "labels tokens and makes no text",
}
"""Why types of transformers' registry are neither planned nor run."""

_SHORT = {"float32": "FP32", "bfloat16": "BF16"}


def _known() -> dict[str, dict[str, Any]]:
    """For each type whether it is planned, whether it runs and how that was checked, and its presets."""
    from wingspan.runtime.setup.model_types import TypeSupport, type_table
    from wingspan.specs.families import FAMILIES, TEXT_PARTS

    table = type_table()
    presets = _presets()
    not_there = TypeSupport(
        why=f"not in transformers {table.transformers}, and a checkpoint's code is never run"
    )
    found = {}
    for kind in sorted({*FAMILIES, *TEXT_PARTS, *table.types}):
        said = table.types.get(kind, not_there)
        why = _REASONS.get(kind, said.why)
        found[kind] = {
            "planned": kind in TEXT_PARTS or (said.text or kind) in FAMILIES,
            "runs": said.runs,
            "checked": [*said.checked],
            "presets": presets.get(kind, {}),
            **({"why_not": why} if why else {}),
        }
    return found


def _presets() -> dict[str, dict[str, dict[str, int]]]:
    """The figures of every preset, by its type."""
    from wingspan.specs.models import load_model, model_presets, preset_type

    found: dict[str, dict[str, dict[str, int]]] = {}
    for name in model_presets():
        model = load_model(name)
        found.setdefault(preset_type(name), {})[name] = {
            "parameters": model.parameters.total,
            "active_parameters": model.parameters.active,
            "layers": model.layers,
            "moe_layers": len(model.moe_layers),
            "experts": model.experts.count,
            "experts_per_token": model.experts.per_token,
        }
    return found


def _print(found: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    from wingspan.cli.console import Console
    from wingspan.runtime.setup.model_types import type_table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("model_type", "planned", "runs", "checked", "presets (all/active)"):
        table.add_column(title)
    for kind, said in found.items():
        checked = ", ".join(_SHORT[dtype] for dtype in said["checked"])
        last = "\n".join(_figures(*preset) for preset in said["presets"].items())
        table.add_row(kind, _yes(said["planned"]), _yes(said["runs"]), checked or "-", last)
    console = Console(highlight=False)
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for kind, said in found.items():
        if "why_not" in said:
            reasons.setdefault(said["why_not"], []).append(kind)
    for why, kinds in reasons.items():
        console.print(f"not run: {', '.join(kinds)}: {why}")
    planned, run = (sum(bool(said[key]) for said in found.values()) for key in ("planned", "runs"))
    presets = sum(len(said["presets"]) for said in found.values())
    console.print(f"{len(found)} types: {planned} are planned, {run} run; {presets} presets")
    console.print(
        f"checked: a run on 3 ranks equals plain transformers {type_table().transformers} in that dtype"
    )


def _yes(value: bool) -> str:
    return "yes" if value else "-"


def _figures(name: str, figures: dict[str, int]) -> str:
    from wingspan.report.units import parameters_text

    whole, active = (parameters_text(figures[key]) for key in ("parameters", "active_parameters"))
    # One unit for both where it is the same.
    number, unit = whole.split()
    return f"{name} {number if active.endswith(unit) else whole}/{active}"
