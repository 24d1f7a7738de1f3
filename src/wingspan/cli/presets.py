"""`wingspan presets`: the names that commands take, for models, deployments and more, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from wingspan.cli.options import Json
from wingspan.writing import json_text

Said = dict[str, str]


def presets(
    what: Annotated[
        str | None, typer.Argument(help="models, deployments, clusters, routing or engines (default: all).")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models, published deployments, clusters, kinds of routing and engines that commands know by name.

    Examples:

      wingspan presets

      wingspan presets clusters

      wingspan presets --json
    """
    from wingspan.errors import InputError

    if what is not None and what not in _KINDS:
        raise InputError(f"presets {what}: use one of {', '.join(_KINDS)}, or none for all")
    found = {name: list_it() for name, list_it in _KINDS.items() if what in (None, name)}
    if as_json:
        print(json_text(found))
        return
    _print(found)


def _print(found: dict[str, dict[str, Said]]) -> None:
    from rich.console import Group
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from wingspan.cli.console import Console

    console = Console(highlight=False)
    for groups in found.values():
        for title, said in groups.items():
            table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
            table.add_column(no_wrap=True)
            table.add_column()
            for name, text in said.items():
                table.add_row(escape(name), escape(text))
            console.print(Group(f"[bold]{title}[/bold]", Padding(table, (0, 0, 1, 2))))


def _models() -> dict[str, Said]:
    from wingspan.report.units import parameters_text
    from wingspan.specs.models import load_model, model_presets

    said = {}
    for name in model_presets():
        model = load_model(name)
        said[name] = (
            f"{parameters_text(model.parameters.total)}, {parameters_text(model.parameters.active)} active; "
            f"top-{model.experts.per_token} of {model.experts.count} experts"
        )
    return {"models (parameters of each), or any config.json": said}


def _deployments() -> dict[str, Said]:
    from wingspan.deployment_presets import deployment_preset, deployment_presets

    said = {}
    for name in deployment_presets():
        preset = deployment_preset(name)
        loads = ", ".join(f":{each.load}" for each in preset.published)
        said[name] = f"{preset.title}; loads {loads}"
    return {"published deployments, in the place of a deployment's file (wingspan atlas)": said}


def _clusters() -> dict[str, Said]:
    from wingspan.specs.cluster_files import described_presets, described_variants

    changes = {f"+{name}": text for name, text in described_variants().items()}
    changes["+KEY=VALUE"] = (
        "A key of the cluster file: +gpus-per-node=4, +gpus-per-network-card=4, +nodes=12."
    )
    return {
        "clusters, or a YAML file (--cluster)": described_presets(),
        "written behind a cluster, as in h200+efa": changes,
    }


def _routing() -> dict[str, Said]:
    from wingspan.specs.routing_text import ROUTING_TEXTS

    return {"routing (--routing)": ROUTING_TEXTS}


def _engines() -> dict[str, Said]:
    from wingspan.interop.export import ENGINES as WRITTEN
    from wingspan.interop.importing import ENGINES as READ

    said = {}
    for name in dict.fromkeys((*READ, *WRITTEN)):
        does = ("import reads its files", name in READ), ("export writes placements for it", name in WRITTEN)
        said[name] = ", ".join(text for text, true in does if true)
    return {"engines": said}


_KINDS: dict[str, Callable[[], dict[str, Said]]] = {
    "models": _models,
    "deployments": _deployments,
    "clusters": _clusters,
    "routing": _routing,
    "engines": _engines,
}
