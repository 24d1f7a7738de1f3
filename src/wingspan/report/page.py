"""One self-contained HTML page: headline figures, conditions, sections with pictures and tables, notes.

The file holds plotly itself and asks the network for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

from wingspan.report.figures import Figure
from wingspan.report.legend import legend
from wingspan.report.palette import style
from wingspan.version import __version__
from wingspan.writing import json_text, write_text


@dataclass(frozen=True)
class Tile:
    """A headline figure: what it is, its value, and a few words below; `supposed` where it cannot come about."""

    name: str
    value: str
    remark: str = ""
    supposed: bool = False


@dataclass(frozen=True)
class Banner:
    """What a reader must know before anything else: that what the page is about does not work, and the mend."""

    title: str
    points: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column is left-aligned, the others right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A question the page answers: title, what to see in it, then points, a picture or a table.

    `supposed`: its figures cannot come about, and say what would be.
    """

    title: str
    see: str = ""
    figure: Figure | None = None
    table: Table | None = None
    caption: str = ""
    points: Sequence[str] = ()
    supposed: bool = False


@dataclass(frozen=True)
class Page:
    """All of a page, in reading order."""

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    conditions: Mapping[str, str]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)
    banner: Banner | None = None


def write_page(page: Page, path: Path) -> None:
    """Write the page as one file.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page's HTML."""
    figures = {
        f"figure-{number}": section.figure
        for number, section in enumerate(page.sections)
        if section.figure is not None
    }
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(page.title)}</title>",
            f"<style>{stylesheet()}</style>",
            f"<script>{plotly_script()}</script>" if figures else "",
            "</head><body><main>",
            f"<header><h1>{escape(page.title)}</h1><p>{escape(page.subtitle)}</p></header>",
            _banner(page.banner),
            tiles(page.tiles),
            _conditions(page.conditions),
            *(section_html(number, section) for number, section in enumerate(page.sections)),
            section_html(-1, Section("Conditions and caveats", points=page.notes)) if page.notes else "",
            f"<footer>Wingspan {escape(__version__)}</footer>",
            "</main>",
            f"<script>const figures = {script_json(figures)};\n{resource('page.js')}</script>"
            if figures
            else "",
            "</body></html>",
        ]
    )


def _banner(banner: Banner | None) -> str:
    if banner is None:
        return ""
    points = "".join(f"<p>{escape(point)}</p>" for point in banner.points)
    return f"<div class='banner' role='alert'><strong>{escape(banner.title)}</strong>{points}</div>"


def tiles(several: Sequence[Tile]) -> str:
    """Headline figures side by side."""
    cells = (
        f"<div class='{'tile supposed' if t.supposed else 'tile'}'><span>{escape(t.name)}</span>"
        f"<strong>{escape(t.value)}</strong><small>{escape(t.remark)}</small></div>"
        for t in several
    )
    return f"<div class='tiles'>{''.join(cells)}</div>"


def _conditions(conditions: Mapping[str, str]) -> str:
    rows = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in conditions.items())
    return f"<dl class='conditions'>{''.join(rows)}</dl>" if conditions else ""


def section_html(number: int, section: Section) -> str:
    """A section of the page; its figure is drawn by the page's script as `figure-NUMBER`."""
    supposed = "<em>if it fitted</em>" if section.supposed else ""
    parts = [f"<h2>{escape(section.title)}{supposed}</h2>"]
    if section.see:
        parts.append(f"<p class='see'>{escape(section.see)}</p>")
    if section.points:
        parts.append(f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in section.points)}</ul>")
    if section.figure is not None:
        height = int(section.figure["layout"]["height"])
        parts.append(legend(f"figure-{number}", section.figure))
        parts.append(f"<div class='figure' id='figure-{number}' style='height:{height}px'></div>")
    if section.table is not None:
        parts.append(_table(section.table))
    if section.caption:
        parts.append(f"<p class='caption'>{escape(section.caption)}</p>")
    return f"<section>{''.join(parts)}</section>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f"<div class='table'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def script_json(value: object) -> str:
    """JSON without markup that could end its script element."""
    return json_text(value).replace("<", "\\u003c")


def stylesheet() -> str:
    """Colours and layout of every page."""
    return f"{style()}\n{resource('page.css')}"


def plotly_script() -> str:
    """plotly itself, as its package has it."""
    return resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def resource(name: str) -> str:
    """A file of this room."""
    return resources.files("wingspan.report").joinpath(name).read_text(encoding="utf-8")
