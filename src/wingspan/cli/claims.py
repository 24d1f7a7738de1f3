"""`wingspan claims`: the reference model's claims, each computed, and where each holds."""

from __future__ import annotations

from typing import Annotated

import typer

from wingspan.writing import json_text


def claims(
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            help="Cluster preset or file to judge the claims on, beside the ideal one.",
        ),
    ] = "h100-sxm",
    brief: Annotated[bool, typer.Option("--brief", help="Leave the conditions out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """Compute every claim of the reference model (docs/reference-model.md) and say under which conditions it holds.

    Takes a few seconds: the step is predicted at 72 points of network, batch, skew and EP size.

    Examples:

      wingspan claims

      wingspan claims --cluster h800 --json
    """
    from dataclasses import asdict

    from rich import box
    from rich.table import Table

    from wingspan.cli.console import Console
    from wingspan.cli.progress import progress
    from wingspan.simulate.claims import PARTS
    from wingspan.simulate.claims import claims as compute
    from wingspan.specs.cluster import load_cluster
    from wingspan.specs.models import load_model

    models = load_model("seed"), load_model("seed-gated")
    clusters = load_cluster("seed-ideal"), load_cluster(cluster)
    with progress("computing claims", PARTS) as advance:
        rows = compute(*models, *clusters, advance)
    if as_json:
        print(json_text([asdict(row) for row in rows]))
        return
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", ratio=4)
    table.add_column("said", ratio=2)
    table.add_column("computed", ratio=3)
    table.add_column("holds", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    table.add_column("claims' own point", ratio=2)
    for row in rows:
        verdict = "[green]yes[/green]" if row.holds else "[red]no[/red]"
        own = "" if row.own is None else f"{row.own:.4g}" + ("" if row.own_fits else ", does not fit")
        table.add_row(row.claim, row.said, f"{row.computed:.4g} {row.unit}", verdict, _shown(row.fits), own)
    console.print(table)
    console.print(
        "[dim]Judged on seed-ideal, EP 64, uniform routing, decode of 8 sequences per GPU (context 1024), attention "
        "shared by 8 GPUs of a node, unless the row says otherwise; always with the fastest schedule. fits: whether "
        "memory holds that point. The claims' own point: attention replicated, 128 sequences per GPU (where eight "
        "experts per GPU are compared, attention shared). Skewed = log-normal shares, sigma 0.6."
        + (f" On {cluster} and with skew many rows come out otherwise: leave --brief out." if brief else "")
        + "[/dim]"
    )
    for row in [] if brief else rows:
        console.print(f"\n[bold]{row.claim}[/bold]: {row.said}")
        bullets = Table.grid(padding=(0, 1))
        for condition in row.conditions:
            bullets.add_row("  -", condition)
        console.print(bullets)


def _shown(fits: bool | None) -> str:
    return "" if fits is None else "yes" if fits else "no"
