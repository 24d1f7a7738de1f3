"""The page of a placement: load per rank before and after, bytes per link, what moves, what it gains and costs.

Shapes: L MoE layers, R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.difference import Difference
from wingspan.report.figures import Figure, axis, figure, heat_map
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.palette import QUIET, series
from wingspan.report.units import bytes_text, seconds_text
from wingspan.simulate.placement_score import PlacementScore

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moved:
    """What must be fetched to come from one placement to another, and what that takes.

    Args:
        difference: experts and bytes by rank.
        seconds: to fetch them one after another over one network card.
    """

    difference: Difference
    seconds: float


def place_page(
    scores: Mapping[str, PlacementScore],
    before: str,
    after: str,
    moved: Moved,
    conditions: Mapping[str, str],
    judged_on: str,
    advice: Sequence[str],
    notes: Sequence[str],
) -> Page:
    """The page of one strategy beside the placement in use, or linear.

    Args:
        scores: of all strategies, by name.
        before: which is compared with.
        after: which the page is about.
        moved: from the one to the other.
        conditions: for the reader of the figures.
        judged_on: what the advice is of.
        advice: sentences.
        notes: what the figures leave open.
    """
    one, two = scores[before], scores[after]
    return Page(
        f"Placement: {after} beside {before}",
        "load of every rank, bytes on every link, what moves, what it gains and costs",
        _tiles(one, two, moved),
        conditions,
        [
            Section("What to do", judged_on, points=advice),
            Section("All strategies", table=_table(scores)),
            _fullest(one, two, before, after),
            _load(one, two, before, after),
            *_heat(one, two, before, after),
            *_links(one, two, before, after),
            _moves(moved, before, after),
            _gain(one, two, before, after, moved),
        ],
        notes,
    )


def _tiles(one: PlacementScore, two: PlacementScore, moved: Moved) -> list[Tile]:
    return [
        Tile("step", seconds_text(two.step_seconds), f"before: {seconds_text(one.step_seconds)}"),
        Tile("fullest rank", f"{two.imbalance:.3f} x", f"of the mean; before: {one.imbalance:.3f} x"),
        Tile("between nodes", bytes_text(two.across_bytes), f"before: {bytes_text(one.across_bytes)}"),
        Tile(
            "to fetch",
            f"{moved.difference.experts:,}",
            f"experts, {bytes_text(moved.difference.total_bytes)}",
        ),
    ]


def _table(scores: Mapping[str, PlacementScore]) -> Table:
    return Table(
        ("strategy", "fullest rank / mean", "between nodes", "fullest card", "experts", "links", "step"),
        [
            [
                name,
                f"{score.imbalance:.3f}",
                bytes_text(score.across_bytes),
                bytes_text(score.busiest_card_bytes),
                seconds_text(score.experts_seconds),
                seconds_text(score.exchanges_seconds),
                seconds_text(score.step_seconds),
            ]
            for name, score in scores.items()
        ],
    )


def _load(one: PlacementScore, two: PlacementScore, before: str, after: str) -> Section:
    rows = [
        (before, _relative(one.rank_rows_LR).mean(axis=0)),
        (after, _relative(two.rank_rows_LR).mean(axis=0)),
    ]
    return Section(
        "Load per rank",
        "Tokens of each rank over the mean rank's, mean over layers: who works most in all. Ranks that are full in "
        "different layers look even here.",
        _by_rank(rows, "tokens / mean"),
    )


def _fullest(one: PlacementScore, two: PlacementScore, before: str, after: str) -> Section:
    layers = list(range(len(one.rank_imbalance_L)))
    rows = ((before, one.rank_imbalance_L, QUIET), (after, two.rank_imbalance_L, series(0)))
    return Section(
        "Fullest rank of each layer",
        "Over the layer's mean rank: what the layer waits for. 1 is even.",
        figure(
            [
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(layers) < 4 else "lines",
                    "name": name,
                    "x": layers,
                    "y": [round(float(value), 4) for value in values_L],
                    "line": {"color": colour},
                }
                for name, values_L, colour in rows
            ],
            height=300,
            xaxis=axis("MoE layer", showgrid=False),
            yaxis=axis("fullest / mean", rangemode="tozero"),
        ),
    )


def _heat(one: PlacementScore, two: PlacementScore, before: str, after: str) -> list[Section]:
    most = max(2.0, *(float(_relative(score.rank_rows_LR).max()) for score in (one, two)))
    return [
        Section(
            f"Load per layer and rank, {name}",
            "Tokens over the layer's mean, both maps in the same colours. Dark is full and light is idle: best is one "
            "even tone, and of two maps the one without dark cells is better.",
            heat_map(
                _relative(score.rank_rows_LR).tolist(),
                x="rank",
                y="MoE layer",
                unit="x mean",
                height=360,
                most=most,
            ),
        )
        for name, score in ((before, one), (after, two))
    ]


def _links(one: PlacementScore, two: PlacementScore, before: str, after: str) -> list[Section]:
    sections = []
    for link, bytes_R in one.link_bytes_R.items():
        if not bytes_R.any() and not two.link_bytes_R[link].any():
            continue
        fullest = float(max(bytes_R.max(), two.link_bytes_R[link].max()))
        scale, unit = (1e9, "GB") if fullest >= 1e9 else (1e6, "MB") if fullest >= 1e6 else (1e3, "kB")
        rows = [(before, bytes_R / scale), (after, two.link_bytes_R[link] / scale)]
        sections.append(
            Section(
                f"Bytes per link: {link}",
                "Dispatch and combine of a step, in the fuller direction, all MoE layers. Lower is better, and the "
                "highest is waited for.",
                _by_rank(rows, unit),
            )
        )
    return sections


def _moves(moved: Moved, before: str, after: str) -> Section:
    experts_R = moved.difference.fetched_LR.sum(axis=0)
    if not experts_R.any():
        return Section("What moves", f"Nothing: {after} has every expert where {before} has it.")
    ranks = list(range(len(experts_R)))
    return Section(
        "What moves",
        f"Experts that each rank must fetch, over all layers, coming from {before}: {moved.difference.experts:,} in "
        f"all, {bytes_text(moved.difference.total_bytes)}; at most {bytes_text(int(moved.difference.bytes_R.max()))} "
        "by one rank.",
        figure(
            [{"type": "bar", "x": ranks, "y": experts_R.tolist(), "marker": {"color": series(0)}}],
            height=280,
            xaxis=axis("rank", showgrid=False),
            yaxis=axis("experts to fetch", rangemode="tozero"),
        ),
    )


def _gain(one: PlacementScore, two: PlacementScore, before: str, after: str, moved: Moved) -> Section:
    gain = one.step_seconds - two.step_seconds
    points = [
        f"{name}: {seconds_text(first)} under {before}, {seconds_text(second)} under {after}"
        for name, first, second in (
            ("fullest rank's experts", one.experts_seconds, two.experts_seconds),
            ("dispatch and combine", one.exchanges_seconds, two.exchanges_seconds),
            ("whole step", one.step_seconds, two.step_seconds),
        )
    ]
    cost = f"Fetching the experts one after another over one network card takes {seconds_text(moved.seconds)}"
    if not moved.difference.experts:
        points.append("Nothing has to be fetched.")
    elif gain > 0:
        points.append(f"{cost}: earned back in {int(np.ceil(moved.seconds / gain)):,} steps.")
    else:
        points.append(f"{cost}, and is not earned back: no step gets faster.")
    return Section("What it gains and costs", points=points)


def _by_rank(rows: Sequence[tuple[str, Floats]], unit: str) -> Figure:
    colours = (QUIET, series(0))
    return figure(
        [
            {
                "type": "bar",
                "name": name,
                "x": list(range(len(values_R))),
                "y": [round(float(value), 4) for value in values_R],
                "marker": {"color": colour},
            }
            for (name, values_R), colour in zip(rows, colours, strict=True)
        ],
        height=300,
        barmode="group",
        xaxis=axis("rank", showgrid=False),
        yaxis=axis(unit, rangemode="tozero"),
    )


def _relative(rows_LR: Floats) -> Floats:
    mean_L1 = rows_LR.mean(axis=1, keepdims=True)
    ratio: Floats = np.divide(rows_LR, mean_L1, out=np.ones_like(rows_LR), where=mean_L1 > 0)
    return ratio
