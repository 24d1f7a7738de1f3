"""`wingspan inspect`: what a model is, before any of its weights is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wingspan.cli.completion import model_names
from wingspan.cli.options import FromWeights, Json
from wingspan.writing import json_text

if TYPE_CHECKING:
    from pathlib import Path


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a checkpoint, a config.json, or a preset's name.", autocompletion=model_names
        ),
    ],
    gated: Annotated[
        bool, typer.Option("--gated", help="Of a wingspan_moe model: with gated experts (three matrices).")
    ] = False,
    from_weights: FromWeights = False,
    runtime: Annotated[
        bool,
        typer.Option(
            "--runtime",
            help="Ask transformers too: how experts are laid out, and whether the model runs from its files.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a Mixture-of-Experts model is: layers, experts, sizes, files.

    Examples:

      wingspan inspect models/tiny

      wingspan inspect seed --gated

      wingspan inspect deepseek-v3 --json

      wingspan inspect models/tiny --runtime
    """
    from wingspan.cli.inspect_light import figures
    from wingspan.errors import InputError
    from wingspan.runtime.setup.config_facts import config_facts
    from wingspan.runtime.setup.model_folder import find_model

    path = find_model(model)
    facts = config_facts(path)
    if gated and facts.model_type != "wingspan_moe":
        raise InputError(
            f"{model}: model type {facts.model_type!r} has no gated_experts to change; leave --gated out"
        )
    changes = {"gated_experts": True} if gated else {}
    light = None if runtime else figures(path, changes, from_weights=from_weights)
    summary, weights = (light.summary, light.weights) if light else _asked(path, changes)
    if as_json:
        print(json_text(summary | {"weights": weights}))
    else:
        _print(model, summary, weights)


def _asked(path: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What transformers makes of the model, by the names of `ModelSummary` and `WeightFiles`."""
    from dataclasses import asdict

    from wingspan.cli.runtime_import import need_runtime

    need_runtime()
    from wingspan.runtime import api as runtime

    described = runtime.describe(path, changes=changes)
    summary, files = runtime.summarize(described), runtime.weight_files(described)
    return asdict(summary) | {"shared_bytes": summary.shared_bytes}, None if files is None else asdict(files)


def _print(name: str, summary: dict[str, Any], files: dict[str, Any] | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from wingspan.cli.console import Console

    rows = _model_rows(summary) | _file_rows(files)
    if remarks := summary.get("remarks"):
        rows["counted"] = "; ".join(remarks)
    table = Table(title=escape(name), title_justify="left", show_header=False, box=None, pad_edge=False)
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/bold]", escape(value))
    Console(highlight=False).print(table)


def _model_rows(summary: dict[str, Any]) -> dict[str, str]:
    from wingspan.report.units import bytes_text

    moe_layers, experts = summary["moe_layers"], summary["experts_per_layer"]
    matrices = ", ".join(
        f"{parameter} {' x '.join(map(str, shape))}"
        for parameter, shape in summary["expert_matrices"].items()
    )
    rank_bytes = summary["shared_bytes"] + moe_layers * summary["expert_bytes"]
    rows = {
        "architecture": f"{summary['model_type']}, {summary['dtype']}",
        "layers": f"{summary['layers']}: {moe_layers} with experts, {summary['layers'] - moe_layers} without",
        "experts": f"{experts} a layer, {summary['experts_per_token']} per token",
        "one expert": (
            f"{summary['expert_parameters']:,} parameters, {summary['expert_bytes'] / 1e6:,.2f} MB ({matrices})"
        ),
        "all experts": f"{summary['all_experts_parameters']:,} parameters",
        "shared": f"{summary['shared_parameters']:,} parameters, {bytes_text(summary['shared_bytes'])} on every rank",
        "total": f"{summary['total_parameters']:,} parameters, {bytes_text(summary['total_bytes'])}",
        "active": f"{summary['active_parameters']:,} parameters per token",
        "per rank": (
            f"{bytes_text(rank_bytes)} of weights with one expert per rank and layer on {experts} ranks"
        ),
    }
    if "published" in summary:
        rows["total"] = (
            f"{summary['total_parameters']:,} parameters, {bytes_text(summary['published_bytes'])} in files"
        )
        held = f"ranks hold {bytes_text(summary['total_bytes'])} ({summary['dtype']})"
        rows["published"] = f"{summary['published']}; {held}"
    if count := summary.get("mtp_layers"):
        rows["tries ahead"] = (
            f"{count} layer{'s' * (count > 1)} more for further tokens (MTP), {summary['mtp_parameters']:,} parameters "
            "beside the total"
        )
    if "expert_layout" in summary:
        together = (
            "batched together, a row of caches each, written in place"
            if summary["padding_is_neutral"]
            else "one length per forward, caches cut as sequences end"
        )
        why_not = summary["no_prefix_caching"]
        shared = "computed once (prefix caching)" if why_not is None else f"computed for each: {why_not}"
        rows |= {
            "layout": summary["expert_layout"],
            "prompts": f"of different lengths: {together}",
            "same beginning": shared,
        }
    return rows


def _file_rows(files: dict[str, Any] | None) -> dict[str, str]:
    from wingspan.report.units import bytes_text

    if files is None:
        return {}
    count = f"{files['files']} file{'s' * (files['files'] != 1)}"
    rows = {"files": f"{files['format']}; {count}, {files['tensors']} tensors, {bytes_text(files['bytes'])}"}
    if "problem" not in files:
        return rows | {"whether it runs": "not asked; --runtime does, with torch"}
    rows |= {f"{count} not used": reason for reason, count in files["unused"].items()}
    return rows | ({"cannot run": files["problem"]} if files["problem"] else {})
