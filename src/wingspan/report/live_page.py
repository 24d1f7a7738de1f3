"""The live page of a server: the same for every server, filled by its script with what the server streams.

Its parts come as files, so that the page may forbid its browser everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from wingspan.report.figures import Figure, axis, category_axis, figure, heat_map
from wingspan.report.page import (
    Section,
    Tile,
    plotly_script,
    resource,
    script_json,
    section_html,
    stylesheet,
    tiles,
)
from wingspan.report.palette import LIMIT, OPERATIONS, PAPER, series
from wingspan.version import __version__

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page's browser may load (Content-Security-Policy). plotly sets styles of its elements."""

_SCRIPTS = ("plotly.min.js", "live_figures.js", "page.js", "live_calls.js", "live.js", "live_try.js")
FILES = ("page.css", *_SCRIPTS)
"""The names of the files beside the page."""

_TILES = ("New tokens", "Running", "Waiting", "Time to first token", "Time per output token", "Imbalance")


def live_page(folder: str) -> str:
    """The page's HTML; its files lie in `folder` of the same server."""
    sections = _sections()
    figures = {f"figure-{n}": section.figure for n, section in enumerate(sections) if section.figure}
    scripts = "".join(f"<script defer src='{folder}/{name}?{__version__}'></script>" for name in _SCRIPTS)
    parts = [section_html(number, section) for number, section in enumerate(sections)]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<title>Wingspan</title><link rel="icon" href="data:,">',
            f"<link rel='stylesheet' href='{folder}/page.css?{__version__}'>{scripts}",
            f"<script type='application/json' id='empty-figures'>{script_json(figures)}</script>",
            "</head><body><main>",
            "<header><h1 id='model'>Wingspan</h1><p id='served'>&nbsp;</p>"
            "<output id='state' data-state='away'>connecting</output></header>",
            _KEY,
            tiles([Tile(name, "-", " ") for name in _TILES]),
            _TRY,
            f"<div class='pairs'>{''.join(parts)}</div>",
            "<section><h2>What happened</h2><ol id='events'><li>nothing yet</li></ol></section>",
            f"<footer>Wingspan {escape(__version__)}</footer>",
            "</main></body></html>",
        ]
    )


_KEY = """<form id='key' class='box' hidden><label for='key-text'>This server wants a key</label>
<div class='row'><input id='key-text' type='password' autocomplete='off' required><button>Use it</button></div>
<p class='caption' id='key-remark'>It stays in this tab until you close it.</p></form>"""

_TRY = """<section><h2>Try it</h2><form id='try'>
<textarea id='try-prompt' rows='2' aria-label='Prompt' required>def main():</textarea>
<div class='row'><select id='try-kind' aria-label='Kind of call'><option value='completions'>continue the text</option>
<option value='chat/completions'>answer as a chat</option></select>
<label>tokens <input id='try-tokens' type='number' min='1' value='100' required></label>
<label>temperature <input id='try-temperature' type='number' min='0' max='2' step='0.1' value='0.7' required></label>
<button id='try-go'>Send</button></div></form>
<pre id='try-answer' aria-live='polite' hidden></pre><p class='caption' id='try-remark'></p></section>"""


def page_file(name: str) -> tuple[str, str]:
    """The kind and the text of one of `FILES`."""
    if name == "page.css":
        return "text/css", f"{stylesheet()}\n{resource('live.css')}"
    return "text/javascript", plotly_script() if name == "plotly.min.js" else resource(name)


def _sections() -> list[Section]:
    percentiles = ("p50", "p90", "p99")
    minutes = "over the last minutes"
    return [
        Section(
            "New tokens",
            f"Per second, {minutes}. A dashed line is something that happened; point at its top.",
            _over_time(["tokens"], unit="", filled=True),
        ),
        Section(
            "Queue",
            "Answers that are being computed, and those that wait.",
            _over_time(["running", "waiting"], unit=""),
        ),
        Section(
            "Time to first token",
            "From a call's arrival; of the last minute.",
            _over_time(percentiles, unit="s"),
        ),
        Section(
            "Time per output token",
            "Mean of each answer, from its first token on; of the last minute.",
            _over_time(percentiles, unit="s"),
        ),
        Section(
            "Where the time of a step goes",
            "On each rank, the mean of the latest steps. Grey is waiting for slower ranks; of "
            "dispatch and combine it is what nothing hides.",
            _ranks(),
        ),
        Section(
            "Bytes by link",
            "Rows from rank (down) to rank (across) in a second of steps. Darker carries more.",
            _empty_map(x="to rank", y="from rank", unit="B/s"),
        ),
        Section(
            "Load of every expert",
            "Tokens of the latest steps over the layer's mean. Best is one even tone.",
            _empty_map(x="logical expert", y="MoE layer", unit="tokens / mean"),
        ),
        Section(
            "Load of every rank",
            "Rows that its experts computed over the layer's mean. A dark cell makes the others wait.",
            _empty_map(x="rank", y="MoE layer", unit="rows / mean"),
        ),
    ]


def _over_time(names: Sequence[str], *, unit: str, filled: bool = False) -> Figure:
    """Lines over time, and marks along the top for what happened."""
    lines: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name if len(names) > 1 else "",
            "x": [],
            "y": [],
            "line": {"color": series(number), "width": 2},
            "hovertemplate": f"%{{y:.3s}}{unit} {name}<extra></extra>",
        }
        for number, name in enumerate(names)
    ]
    if filled:
        lines[0] |= {"fill": "tozeroy"}
    marks = {
        "type": "scatter",
        "mode": "markers",
        "x": [],
        "y": [],
        "text": [],
        "yaxis": "y2",
        "marker": {"color": LIMIT, "size": 9, "symbol": "triangle-down"},
        "hovertemplate": "%{text}<extra></extra>",
    }
    return figure(
        [*lines, marks],
        height=230,
        hovermode="closest",
        margin={"l": 52, "r": 16, "t": 12, "b": 26},
        xaxis=_plain(
            type="date", showgrid=False, nticks=5, tickformat="%H:%M:%S", tickangle=0, automargin=False
        ),
        yaxis=_plain(rangemode="tozero", tickformat="~s", ticksuffix=unit, nticks=6),
        yaxis2={"overlaying": "y", "range": [0, 1.03], "visible": False, "fixedrange": True},
    )


def _ranks() -> Figure:
    """A bar for each rank, a part for each operation."""
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": operation.value.replace("_", " "),
            "y": [],
            "x": [],
            "marker": {"color": colour, "line": {"color": PAPER, "width": 1}},
            "hovertemplate": f"%{{y}}, {operation.value.replace('_', ' ')}: %{{x:.3s}}s<extra></extra>",
        }
        for operation, colour in OPERATIONS.items()
    ]
    return figure(
        bars,
        height=300,
        barmode="stack",
        margin={"l": 56, "r": 20, "t": 12, "b": 26},
        xaxis=_plain(
            tickformat="~s", ticksuffix="s", rangemode="tozero", nticks=6, tickangle=0, automargin=False
        ),
        yaxis=category_axis(fixedrange=True),
    )


def _empty_map(*, x: str, y: str, unit: str) -> Figure:
    """A heat map without cells, whose axes count whole things."""
    empty = heat_map([[0]], x=x, y=y, unit=unit, height=300)
    empty["data"][0]["z"] = []
    for name in ("xaxis", "yaxis"):
        empty["layout"][name] |= {"type": "category", "fixedrange": True}
    return empty


def _plain(**options: Any) -> dict[str, Any]:
    """An axis without a title, which a finger that scrolls the page does not move."""
    return axis("", fixedrange=True, **options) | {"title": {"text": ""}}
