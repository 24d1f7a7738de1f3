"""`wingspan validate`: how well the cost model predicts kernels that others measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.writing import json_text


def validate(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of published measurements (default: ../shared/data/silicon)."),
    ] = None,
    rows: Annotated[
        bool, typer.Option("--headlines", help="Also every figure that kernels' authors print, one by one.")
    ] = False,
    silicon: Annotated[
        bool,
        typer.Option("--silicon", help="Judge on H200 and B200 tables of the installed aiconfigurator-core."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Compare predictions with published measurements.

    Constants were fitted on one part of the rows (those whose line has an even CRC-32); the errors shown are of the
    other part, relative to the measured time. Exits 1 if a promised median is not met; skips without the data.

    Examples:

      wingspan validate

      wingspan validate --data ../shared/data/silicon --headlines

      wingspan validate --silicon
    """

    from wingspan.cli.validate_view import show
    from wingspan.errors import InputError, RunError
    from wingspan.interop.silicon.headlines import headlines
    from wingspan.interop.silicon.judge import judge
    from wingspan.interop.silicon.sources import read_folder, read_package
    from wingspan.interop.silicon.tables import read_table
    from wingspan.specs.cluster import load_cluster

    folder = data or _default_folder()
    printed = []
    if silicon:
        verdicts = judge(read_package(), load_cluster)
        where = "the installed aiconfigurator-core"
    elif folder.is_dir():
        verdicts = judge(read_folder(folder), load_cluster)
        published = folder / "published_kernels.csv"
        printed = headlines(read_table(published), load_cluster) if published.is_file() else []
        where = str(folder)
    elif data is not None:
        raise InputError(f"--data {data}: no such folder; name one that holds the measurements")
    else:
        print(json_text({"skipped": f"no folder {folder}"}) if as_json else _SKIPPED.format(folder=folder))
        return
    if not verdicts and not printed:
        raise InputError(
            f"{folder}: none of the known tables is here; see docs/cost-model.md for their names"
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


_SKIPPED = "Skipped: no measurements at {folder}. Name their folder with --data."


def _default_folder() -> Path:
    """Beside the repository where this runs from one, else beside the working directory."""
    repository = Path(__file__).resolve().parents[3]
    beside = repository.parent / "shared" / "data" / "silicon"
    return beside if beside.is_dir() else Path("../shared/data/silicon")
