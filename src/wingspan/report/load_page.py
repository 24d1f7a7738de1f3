"""The page of a load: load of every expert, imbalance, drift; what each token chose it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wingspan.report.page import Page, Section, Tile, write_page
from wingspan.report.routing_page import imbalance_section, layer_bars, load_section
from wingspan.report.units import count_text
from wingspan.routing.load_summary import LoadSummary
from wingspan.routing.recorded_load import RecordedLoad


def write_load_page(summary: LoadSummary, load: RecordedLoad, remarks: Sequence[str], path: Path) -> None:
    """Write the page as one file; raises `InputError` where that cannot be."""
    write_page(load_page(summary, load, remarks), path)


def load_page(summary: LoadSummary, load: RecordedLoad, remarks: Sequence[str]) -> Page:
    """All pictures of one load; `remarks` say what it leaves open."""
    layers = [figures.layer for figures in summary.layers]
    worst = max(summary.layers, key=lambda figures: figures.imbalance)
    sections = [
        load_section(load.load_LE, layers),
        imbalance_section(layers, [figures.imbalance for figures in summary.layers], "1 is even."),
    ]
    if summary.moments > 1:
        sections.append(_drift(summary))
    return Page(
        title=f"Load of {count_text(summary.choices)} choices",
        subtitle=summary.source,
        tiles=[
            Tile("Imbalance", f"{summary.imbalance:.2f}", "tokens per expert, max / mean, mean over layers"),
            Tile(
                "Worst layer", f"{worst.imbalance:.2f}", f"layer {worst.layer}, expert {worst.hottest_expert}"
            ),
        ],
        conditions={
            "MoE layers": str(len(layers)),
            "Experts": f"{summary.num_experts} a layer",
            "Moments": str(summary.moments),
        },
        sections=sections,
        notes=[
            "Imbalance is max / mean within each layer, then the mean over layers; summed layers would look balanced.",
            *remarks,
        ],
    )


def _drift(summary: LoadSummary) -> Section:
    return Section(
        "Drift",
        f"Share of a layer's load that sits on other experts than in the moment before (mean of {summary.moments} "
        "moments). Where it is high, yesterday's placement does not fit today.",
        layer_bars(
            [figures.layer for figures in summary.layers],
            [figures.drift or 0.0 for figures in summary.layers],
            "share moved",
            tickformat=".0%",
        ),
    )
