"""`wingspan inspect`: what a model is, before any of its weights is read."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from wingspan.cli.completion import model_names
from wingspan.cli.options import Json
from wingspan.writing import json_text

if TYPE_CHECKING:
    from wingspan.runtime.api import ModelSummary, WeightFiles


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
    as_json: Json = False,
) -> None:
    """Say what a Mixture-of-Experts model is: layers, experts, sizes, and how its experts are laid out.

    Examples:

      wingspan inspect models/tiny

      wingspan inspect seed --gated

      wingspan inspect path/to/config.json --json
    """
    from wingspan.cli.config_facts import config_facts
    from wingspan.cli.model_argument import find_model
    from wingspan.cli.runtime_import import need_runtime
    from wingspan.errors import InputError

    path = find_model(model)
    facts = config_facts(path)
    if gated and facts.model_type != "wingspan_moe":
        raise InputError(
            f"{model}: model type {facts.model_type!r} has no gated_experts to change; leave --gated out"
        )
    need_runtime()
    from wingspan.runtime import api as runtime

    described = runtime.describe(path, changes={"gated_experts": True} if gated else {})
    summary, files = runtime.summarize(described), runtime.weight_files(described)
    if as_json:
        weights = None if files is None else asdict(files)
        print(json_text(asdict(summary) | {"shared_bytes": summary.shared_bytes, "weights": weights}))
        return
    _print(model, summary, files)


def _print(name: str, summary: ModelSummary, files: WeightFiles | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from wingspan.cli.console import Console
    from wingspan.report.units import bytes_text

    matrices = ", ".join(
        f"{parameter} {' x '.join(map(str, shape))}" for parameter, shape in summary.expert_matrices.items()
    )
    rows = {
        "architecture": f"{summary.model_type}, {summary.dtype}",
        "layers": f"{summary.layers}: {summary.dense_layers} dense, {summary.moe_layers} with experts",
        "experts": f"{summary.experts_per_layer} a layer, {summary.experts_per_token} per token",
        "layout": summary.expert_layout,
        "one expert": (
            f"{summary.expert_parameters:,} parameters, {summary.expert_bytes / 1e6:,.2f} MB ({matrices})"
        ),
        "all experts": f"{summary.all_experts_parameters:,} parameters",
        "shared": f"{summary.shared_parameters:,} parameters, {bytes_text(summary.shared_bytes)} on every rank",
        "total": f"{summary.total_parameters:,} parameters, {bytes_text(summary.total_bytes)}",
        "active": f"{summary.active_parameters:,} parameters per token",
        "prompts": "of different lengths: "
        + ("batched together" if summary.padding_is_neutral else "one length per forward"),
        "per rank": (
            f"{bytes_text(summary.rank_bytes(1))} of weights with one expert per rank and layer "
            f"on {summary.experts_per_layer} ranks"
        ),
    }
    if files is not None:
        rows["files"] = (
            f"{files.format}; {files.files} files, {files.tensors} tensors, {bytes_text(files.bytes)}"
        )
        for reason, count in files.unused.items():
            rows[f"{count} not used"] = reason
        if files.problem:
            rows["cannot run"] = files.problem
    table = Table(title=escape(name), title_justify="left", show_header=False, box=None, pad_edge=False)
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/bold]", escape(value))
    Console(highlight=False).print(table)
