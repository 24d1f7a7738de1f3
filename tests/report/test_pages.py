"""Pages: complete, self-contained, valid figures, and words that fit the numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.report.examples import CONDITIONS, serving, step, sweep
from tests.report.test_perfetto import moved, timeline
from wingspan.errors import InputError
from wingspan.report.compare_page import compare_page
from wingspan.report.page import Page, Section, Table, Tile, render, write_page
from wingspan.report.palette import MEMORY, OPERATIONS, SHADES, style
from wingspan.report.plan_page import Alternative, plan_page
from wingspan.report.run_page import run_page
from wingspan.report.serving_page import serving_page
from wingspan.report.step_page import step_page
from wingspan.report.sweep_page import sweep_page
from wingspan.report.unfit import Mend
from wingspan.schedule.result import Operation, Span, StepReport, StepSpan
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.specs.memory import MemoryPart


def ran(predicted: StepReport) -> StepReport:
    """The same step as measured: twice as long."""
    doubled = {op: [2 * each for each in seconds] for op, seconds in predicted.operation_seconds.items()}
    return predicted.model_copy(
        update={
            "source": "measured", "steps": 2, "step_seconds": 2 * predicted.step_seconds, "links": [],
            "operation_seconds": doubled, "sent_across_nodes_bytes": [0] * predicted.ranks,
        }
    )  # fmt: skip


def measured(spans: list[Span]) -> RunTimeline:
    """Two steps of every rank, of which the first has the spans, at another time of the clock."""
    later = [
        s.model_copy(update={"start_seconds": s.start_seconds + 50, "end_seconds": s.end_seconds + 50})
        for s in spans
    ]
    steps = [
        StepSpan(rank=rank, phase="decode", number=n + 1, start_seconds=50.0 + n, end_seconds=51.0 + n)
        for rank in {s.rank for s in spans}
        for n in range(2)
    ]
    return RunTimeline(later, steps)


def pages() -> dict[str, Page]:
    report, spans = step()
    choice = Alternative(report, "EP 16", 64, 1, "flat", True)
    common = {"spans": spans, "capacity_bytes": 80e9}
    mends = [Mend("shard attention over 8 GPUs", "how it runs", 4e10, 1234.0)]
    return {
        "step": step_page(report, CONDITIONS, **common),  # type: ignore[arg-type]
        "plan": plan_page([choice], report, CONDITIONS, gpus=16, layout="EP 16", **common),  # type: ignore[arg-type]
        "stuck": plan_page(
            [],
            report,
            CONDITIONS,
            gpus=16,
            layout="EP 16",
            spans=spans,
            capacity_bytes=4e10,
            breaking_part="kv cache",
            mends=mends,
        ),
        "run": run_page(
            report.model_copy(update={"source": "measured", "steps": 3}),
            report,
            timeline(3),
            [moved()],
            CONDITIONS,
        ),
        "compare": compare_page(
            report, ran(report), RunTimeline(spans), measured(spans), CONDITIONS, ["in part"]
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
    assert html.count("Plotly.react") >= 1
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


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_are_read_and_parts_are_seen_on_either_ground(scheme: int) -> None:
    shade = {name: shades[scheme] for name, shades in SHADES.items()}
    for ground in ("paper", "ground"):
        for words in ("ink", "quiet", "limit"):
            assert contrast(shade[words], shade[ground]) >= 4.5, (words, ground)
    assert contrast(shade["ink"], shade["alarm"]) >= 4.5
    inks = [dict(re.findall(r"--on-([\w-]+):(#\w+)", half)) for half in style().split("@media")]
    for colour in OPERATIONS.values():
        assert contrast(inks[scheme][colour[6:-1]], shade[colour[6:-1]]) >= 4.5, colour
    for colour in {*OPERATIONS.values(), *MEMORY.values()} - {"var(--yellow)", "var(--cyan)"}:
        assert contrast(shade[colour[6:-1]], shade["paper"]) >= 1.7, colour


def test_a_page_holds_no_colour_of_its_own(all_pages: dict[str, Page]) -> None:
    """What does not come from the palette would be the same by day and by night."""
    for name, page in all_pages.items():
        figures = json.dumps([section.figure for section in page.sections])
        assert not re.findall(r"#[0-9a-f]{3,6}\b|rgba?\((?!0,0,0,0)", figures), name
        named = {used.removeprefix("on-") for used in re.findall(r"var\(--([\w-]+)\)", render(page))}
        assert named <= {*SHADES, "swatch"}, name


def test_what_does_not_fit_looks_like_it(all_pages: dict[str, Page]) -> None:
    stuck = all_pages["stuck"]
    assert stuck.banner is not None
    words = " ".join([stuck.banner.title, *stuck.banner.points])
    assert "7.10 GB too much" in words
    assert "kv cache" in words
    assert "shard attention over 8 GPUs" in words
    marked = {section.title: section.supposed for section in stuck.sections}
    assert not marked.pop("Memory")
    assert not marked.pop("Ways out")
    assert all(marked.values())
    assert "<em>if it fitted</em>" in render(stuck)
    assert all(page.banner is None for name, page in all_pages.items() if name != "stuck")


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


def test_a_run_says_which_step_is_drawn_and_marks_what_was_moved(all_pages: dict[str, Page]) -> None:
    titles = {section.title: section for section in all_pages["run"].sections}
    near = next(section for title, section in titles.items() if "close up" in title)
    assert re.search(r"Drawn is decode step \d of 3, the one of median length", near.see)
    assert near.figure is not None
    assert "wait" in {bar["name"] for bar in near.figure["data"]}
    whole = titles["The whole step"].figure
    assert whole is not None
    assert whole["layout"]["xaxis"]["range"][1] == pytest.approx(
        9, rel=0.01
    )  # ms: the step's end, not the last span's
    every = titles["Every decode step"].figure
    assert every is not None
    assert [(shape["x0"], shape["x1"]) for shape in every["layout"]["shapes"]] == [(1.5, 2.5)]
    assert "3 experts moved" in titles["Live balancing"].see
    assert titles["The prefill"].table is not None


def test_a_slow_rate_is_never_nothing() -> None:
    report, _ = step()
    slow = report.model_copy(update={"tokens_per_second": 0.0321})
    values = [tile.value + tile.remark for tile in step_page(slow, CONDITIONS).tiles]
    assert "0.0320.002 per GPU" in values


def test_a_comparison_lays_both_timelines_on_one_axis_and_says_every_error(
    all_pages: dict[str, Page],
) -> None:
    sections = {section.title: section for section in all_pages["compare"].sections}
    whole = sections["The whole step"].figure
    assert whole is not None
    bars = {bar["name"]: bar for bar in whole["data"]}["attention"]
    by_source = {
        of: sorted(
            (base, length)
            for row, base, length in zip(bars["y"], bars["base"], bars["x"], strict=True)
            if of in row
        )
        for of in ("predicted", "measured")
    }
    assert by_source["predicted"]
    for one, other in zip(by_source["predicted"], by_source["measured"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    times = sections["Time of the mean rank"]
    assert times.table is not None
    rows = {row[0]: row[1:] for row in times.table.rows}
    assert rows["attention"][2] == rows["step"][2] == "-50.0 %"
    assert {bar["name"] for bar in times.figure["data"]} == {"predicted", "measured"}  # type: ignore[index]
    sent = sections["Bytes that all ranks send in the step"].table
    assert sent is not None
    assert [row[3] for row in sent.rows] == ["0.0 %", "-"]
    near = next(section for title, section in sections.items() if "close up" in title)
    assert near.figure is not None
    assert near.figure["layout"]["xaxis"]["title"]["text"].startswith("time since layer")
    assert "in part" in all_pages["compare"].notes
