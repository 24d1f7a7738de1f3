"""Pages as a browser shows them: wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, opened
from tests.report.test_pages import pages
from wingspan.report.page import write_page

PAGES = ("step", "stuck", "run", "compare", "sweep", "serving", "one load")

CUT = """
const cut = [];
for (const figure of document.querySelectorAll(".figure")) {
  const frame = figure.getBoundingClientRect();
  for (const text of figure.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1
      && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
    if (box.width && text.textContent.trim() && !inside) cut.push(`${figure.id}: ${text.textContent}`);
  }
}
return cut;
"""
"""Texts of figures that stick out of their figure."""

EMPTY = """
const marks = ".barlayer path, .scatterlayer path, .heatmaplayer image";
return [...document.querySelectorAll(".figure")].filter((f) => !f.querySelector(marks)).map((f) => f.id);
"""
"""Figures in which nothing is drawn."""

INK = "return [...document.querySelectorAll('.xtick text')].map((t) => getComputedStyle(t).fill)"
GROUND = "return getComputedStyle(document.body).backgroundColor"
SIDEWAYS = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, page in pages().items():
        write_page(page, folder / f"{name}.html")
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_at_any_width_by_day_and_by_night(name: str, browser: Browser, folder: Path) -> None:
    assert browser.open((folder / f"{name}.html").as_uri()) == []
    grounds, inks = set(), set()
    for width in (1400, 600):
        for scheme in ("light", "dark"):
            where = (name, width, scheme)
            browser.show(width, scheme)
            assert browser.ask(SIDEWAYS) == 0, where
            assert browser.ask(EMPTY) == [], where
            assert browser.ask(CUT) == [], where
            grounds.add((scheme, browser.ask(GROUND)))
            inks |= {(scheme, ink) for ink in browser.ask(INK)}
    assert browser.complaints() == []
    for seen in (grounds, inks):
        by_scheme = dict(seen)
        assert len(seen) == len(by_scheme) == len(set(by_scheme.values())), name


def test_a_name_in_the_legend_hides_its_part_and_shows_it_again(browser: Browser, folder: Path) -> None:
    browser.open((folder / "sweep.html").as_uri())
    lines = "return document.querySelectorAll('#figure-1 .scatterlayer .trace').length"
    press = "document.querySelector('[data-figure=figure-1]').click()"
    counts = []
    for _ in range(2):
        browser.ask(press)
        browser.show(1000, "light")
        counts.append(browser.ask(lines))
        browser.show(1000, "dark")
        assert browser.ask(lines) == counts[-1]
    assert counts == [1, 2]
