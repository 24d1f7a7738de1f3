"""`wingspan atlas`: published deployments of wide expert parallelism, each predicted beside what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.completion import deployment_names
from wingspan.cli.options import Json
from wingspan.writing import json_text


def atlas(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Published deployments (default: all).", autocompletion=deployment_names),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the pictures and the table as one self-contained page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict deployments that others published, beside what they measured.

    Each is a preset: plan, simulate, run and serve take its name in the place of a deployment's file, as it stands in
    the table, or without a load for the first one.

    Examples:

      wingspan atlas

      wingspan atlas cloudmatrix-ep320-decode

      wingspan atlas --html atlas.html

      wingspan simulate cloudmatrix-ep320-decode:batch-24
    """
    from wingspan.cli.atlas_view import show_atlas
    from wingspan.cli.outputs import check_outputs
    from wingspan.deployment_presets import deployment_presets
    from wingspan.simulate.published.atlas import atlas_rows, by_attention, ranked
    from wingspan.simulate.published.changes import changes

    check_outputs(html)
    rows = atlas_rows(names or deployment_presets())
    groups, orders, found = by_attention(rows), ranked(rows), changes(rows)
    if html is not None:
        from wingspan.report.atlas_page import atlas_page
        from wingspan.report.page import write_page

        write_page(atlas_page(rows, orders, found), html)
    if as_json:
        document = {
            "rows": [row.to_dict() for row in rows],
            "groups": [each.to_dict() for each in groups],
            "ranked": [each.to_dict() for each in orders],
            "changes": [each.to_dict() for each in found],
        }
        print(json_text(document))
        return
    show_atlas(rows, groups, orders, found)
    if html is not None:
        print(f"page: {html} (open in a browser)")
