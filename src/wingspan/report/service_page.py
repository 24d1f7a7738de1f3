"""The page of a plan for requests: the frontier as a picture, the best groups, why the others lose, what to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wingspan.report.figures import Figure, axis, figure
from wingspan.report.page import Banner, Page, Section, Table, Tile
from wingspan.report.palette import LIMIT, QUIET, series
from wingspan.report.units import count_text, seconds_text


@dataclass(frozen=True)
class ArrangementPoint:
    """One arrangement of groups.

    Args:
        decode, prefill: the groups in words, as `EP 24 x 2`.
        per_user, per_gpu: tokens/s.
        ttft_seconds, tpot_seconds: of a request that meets no queue.
        within: both limits are kept.
        why: why it is not the best; empty: it is.
        price: of a million tokens; None: nobody said what a GPU costs.
        estimated: from few layers of the model; marked with ~.
    """

    decode: str
    prefill: str
    per_user: float
    per_gpu: float
    ttft_seconds: float
    tpot_seconds: float
    within: bool
    why: str
    price: float | None
    estimated: bool = False


def service_page(
    title: str,
    best: ArrangementPoint | None,
    frontier: Sequence[ArrangementPoint],
    considered: Sequence[ArrangementPoint],
    conditions: Mapping[str, str],
    groups: Sequence[str],
    left_out: Sequence[str],
    *,
    slowest_user: float | None = None,
) -> Page:
    """All of it.

    Args:
        title: what was asked.
        best: what was found.
        frontier: fastest for the user first.
        considered: the best of each EP size.
        conditions: what a reader must know to trust the figures.
        groups: the best one's groups, in words.
        left_out: EP sizes that cannot be, with the reason.
        slowest_user: tokens/s per user at the limit on TPOT.
    """
    sections = [
        Section(
            "Tokens/s per GPU against tokens/s per user",
            "Up and to the right is better. Grey: the best of each EP size, split or together; the line joins what no "
            "other beats in both. Larger batches fill the GPUs and make users wait.",
            _picture(best, frontier, considered, slowest_user),
            _table(frontier),
        ),
        Section("Why not another EP size", table=_table(considered), points=left_out),
    ]
    if groups:
        sections.insert(1, Section("The best groups", points=groups))
    return Page(
        title=title,
        subtitle="steady work without queues; a simulation of serving shows what queues cost",
        tiles=_tiles(best),
        conditions=conditions,
        sections=sections,
        banner=None
        if best is not None
        else Banner(
            "Nothing keeps these limits in the memory there is",
            ["What comes near stands below, with why it fails. Allow longer times or give more GPUs."],
        ),
    )


def _tiles(best: ArrangementPoint | None) -> list[Tile]:
    if best is None:
        return [Tile("Nothing keeps these limits", "0", "in the memory there is")]
    tiles = [
        Tile("Tokens/s per GPU", count_text(best.per_gpu), f"decode {best.decode}, prefill {best.prefill}"),
        Tile("Tokens/s per user", count_text(best.per_user), f"TPOT {seconds_text(best.tpot_seconds)}"),
        Tile("Time to first token", seconds_text(best.ttft_seconds), "without a queue"),
    ]
    if best.price is not None:
        tiles.append(Tile("Price of a million tokens", f"{best.price:.3g}", "output tokens"))
    return tiles


def _picture(
    best: ArrangementPoint | None,
    frontier: Sequence[ArrangementPoint],
    considered: Sequence[ArrangementPoint],
    slowest_user: float | None,
) -> Figure:
    data = [
        _dots("each EP size", considered, QUIET, 7),
        _dots("frontier", frontier, series(0), 8) | {"mode": "lines+markers"},
    ]
    if best is not None:
        data.append(_dots("best within the limits", [best], series(4), 14))
    layout = {}
    if slowest_user is not None:
        line = {"color": LIMIT, "width": 1.5, "dash": "dash"}
        layout["shapes"] = [
            {
                "type": "line",
                "x0": slowest_user,
                "x1": slowest_user,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": line,
            }
        ]
    return figure(
        data,
        height=420,
        xaxis=axis("tokens/s per user", rangemode="tozero"),
        yaxis=axis("tokens/s per GPU", rangemode="tozero"),
        **layout,
    )


def _dots(name: str, points: Sequence[ArrangementPoint], colour: str, size: int) -> dict[str, object]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.per_user for point in points],
        "y": [point.per_gpu for point in points],
        "marker": {"size": size, "color": colour},
        "line": {"color": colour, "width": 2},
        "hovertext": [
            f"<b>decode {point.decode}, prefill {point.prefill}</b><br>{count_text(point.per_gpu)} tokens/s per GPU, "
            f"{count_text(point.per_user)} per user<br>TTFT {seconds_text(point.ttft_seconds)}, "
            f"TPOT {seconds_text(point.tpot_seconds)}"
            for point in points
        ],
        "hoverinfo": "text",
    }


def _table(points: Sequence[ArrangementPoint]) -> Table | None:
    if not points:
        return None
    priced = points[0].price is not None
    names = ["decode", "prefill", "tokens/s per user", "tokens/s per GPU", "TTFT", "TPOT"]
    rows = [
        [
            point.decode,
            point.prefill,
            count_text(point.per_user),
            f"{'~' if point.estimated else ''}{count_text(point.per_gpu)}",
            seconds_text(point.ttft_seconds),
            seconds_text(point.tpot_seconds),
            *([] if point.price is None else [f"{point.price:.3g}"]),
            point.why or "the best",
        ]
        for point in points
    ]
    return Table([*names, *(["price of a million"] if priced else []), ""], rows)
