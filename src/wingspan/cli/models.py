"""`wingspan models`: every type of model that is known, what works with it, and the presets that are of it."""

from __future__ import annotations

from typing import Any

from wingspan.cli.options import Json
from wingspan.writing import json_text


def models(as_json: Json = False) -> None:
    """List every type of Mixture-of-Experts model that is known: whether it is planned, whether it runs, its presets.

    A type is the `model_type` of a `config.json`; of a wrapper of several parts the one that makes text is planned.
    Whether it runs is transformers' to say; without it the column is left out. Of a preset, all parameters and those
    that a token uses.

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
"""Why types of transformers' registry are not planned."""


def _known() -> dict[str, dict[str, Any]]:
    """For each type whether it is planned, whether it runs (None where nobody can tell), and its presets."""
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
    presets = _presets()
    return {
        kind: {
            "planned": kind in TEXT_PARTS or parts.get(kind, kind) in FAMILIES,
            "runs": runs.get(kind, False) if told else None,
            "presets": presets.get(kind, {}),
            **({"why_not": _REASONS[kind]} if kind in _REASONS else {}),
        }
        for kind in sorted({*FAMILIES, *TEXT_PARTS, *runs})
    }


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

    told = any(said["runs"] is not None for said in found.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model_type", "planned", *(["runs"] if told else []), "presets (all/active parameters)"):
        table.add_column(title)
    for kind, said in found.items():
        runs = ["yes" if said["runs"] else "-"] if told else []
        last = "\n".join(_figures(*preset) for preset in said["presets"].items()) or said.get("why_not", "")
        table.add_row(kind, "yes" if said["planned"] else "-", *runs, last)
    console = Console(highlight=False)
    console.print(table)
    planned, run = (sum(bool(said[key]) for said in found.values()) for key in ("planned", "runs"))
    running = f", {run} run" if told else "; install wingspan[runtime] to see which run"
    presets = sum(len(said["presets"]) for said in found.values())
    console.print(f"{len(found)} types: {planned} are planned{running}; {presets} presets")


def _figures(name: str, figures: dict[str, int]) -> str:
    from wingspan.report.units import parameters_text

    whole, active = (parameters_text(figures[key]) for key in ("parameters", "active_parameters"))
    # One unit for both where it is the same.
    number, unit = whole.split()
    return f"{name} {number if active.endswith(unit) else whole}/{active}"
