"""Pictures of what one thing changes: each change published and predicted, and batches as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wingspan.report.figures import Figure, category_axis, figure, log_axis
from wingspan.report.palette import QUIET, series
from wingspan.report.units import count_text
from wingspan.simulate.published.atlas import AtlasRow
from wingspan.simulate.published.judge import Trend


def changes_figure(found: Sequence[Trend]) -> Figure:
    """A row for each change: tokens per second after it over those before, published and predicted."""
    names = [change.what.replace(": ", "<br>") for change in found]
    published = [1 + change.published for change in found]
    predicted = [1 + change.predicted for change in found]
    joined: list[float | None] = [x for pair in zip(published, predicted, strict=True) for x in (*pair, None)]
    between = {
        "type": "scatter",
        "mode": "lines",
        "x": joined,
        "y": [name for name in names for _ in range(3)],
        "line": {"color": QUIET, "width": 3},
        "hoverinfo": "skip",
    }
    ends = (("published", published, series(1)), ("predicted", predicted, series(0)))
    data = [between, *(_marks(name, values, names, colour) for name, values, colour in ends)]
    return figure(
        data,
        height=90 + 38 * len(names),
        xaxis=log_axis("tokens/s after the change, times those before", [*published, *predicted]),
        yaxis={**category_axis(), "tickfont": {"size": 11}},
    )


def _marks(name: str, values: Sequence[float], names: Sequence[str], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(values),
        "y": list(names),
        "marker": {"size": 11, "color": colour, "symbol": "diamond" if name == "published" else "circle"},
        "hovertemplate": f"%{{y}}<br>{name}: %{{x:.2f}} times<extra></extra>",
    }


def batches_figure(rows: Sequence[AtlasRow]) -> Figure | None:
    """Tokens per second and GPU over the batch: predicted as lines, published as points; None without such loads."""
    lines: dict[str, list[AtlasRow]] = {}
    for row in rows:
        if row.published_per_gpu is not None and row.terms.phase == "decode":
            terms = row.terms
            preset, balance = row.name.partition(":")[0], terms.balance or 1
            name = f"{preset}, {terms.schedule}, {terms.context:,} long, balance {balance:g}"
            lines.setdefault(name, []).append(row)
    several = {
        name: sorted(members, key=lambda row: row.terms.tokens_per_gpu)
        for name, members in lines.items()
        if len({row.terms.tokens_per_gpu for row in members}) > 1
    }
    if not several:
        return None
    data = [
        trace
        for number, (name, members) in enumerate(several.items())
        for trace in _line(number, name, members)
    ]
    batches = [float(row.terms.tokens_per_gpu) for members in several.values() for row in members]
    return figure(
        data,
        height=460,
        xaxis=log_axis("sequences per GPU", batches),
        yaxis=log_axis("tokens/s per GPU", [rate for trace in data for rate in trace["y"]]),
    )


def _line(number: int, name: str, rows: Sequence[AtlasRow]) -> list[dict[str, Any]]:
    colour, batches = series(number), [row.terms.tokens_per_gpu for row in rows]
    common = {"type": "scatter", "x": batches, "hoverinfo": "text"}
    predicted = [row.tokens_per_second_per_gpu for row in rows]
    published = [row.published_per_gpu or 0.0 for row in rows]
    return [
        {
            **common,
            "mode": "lines",
            "name": name,
            "y": predicted,
            "line": {"color": colour, "width": 2},
            "hovertext": [f"{name}: predicted {count_text(rate)}" for rate in predicted],
        },
        {
            **common,
            "mode": "markers",
            "y": published,
            "marker": {"size": 10, "color": colour, "symbol": "diamond"},
            "hovertext": [
                f"{row.name}: published {count_text(rate)}" for row, rate in zip(rows, published, strict=True)
            ],
        },
    ]
