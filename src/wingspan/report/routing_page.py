"""The page of a routing trace: load, imbalance, drift, co-activation, nodes per token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.report.figures import Figure, axis, figure, heat_map
from wingspan.report.page import Page, Section, Tile, write_page
from wingspan.report.palette import QUIET, series
from wingspan.report.units import count_text
from wingspan.routing.statistics import RoutingStatistics
from wingspan.routing.structure import order_by_company, pair_lift
from wingspan.routing.summary import RoutingSummary
from wingspan.routing.trace_file import TraceFile


def write_routing_page(
    summary: RoutingSummary, counts: RoutingStatistics, file: TraceFile, laid_out: str, path: Path
) -> None:
    """Write the page as one file; raises `InputError` where that cannot be."""
    write_page(routing_page(summary, counts, file, laid_out), path)


def routing_page(summary: RoutingSummary, counts: RoutingStatistics, file: TraceFile, laid_out: str) -> Page:
    """All pictures of one trace; `laid_out` says how the experts lie on nodes."""
    layers = [layer.layer for layer in summary.layers]
    picked = (
        f"1 is even, {summary.num_experts / summary.top_k:.3g} is when every token picks the same experts."
    )
    sections = [
        load_section(counts.load_LE, layers),
        imbalance_section(layers, [layer.imbalance for layer in summary.layers], picked),
    ]
    if summary.windows > 1:
        sections.append(_drift(summary))
    if summary.top_k > 1:
        sections += [_company(summary), _strongest(summary, counts)]
    if summary.nodes:
        sections.append(_nodes(summary, laid_out))
    return Page(
        title=f"Routing of {count_text(summary.tokens)} tokens",
        subtitle=file.origin,
        tiles=_tiles(summary),
        conditions={
            "Trace": str(file.path),
            "MoE layers": str(summary.num_layers),
            "Experts": f"{summary.num_experts} a layer, top-{summary.top_k}",
            "Home ranks": str(summary.num_ranks),
        },
        sections=sections,
        notes=[
            "Imbalance is max / mean within each layer, then the mean over layers; summed layers would look balanced.",
            "By chance: what a sample of this size shows where there is no structure at all.",
        ],
    )


def _tiles(summary: RoutingSummary) -> list[Tile]:
    worst = max(summary.layers, key=lambda layer: layer.imbalance)
    tiles = [
        Tile("Imbalance", f"{summary.imbalance:.2f}", "tokens per expert, max / mean, mean over layers"),
        Tile("Worst layer", f"{worst.imbalance:.2f}", f"layer {worst.layer}, expert {worst.hottest_expert}"),
        Tile("Imbalance of the home ranks", f"{summary.source_imbalance:.2f}", "tokens per rank, max / mean"),
    ]
    return tiles + [
        Tile(f"Nodes per token, {n.name}", f"{n.mean:.2f}", f"of {n.nodes}; uniform routing: {n.uniform:.2f}")
        for n in summary.nodes
    ]


def load_section(load_LE: NDArray[Any], layers: Sequence[int]) -> Section:
    """A heat map of tokens per expert; `layers` are the rows' numbers."""
    mean_L1 = np.maximum(load_LE.mean(axis=1, keepdims=True), 1e-12)
    relative_LE = load_LE / mean_L1
    return Section(
        "Load of every expert",
        "Each row is a MoE layer, each column an expert: its tokens relative to the layer's mean. "
        "Best is one even tone: a dark cell is an expert that its rank will wait for.",
        heat_map(
            relative_LE.tolist(),
            x="logical expert",
            y="MoE layer" if layers[0] == 0 else f"MoE layer, the first is {layers[0]} of the model",
            unit="tokens / mean",
            height=120 + min(520, 22 * len(layers)),
        ),
    )


def imbalance_section(layers: Sequence[int], imbalance: Sequence[float], scale: str) -> Section:
    """A bar per layer; `scale` says in words what is even and what is worst."""
    return Section(
        "Imbalance of every layer",
        f"Tokens of the fullest expert over the mean; {scale}",
        layer_bars(layers, imbalance, "max / mean"),
    )


def layer_bars(
    layers: Sequence[int], values: Sequence[float], title: str, tickformat: str | None = None
) -> Figure:
    """One figure of each layer."""
    bars = {"type": "bar", "x": list(layers), "y": list(values), "marker": {"color": series(0)}}
    return figure(
        [bars],
        height=300,
        margin=_BARE,
        xaxis=axis("MoE layer", dtick=_tick(len(layers))),
        yaxis=axis(title, rangemode="tozero", **({"tickformat": tickformat} if tickformat else {})),
    )


def _drift(summary: RoutingSummary) -> Section:
    return Section(
        "Drift",
        f"Share of a layer's load that sits on other experts than in the window before ({summary.windows} windows). "
        "Where the bars rise well above the line, yesterday's placement does not fit today.",
        _against_chance(
            [la.drift for la in summary.layers], [la.drift_by_chance for la in summary.layers], "share moved"
        ),
    )


def _company(summary: RoutingSummary) -> Section:
    return Section(
        "Experts that go together",
        "Share of co-activation on other pairs than the loads alone would give. Where the bars rise well above the "
        "line, putting such experts on one node saves traffic between nodes.",
        _against_chance(
            [la.community for la in summary.layers],
            [la.community_by_chance for la in summary.layers],
            "share on other pairs",
        ),
    )


def _strongest(summary: RoutingSummary, counts: RoutingStatistics) -> Section:
    layer = max(summary.layers, key=lambda la: la.community - la.community_by_chance).layer
    lift_EE = pair_lift(counts.coactivation_LEE[layer : layer + 1])[0]
    order = order_by_company(lift_EE)
    names = [str(e) for e in order]
    return Section(
        f"Layer {layer}: who goes with whom",
        "How often two experts are picked together, relative to what their loads give, in an order that puts company "
        "side by side. Dark blocks on the diagonal are communities; an even picture means there are none.",
        heat_map(
            np.clip(lift_EE[np.ix_(order, order)], 0, max(2.0, float(np.quantile(lift_EE, 0.98)))).tolist(),
            x="logical expert",
            y="logical expert",
            unit="x expected",
            height=560,
            names=names,
        ),
    )


def _nodes(summary: RoutingSummary, laid_out: str) -> Section:
    top_k = summary.top_k
    bars = [
        {
            "type": "bar",
            "name": f"{nodes.name}, mean {nodes.mean:.2f}",
            "x": list(range(1, top_k + 1)),
            "y": nodes.share_by_count[1:],
            "marker": {"color": series(number)},
        }
        for number, nodes in enumerate(summary.nodes)
    ]
    return Section(
        "Nodes per token",
        f"How many different nodes a token's experts lie on, with the experts {laid_out}. A token crosses to each such "
        "node once where the dispatcher sends one copy per node.",
        figure(
            bars,
            height=320,
            barmode="group",
            xaxis=axis("different nodes", dtick=1),
            yaxis=axis("share of tokens", tickformat=".0%"),
        ),
    )


def _against_chance(values: list[float], by_chance: list[float], title: str) -> Figure:
    layers = list(range(len(values)))
    bars = {"type": "bar", "name": "measured", "x": layers, "y": values, "marker": {"color": series(0)}}
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "by chance",
        "x": layers,
        "y": by_chance,
        "line": {"color": QUIET, "dash": "dot"},
        "marker": {"size": 5},
    }
    return figure(
        [bars, line],
        height=300,
        xaxis=axis("MoE layer", dtick=_tick(len(values))),
        yaxis=axis(title, rangemode="tozero", tickformat=".0%"),
    )


_BARE = {"l": 60, "r": 24, "t": 20, "b": 52}
"""Margins of a figure without a legend."""


def _tick(count: int) -> int:
    return 1 if count <= 24 else 5
