"""`wingspan validate`: how well the cost model predicts kernels that others measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import Json
from wingspan.writing import json_text


def validate(
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="WINGSPAN_MEASUREMENTS",
            help="Folder of published measurements (default: the tables of the installed aiconfigurator-core).",
        ),
    ] = None,
    rows: Annotated[
        bool, typer.Option("--headlines", help="Also every figure that kernels' authors print, one by one.")
    ] = False,
    silicon: Annotated[
        bool,
        typer.Option("--silicon", help="Judge on H200 and B200 tables of the installed aiconfigurator-core."),
    ] = False,
    end_to_end: Annotated[
        Path | None,
        typer.Option(
            "--end-to-end",
            help="Predict the engines of a table of published figures instead, a CSV file or a folder with one.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare predictions with published measurements.

    They are not part of wingspan: `pip install aiconfigurator-core==0.12.0` brings tables of H100, H200 and B200, and
    a checkout of github.com/alibaba/InferSim, named by --data, holds those of H800 (both Apache-2.0).

    Constants were fitted on one part of the rows (those whose line has an even CRC-32); the errors shown are of the
    other part, relative to the measured time. Exits 1 if a promised median is not met; skips without the data.

    Examples:

      wingspan validate

      wingspan validate --data InferSim

      wingspan validate --silicon

      wingspan validate --end-to-end published.csv
    """
    if end_to_end is not None:
        _end_to_end(end_to_end, as_json=as_json)
        return

    from wingspan.cli.validate_view import show
    from wingspan.errors import InputError, RunError
    from wingspan.interop.silicon.headlines import headlines
    from wingspan.interop.silicon.judge import judge
    from wingspan.interop.silicon.sources import package_tables, read_folder, read_newer
    from wingspan.interop.silicon.tables import read_table
    from wingspan.specs.cluster import load_cluster

    printed = []
    folder = data or package_tables()
    if silicon:
        verdicts, where = judge(read_newer(), load_cluster), _PACKAGE
    elif folder is None:
        print(json_text({"skipped": _MISSING}) if as_json else f"Skipped: {_MISSING}.")
        return
    elif not folder.is_dir():
        raise InputError(f"--data {folder}: no such folder; name one that holds the measurements")
    else:
        verdicts, where = judge(read_folder(folder), load_cluster), str(folder) if data else _PACKAGE
        published = folder / "published_kernels.csv"
        printed = headlines(read_table(published), load_cluster) if published.is_file() else []
    if not verdicts and not printed:
        raise InputError(f"{folder}: none of the known tables is here; docs/cost-model.md has their names")
    if rows and not printed:
        raise InputError(
            f"--headlines: {where} has no file published_kernels.csv of authors' figures; docs/cost-model.md says "
            "what it holds"
        )
    if as_json:
        document = {
            "data": where,
            "split": "a row was fitted on if the CRC-32 of its line is even; errors are of the others",
            "groups": [verdict.to_dict() for verdict in verdicts],
            "headlines": [headline.to_dict() for headline in printed],
        }
        print(json_text(document))
    else:
        show(where, verdicts, printed, every_headline=rows)
    missed = [verdict.group for verdict in verdicts if verdict.holds is False]
    if missed:
        raise RunError(f"the promised median error is not met for: {'; '.join(missed)}")


def _end_to_end(path: Path, *, as_json: bool) -> None:
    """Whole engines beside their predictions."""
    from wingspan.cli.published_view import show_published
    from wingspan.interop.published.rows import read_published
    from wingspan.simulate.published.judge import decisions, groups, trends
    from wingspan.simulate.published.points import points_of

    points, refused = points_of(read_published(path))
    found = groups(points), trends(points), decisions(points)
    if not as_json:
        show_published(str(path), points, refused, found)
        return
    document = {
        "data": str(path),
        "split": "a row may be fitted on if the CRC-32 of its id is even; errors of groups are of the others",
        "points": [point.to_dict() for point in points],
        "not_predicted": refused,
        "groups": [each.to_dict() for each in found[0]],
        "trends": [each.to_dict() for each in found[1]],
        "decisions": [each.to_dict() for each in found[2]],
    }
    print(json_text(document))


_PACKAGE = "the installed aiconfigurator-core"
_MISSING = (
    "no measurements here. pip install aiconfigurator-core==0.12.0 brings those of H100, H200 and B200; a checkout of "
    "github.com/alibaba/InferSim, named by --data, those of H800"
)
