"""Pages: complete, self-contained, valid figures, and words that fit the numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.report.examples import CONDITIONS, serving, step, sweep
from wingspan.errors import InputError
from wingspan.report.page import Page, Section, Table, Tile, render, write_page
from wingspan.report.palette import MEMORY, OPERATIONS, ink_on
from wingspan.report.plan_page import Alternative, plan_page
from wingspan.report.serving_page import serving_page
from wingspan.report.step_page import step_page
from wingspan.report.sweep_page import sweep_page
from wingspan.schedule.result import Operation
from wingspan.specs.memory import MemoryPart


def pages() -> dict[str, Page]:
    report, spans = step()
    choice = Alternative(report, "EP 16", 64, 1, "flat", True)
    common = {"spans": spans, "capacity_bytes": 80e9}
    ways = [("shard attention over 8 GPUs", "how it runs", 4e10, 1234.0)]
    return {
        "step": step_page(report, CONDITIONS, **common),  # type: ignore[arg-type]
        "plan": plan_page([choice], report, CONDITIONS, gpus=16, layout="EP 16", **common),  # type: ignore[arg-type]
        "stuck": plan_page(
            [], report, CONDITIONS, gpus=16, layout="EP 16", breaking_part="kv cache", ways_out=ways
        ),
        "sweep": sweep_page(sweep()),
        "serving": serving_page(serving((4, 64, 256))),
        "one load": serving_page(serving((4,))),
    }


@pytest.fixture(scope="module")
def all_pages() -> dict[str, Page]:
    return pages()


def test_every_figure_is_one_that_plotly_accepts(all_pages: dict[str, Page]) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for page in all_pages.values():
        for section in page.sections:
            if section.figure is not None:
                graph_objects.Figure(section.figure)  # raises on a key or value it does not know
                json.dumps(section.figure, allow_nan=False)


def test_every_figure_says_what_to_see_and_names_its_axes(all_pages: dict[str, Page]) -> None:
    for name, page in all_pages.items():
        assert page.tiles, name
        for section in page.sections:
            assert section.title
            if section.figure is not None:
                assert section.see, (name, section.title)
                layout = section.figure["layout"]
                titled = [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
                assert any(titled), (name, section.title)


def test_a_page_asks_the_network_for_nothing(all_pages: dict[str, Page]) -> None:
    html = render(all_pages["step"])
    without_plotly = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|@import|url\(", without_plotly)
    assert html.count("Plotly.newPlot") >= 1
    for number, section in enumerate(all_pages["step"].sections):
        assert (f"id='figure-{number}'" in html) == (section.figure is not None)


def test_text_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    figure = {"data": [{"type": "bar", "x": [evil], "y": [1]}], "layout": {"height": 100}}
    page = Page(
        evil, evil, [Tile(evil, evil, evil)], {evil: evil},
        [Section(evil, evil, figure, Table([evil], [[evil]]), evil, [evil])], [evil],
    )  # fmt: skip
    html = render(page)
    assert "<script>alert" not in html
    assert "\\u003cscript>alert" in html  # in the figure's data


def test_a_page_without_figures_has_no_script() -> None:
    html = render(Page("t", "s", [], {}, [Section("title", "text")]))
    assert "<script" not in html
    assert len(html) < 10_000


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone does not exist; create it"):
        write_page(Page("t", "s", [], {}, []), tmp_path / "gone" / "page.html")


def test_memory_is_judged_against_the_gpu() -> None:
    report, _ = step()
    peak = max(report.peak_memory_bytes)
    verdicts = {
        capacity: next(
            s.see for s in step_page(report, {}, capacity_bytes=capacity).sections if s.title == "Memory"
        )
        for capacity in (None, peak + 1e9, peak - 1e9)
    }
    assert "fullest rank needs 47.1 GB" in verdicts[None]
    assert "It fits: the fullest rank leaves 1.00 GB free" in verdicts[peak + 1e9]
    assert "It does not fit: the fullest rank lacks 1.00 GB" in verdicts[peak - 1e9]


def test_without_spans_there_is_no_timeline_and_without_links_no_links() -> None:
    report, spans = step()
    titles = {section.title for section in step_page(report, {}).sections}
    assert "The whole step" not in titles
    assert "Links" in titles
    bare = report.model_copy(update={"links": [], "load_tokens": [[0] * 16]})
    titles = {section.title for section in step_page(bare, {}, spans=spans).sections}
    assert "Links" not in titles
    assert "Load of the experts" not in titles
    assert "The whole step" in titles


def test_what_a_serving_page_headlines() -> None:
    page = serving_page(serving((4, 64, 256)))
    assert page.tiles[0].value == "64 requests/s"
    none = serving((256,))
    assert serving_page(none).tiles[0].value == "none"


def test_every_operation_has_a_colour_of_its_own() -> None:
    assert set(OPERATIONS) == set(Operation)
    assert len(set(OPERATIONS.values())) == len(OPERATIONS)
    assert {ink_on(colour) for colour in ("#000000", "#332288")} == {"#ffffff"}
    assert ink_on("#f0e442") != "#ffffff"


def test_parts_of_memory_have_colours_of_their_own_and_those_of_their_operations() -> None:
    assert len(set(MEMORY.values())) == len(MEMORY)
    assert set(MEMORY) == set(MemoryPart)
    assert MEMORY[MemoryPart.EXPERTS] == OPERATIONS[Operation.EXPERT]


def test_a_report_of_nothing_still_makes_a_page() -> None:
    """A measured step may lack links, memory and loads, and a dry one takes no time."""
    report, _ = step(ranks=8)
    none = [0] * 8
    empty = report.model_copy(
        update={
            "step_seconds": 0.0, "tokens_per_second": 0.0, "operation_seconds": {Operation.EXPERT: [0.0] * 8},
            "exposed_communication_seconds": [0.0] * 8, "sent_within_node_bytes": none,
            "sent_across_nodes_bytes": none, "load_tokens": [], "memory_bytes": {}, "peak_memory_bytes": none,
            "links": [], "utilisation": {}, "slowest_reason": "", "notes": [],
        }
    )  # fmt: skip
    assert render(step_page(empty, {})).startswith("<!doctype html>")
