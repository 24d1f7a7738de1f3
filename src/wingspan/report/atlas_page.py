"""The page of the atlas: published deployments beside their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wingspan.report.changes_figures import batches_figure, changes_figure
from wingspan.report.figures import Figure, axis, figure
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.palette import QUIET, series
from wingspan.report.units import count_text, share_text, three_digits
from wingspan.simulate.published.atlas import AtlasRow, Ranked
from wingspan.simulate.published.judge import Trend


def atlas_page(rows: Sequence[AtlasRow], orders: Sequence[Ranked], found: Sequence[Trend]) -> Page:
    """One picture of all rows with a published figure, and a table of everything."""
    known = [row for row in rows if row.error is not None]
    errors = sorted(abs(row.error) for row in known if row.error is not None)
    held = [row.held for row in known if row.held is not None]
    return Page(
        title="Atlas of published deployments",
        subtitle="What others measured of wide expert parallelism, and what is predicted of it",
        tiles=[
            Tile("deployments", str(len({row.preset.title for row in rows})), f"under {len(rows)} loads"),
            Tile(
                "median error",
                share_text(errors[len(errors) // 2]) if errors else "none",
                "of the step's time",
            ),
            Tile("within the bar", f"{sum(held)} of {len(held)}", "published figures"),
            *(
                Tile(order.what, f"{order.kendall:+.2f}", f"rank correlation of {order.rows} rows")
                for order in orders
                if order.what.startswith("all")
            ),
        ],
        conditions={},
        sections=[
            Section(
                "Predicted and published",
                "Tokens per second and GPU. On the line a prediction is right; bars are those of the prediction; "
                "constants were fitted on hollow points, among others. Diamonds are prefill, circles decode.",
                _scatter(known),
            ),
            *_changes(rows, found),
            Section("Every load", table=_table(rows)),
        ],
        notes=[
            f"{preset.title}: {preset.source}"
            + (f". Assumed: {' '.join(preset.assumed.split())}" if preset.assumed else "")
            for preset in {row.preset.title: row.preset for row in rows}.values()
        ],
    )


def _changes(rows: Sequence[AtlasRow], found: Sequence[Trend]) -> list[Section]:
    batches = batches_figure(rows)
    sections = []
    if found:
        see = "Pairs of a deployment's loads that differ in one thing alone; an even router's balance counts as 1."
        sections.append(Section("One thing changed", see, changes_figure(found)))
    if batches is not None:
        see = "Predicted as lines, published as points."
        sections.append(Section("Schedules against the batch", see, batches))
    return sections


def _scatter(rows: Sequence[AtlasRow]) -> Figure:
    groups: dict[str, list[AtlasRow]] = {}
    for row in rows:
        # One colour for what one publisher measured on one machine, whatever the phase.
        groups.setdefault(row.preset.group.removesuffix(f" {row.terms.phase}"), []).append(row)
    published = [row.published_per_gpu or 0.0 for row in rows]
    ends = [min(published, default=1.0) / 1.6, max(published, default=1.0) * 1.6]
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": ends,
        "y": ends,
        "line": {"color": QUIET, "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    data = [line, *(_points(number, name, members) for number, (name, members) in enumerate(groups.items()))]
    span = [math.log10(end) for end in ends]
    ticks = [digit * 10.0**power for power in range(1, 6) for digit in (1, 2, 5)]
    shared = {
        "type": "log",
        "range": span,
        "tickvals": ticks,
        "ticktext": [count_text(tick) for tick in ticks],
    }
    return figure(
        data,
        height=560,
        xaxis=axis("published, tokens/s per GPU", **shared),
        yaxis=axis("predicted, tokens/s per GPU", **shared),
    )


def _points(number: int, name: str, rows: Sequence[AtlasRow]) -> dict[str, Any]:
    colour, shapes = series(number), ["diamond" if row.terms.phase == "prefill" else "circle" for row in rows]
    rates = [row.tokens_per_second_per_gpu for row in rows]
    bars = [row.report.relative_error or 0.0 for row in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row.published_per_gpu for row in rows],
        "y": rates,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [rate * bar for rate, bar in zip(rates, bars, strict=True)],
            "arrayminus": [rate * bar / (1 + bar) for rate, bar in zip(rates, bars, strict=True)],
            "color": colour,
            "thickness": 1,
            "width": 2,
        },
        "marker": {
            "size": 10,
            "color": colour,
            "symbol": [
                f"{shape}-open" if row.load.fitted else shape for shape, row in zip(shapes, rows, strict=True)
            ],
            "line": {"color": colour, "width": 2},
        },
        "hovertext": [_hover(row) for row in rows],
        "hoverinfo": "text",
    }


def _hover(row: AtlasRow) -> str:
    return (
        f"<b>{row.name}</b><br>{row.load.figure}: published {three_digits(row.load.value or 0)}, predicted "
        f"{three_digits(row.predicted or 0)} ({row.error or 0:+.0%} of time)<br>{row.load.seen}"
    )


def _table(rows: Sequence[AtlasRow]) -> Table:
    headings = (
        "deployment and load",
        "figure",
        "published",
        "predicted",
        "error",
        "bar",
        "waiting",
        "by chance",
    )
    return Table(headings, [_cells(row) for row in rows])


def _cells(row: AtlasRow) -> list[str]:
    step, gpus = row.report.step_seconds, f" of {row.load.gpus} GPUs" if row.load.gpus > 1 else ""
    return [
        row.name,
        f"{row.load.figure}{gpus}" if row.load.figure else "nothing published",
        three_digits(row.load.value) if row.load.value else "",
        three_digits(row.predicted)
        if row.predicted
        else f"{three_digits(row.tokens_per_second_per_gpu)} tokens/s",
        f"{row.error:+.0%}" if row.error is not None else "",
        f"{row.report.relative_error:.0%}" if row.report.relative_error is not None else "",
        share_text(row.waiting_seconds / step),
        share_text(row.chance_seconds / step),
    ]
