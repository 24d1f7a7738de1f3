"""The page of a serving simulation: latencies and goodput against load."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from wingspan.report.figures import axis, ceiling, figure, value_axis
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.palette import INK, series
from wingspan.report.units import count_text, seconds_text, share_text, three_digits, time_scale
from wingspan.schedule.serving_result import LoadPoint, Percentiles, ServingReport

_LEVELS: tuple[tuple[str, Callable[[Percentiles], float]], ...] = (
    ("p50", lambda spread: spread.p50),
    ("p90", lambda spread: spread.p90),
    ("p99", lambda spread: spread.p99),
)


def serving_page(report: ServingReport) -> Page:
    """All pictures of one serving simulation."""
    limits = report.limits
    sections = [
        _latency(
            report,
            "Time to first token (TTFT)",
            "From a request's arrival until its first token: it waits for room, then its prompt is computed. "
            "Where the lines bend up, requests arrive faster than the deployment takes them in.",
            lambda point: point.ttft_seconds,
            limits.ttft_p99_seconds,
        ),
        _latency(
            report,
            "Time per output token (TPOT)",
            "Between the tokens of one request, in the mean. It grows with the batch, and with prefills that share "
            "its steps.",
            lambda point: point.tpot_seconds,
            limits.tpot_p99_seconds,
        ),
        _throughput(report),
        _occupancy(report),
        _numbers(report),
    ]
    if len(report.points) == 1:
        sections = [_single(report), _numbers(report)]
    return Page(
        title=f"Serving on {report.ranks} GPUs",
        subtitle="simulated: " + "; ".join(f"{group.name} on {group.ranks} ranks" for group in report.groups),
        tiles=_tiles(report),
        conditions=report.conditions | _group_conditions(report),
        sections=sections,
        notes=report.notes,
    )


def shown_point(report: ServingReport) -> LoadPoint:
    """The load that the headline is about: the highest within the limits, else the lowest there is."""
    good = [point for point in report.points if point.meets_limits]
    return good[-1] if good else report.points[0]


def _tiles(report: ServingReport) -> list[Tile]:
    point = shown_point(report)
    at = f"at {point.offered_requests_per_second:.3g} requests/s"
    tiles = []
    if report.limits.any:
        highest = report.highest_load_requests_per_second
        value = "none" if highest is None else f"{highest:.3g} requests/s"
        tiles.append(Tile("Highest load within limits", value, limits_text(report)))
    return [
        *tiles,
        Tile("TTFT, p99", seconds_text(point.ttft_seconds.p99), at),
        Tile("TPOT, p99", seconds_text(point.tpot_seconds.p99), at),
        Tile("Output", f"{count_text(point.output_tokens_per_second)} tokens/s", at),
        Tile("Goodput", f"{point.goodput_requests_per_second:.3g} requests/s", "completed within all limits"),
    ]


def limits_text(report: ServingReport) -> str:
    """The limits in words."""
    named = (("TTFT", report.limits.ttft_p99_seconds), ("TPOT", report.limits.tpot_p99_seconds))
    return ", ".join(f"{name} p99 up to {seconds_text(limit)}" for name, limit in named if limit is not None)


def _group_conditions(report: ServingReport) -> dict[str, str]:
    return {
        f"Group: {group.name}": f"{group.ranks} ranks, {group.homes} homes; each up to "
        f"{group.sequences_per_home} sequences, {count_text(group.kv_tokens_per_home)} tokens of KV cache, "
        f"{group.tokens_per_step} tokens a step"
        for group in report.groups
    }


def _latency(
    report: ServingReport,
    title: str,
    see: str,
    spread: Callable[[LoadPoint], Percentiles],
    limit: float | None,
) -> Section:
    longest = max(spread(point).p99 for point in report.points)
    scale, unit = time_scale(limit or longest)
    load = [point.offered_requests_per_second for point in report.points]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": load,
            "y": [level(spread(point)) * scale for point in report.points],
            "line": {"color": series(number), "width": 2},
            "marker": {"size": 7},
            "hovertemplate": f"{name} at %{{x:.3g}} requests/s: %{{y:.3g}} {unit}<extra></extra>",
        }
        for number, (name, level) in enumerate(_LEVELS)
    ]
    short = title[title.index("(") + 1 : -1]
    height = value_axis(f"{short}, {unit}", [value for bar in data for value in bar["y"]])
    mark = {}
    if limit is not None:
        logarithmic = height.get("type") == "log"
        mark = ceiling(limit * scale, f"limit for p99: {seconds_text(limit)}", logarithmic=logarithmic)
    return Section(title, see, figure=figure(data, height=380, xaxis=_load_axis(load), yaxis=height, **mark))


def _throughput(report: ServingReport) -> Section:
    load = [point.offered_requests_per_second for point in report.points]
    completed = [point.completed_requests_per_second for point in report.points]
    good = [point.goodput_requests_per_second for point in report.points]
    named = (
        ("completed", completed, series(0), "solid"),
        ("goodput: completed within all limits", good, series(2), "solid"),
        ("offered", load, INK, "dot"),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if dash == "solid" else "lines",
            "name": name,
            "x": load,
            "y": values,
            "line": {"color": colour, "width": 2, "dash": dash},
            "hovertemplate": f"{name}: %{{y:.3g}} requests/s at %{{x:.3g}}<extra></extra>",
        }
        for name, values, colour, dash in named
    ]
    return Section(
        "Throughput and goodput",
        "Where completed leaves the dotted line, the deployment no longer keeps up. Goodput falls once requests are "
        "served too late to count.",
        figure(data, height=380, xaxis=_load_axis(load), yaxis=axis("requests/s", rangemode="tozero")),
    )


def _occupancy(report: ServingReport) -> Section:
    load = [point.offered_requests_per_second for point in report.points]
    data = []
    for number, group in enumerate(report.groups):
        room = group.kv_tokens_per_home
        kept = [100 * point.peak_kv_tokens[group.name] / room for point in report.points]
        busy = [100 * point.busy_share[group.name] for point in report.points]
        for what, values, dash in (
            ("KV cache reserved at the peak", kept, "solid"),
            ("time with a step running", busy, "dot"),
        ):
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": f"{group.name}: {what}",
                    "x": load,
                    "y": values,
                    "line": {"color": series(number), "width": 2, "dash": dash},
                    "hovertemplate": f"{what}: %{{y:.1f}} % at %{{x:.3g}} requests/s<extra></extra>",
                }
            )
    return Section(
        "What fills up first",
        "At 100 % of the KV cache new requests wait for others to finish; at 100 % of the time the group never idles, "
        "which alone is no harm.",
        figure(data, height=340, xaxis=_load_axis(load), yaxis=axis("%", range=[0, 108])),
    )


def _single(report: ServingReport) -> Section:
    point = report.points[0]
    rows = [
        (name, *(seconds_text(value) for value in (s.mean, s.p50, s.p90, s.p99, s.highest)))
        for name, s in (
            ("waiting for room", point.waiting_seconds),
            ("time to first token", point.ttft_seconds),
            ("time per output token", point.tpot_seconds),
            ("end to end", point.end_to_end_seconds),
        )
    ]
    return Section(
        "Latencies",
        f"{point.requests} requests at {point.offered_requests_per_second:.3g} a second. p99: 99 % of the requests are "
        "at least this quick.",
        table=Table(("", "mean", "p50", "p90", "p99", "slowest"), rows),
    )


def _load_axis(load: list[float]) -> dict[str, Any]:
    return value_axis("offered load, requests/s", load)


def _numbers(report: ServingReport) -> Section:
    priced = any(point.price_per_million_output_tokens is not None for point in report.points)
    headings = (
        "requests/s", "completed/s", "goodput/s", "output tokens/s", "TTFT p50", "p90", "p99", "TPOT p50", "p90", "p99",
        "in system", "within limits", *(["cost of 1 M out"] if priced else []),
    )  # fmt: skip
    rows = [
        [
            f"{p.offered_requests_per_second:.3g}",
            f"{p.completed_requests_per_second:.3g}",
            f"{p.goodput_requests_per_second:.3g}",
            count_text(p.output_tokens_per_second),
            *(seconds_text(level(p.ttft_seconds)) for _, level in _LEVELS),
            *(seconds_text(level(p.tpot_seconds)) for _, level in _LEVELS),
            count_text(p.mean_requests_in_system),
            share_text(p.within_limits_share),
            *([three_digits(p.price_per_million_output_tokens or math.nan)] if priced else []),
        ]
        for p in report.points
    ]
    return Section("All numbers", "One row for each load.", table=Table(headings, rows))
