"""A figure's legend as text of the page, so that it wraps at any width and never lies on the picture."""

from __future__ import annotations

from html import escape
from typing import Any

from wingspan.report.figures import Figure


def legend(identity: str, figure: Figure) -> str:
    """A button for each named part of the figure, which hides and shows it; empty where nothing is named."""
    buttons = [
        f"<button type='button' aria-pressed='true' data-figure='{identity}' data-trace='{number}'>"
        f"{_swatch(trace)}{escape(trace['name'])}</button>"
        for number, trace in enumerate(figure["data"])
        if trace.get("name")
    ]
    return f"<div class='legend'>{''.join(buttons)}</div>" if buttons else ""


def _swatch(trace: dict[str, Any]) -> str:
    lines = "lines" in trace.get("mode", "")
    style = trace["line"] if lines else trace["marker"]
    kind = f"line {style.get('dash', '')}".strip() if lines else ""
    return f"<i class='{kind}' style='--swatch:{style['color']}'></i>"
