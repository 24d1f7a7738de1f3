"""Figures as plotly's JSON (`data` and `layout`), in one common style.

Built as dictionaries: plotly's own classes take most of a second to import and add nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wingspan.report.palette import GRID, HEAT, INK, LIMIT, PAPER

Figure = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


def figure(data: list[dict[str, Any]], *, height: int, **layout: Any) -> Figure:
    """A figure `height` pixels high and as wide as the page; its legend stands above it, as text of the page."""
    base: dict[str, Any] = {
        "height": height,
        "autosize": True,
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 20, "t": 26, "b": 52},
        "showlegend": False,
        "hoverlabel": {"font": {"family": FONT, "color": INK}, "bgcolor": PAPER, "bordercolor": GRID},
        "bargap": 0.25,
    }
    return {"data": data, "layout": {**base, **layout}}


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis with its title and unit; labels never overlap the figure."""
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "automargin": True,
        **options,
    }


def log_axis(title: str, values: Sequence[float], **options: Any) -> dict[str, Any]:
    """A logarithmic axis with whole numbers written at 1, 2 and 5 of each decade."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [digit * 10.0**decade for decade in range(first, last + 1) for digit in (1, 2, 5)]
    named = {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}
    return axis(title, **{"type": "log", **named, **options})


def value_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """Begin at zero where the values are near each other; be logarithmic where they are far apart."""
    if min(values, default=0.0) > 0 and max(values) / min(values) > 20:
        return log_axis(title, values)
    return axis(title, rangemode="tozero")


def category_axis(**options: Any) -> dict[str, Any]:
    """Rows with names, first one on top."""
    return axis("", autorange="reversed", showgrid=False, ticksuffix=" ", **options)


def row_axis(names: Sequence[str]) -> dict[str, Any]:
    """Rows of ranks, first one on top: `rank 3 (slowest)  compute` in two lines, which leave the picture its room."""
    return category_axis(
        categoryorder="array",
        categoryarray=list(names),
        range=[len(names) - 0.5, -0.5],
        tickmode="array",
        tickvals=list(names),
        ticktext=[name.replace("  ", "<br>") for name in names],
        tickfont={"size": 11},
    )


def heat_map(
    rows: Sequence[Sequence[float]],
    *,
    x: str,
    y: str,
    unit: str,
    height: int,
    names: Sequence[str] | None = None,
    most: float | None = None,
) -> Figure:
    """Cells from pale (0) to dark (the highest, or 2 where all are near the mean of 1), first row on top.

    `names` stand along both sides; without them, numbers from 0. Maps to be compared are given the same `most`, the
    value of the darkest cell.
    """
    cells = {
        "type": "heatmap",
        "z": [[round(float(value), 3) for value in row] for row in rows],
        "zmin": 0,
        "zmax": max(2.0, *(float(max(row)) for row in rows)) if most is None else most,
        "colorscale": [list(stop) for stop in HEAT],
        "colorbar": {
            "title": {"text": unit, "side": "right", "font": {"size": 13}},
            "thickness": 14,
            "outlinewidth": 0,
        },
        "hovertemplate": f"{y} %{{y}}, {x} %{{x}}: %{{z:.2f}} {unit}<extra></extra>",
    }
    category = {} if names is None else {"type": "category"}
    return figure(
        [cells | ({} if names is None else {"x": list(names), "y": list(names)})],
        height=height,
        margin={"l": 60, "r": 24, "t": 20, "b": 52},
        xaxis=axis(x, showgrid=False, **category),
        yaxis=axis(y, showgrid=False, autorange="reversed", **category),
    )


def bound(x: float, text: str) -> dict[str, Any]:
    """Layout of a dashed vertical line at a bound near the right end, with its name above it, to its left."""
    return {
        "shapes": [_dashed("x", x)],
        "annotations": [
            {
                "x": x,
                "y": 1,
                "yref": "paper",
                "xanchor": "right",
                "yanchor": "bottom",
                "text": text,
                "showarrow": False,
                "font": {"color": LIMIT, "size": 12},
            }
        ],
    }


def ceiling(y: float, text: str, *, logarithmic: bool) -> dict[str, Any]:
    """Layout of a dashed horizontal line at a limit, with its name above its left end."""
    return {
        "shapes": [_dashed("y", y)],
        "annotations": [
            {
                "x": 0,
                "xref": "paper",
                # plotly places shapes on a logarithmic axis by value, but annotations by exponent.
                "y": math.log10(y) if logarithmic else y,
                "xanchor": "left",
                "yanchor": "bottom",
                "text": text,
                "showarrow": False,
                "font": {"color": LIMIT, "size": 12},
            }
        ],
    }


def _dashed(along: str, value: float) -> dict[str, Any]:
    across = "y" if along == "x" else "x"
    return {
        "type": "line",
        f"{along}0": value,
        f"{along}1": value,
        f"{across}0": 0,
        f"{across}1": 1,
        f"{across}ref": "paper",
        "line": {"color": LIMIT, "width": 1.5, "dash": "dash"},
    }
