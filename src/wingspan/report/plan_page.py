"""The page of a plan: what each EP size gives, and the step of the best, or what to change where none fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wingspan.report.figures import Figure, axis, figure
from wingspan.report.page import Page, Section, Table
from wingspan.report.palette import QUIET, series
from wingspan.report.step_page import step_page
from wingspan.report.unfit import Mend, unfit
from wingspan.report.units import bytes_text, count_text, seconds_text, share_text
from wingspan.schedule.result import Span, StepReport


@dataclass(frozen=True)
class Alternative:
    """The best deployment of one layout, as `EP 64`; `shown` marks the one that the rest of the page is about.

    `price` is that of a million tokens, where a GPU's is known.
    """

    report: StepReport
    layout: str
    tokens_per_gpu: int
    attention_ranks: int
    dispatcher: str
    shown: bool
    price: float | None = None


def plan_page(
    choices: Sequence[Alternative],
    report: StepReport,
    conditions: Mapping[str, str],
    *,
    gpus: int,
    layout: str,
    spans: Sequence[Span] = (),
    capacity_bytes: float | None = None,
    breaking_part: str | None = None,
    mends: Sequence[Mend] = (),
) -> Page:
    """The step's page with the comparison in front.

    Args:
        choices: what fits, smallest EP first.
        report: of the one shown; the rest as in `step_page`.
        layout: of the one shown.
        gpus: all that may be used; EP groups smaller than that run side by side.
        breaking_part: what overflows the memory, where it does.
        mends: changes after which it fits.
    """
    page = step_page(report, conditions, spans=spans, capacity_bytes=capacity_bytes)
    if breaking_part is not None and capacity_bytes is not None:
        page = unfit(page, report, capacity_bytes, breaking_part, mends)
    front = _comparison(choices, gpus) if choices else []
    verdict = f"best of {len(choices)} layouts" if choices else "nothing fits; as asked"
    return replace(
        page,
        title=f"Plan for {gpus} GPUs: {layout}, {report.experts_per_rank} expert"
        + ("s" if report.experts_per_rank > 1 else "")
        + " per GPU",
        subtitle=f"{verdict}; below, its predicted {report.phase} step ({report.schedule} schedule)",
        sections=[*front, *page.sections],
    )


def _comparison(choices: Sequence[Alternative], gpus: int) -> list[Section]:
    best = next((choice for choice in choices if choice.shown), choices[-1])
    rows = [
        [
            choice.layout + (" (best)" if choice.shown else ""),
            str(choice.report.experts_per_rank),
            str(choice.attention_ranks),
            str(choice.tokens_per_gpu),
            choice.dispatcher,
            choice.report.schedule,
            seconds_text(choice.report.step_seconds),
            count_text(choice.report.tokens_per_second / choice.report.ranks),
            share_text(choice.report.overhead),
            bytes_text(max(choice.report.peak_memory_bytes)),
            *([] if choice.price is None else [f"{choice.price:.3g}"]),
        ]
        for choice in choices
    ]
    headings = (
        "", "experts per GPU", "attention over", "batch per GPU", "rows travel", "schedule", "step",
        "tokens/s per GPU", "exposed", "memory", *([] if best.price is None else ["price of a million tokens"]),
    )  # fmt: skip
    return [
        Section(
            "Which layout",
            f"The fastest deployment that fits, for each EP size on {gpus} GPUs, and with every expert cut over all "
            f"ranks of a group (TP). {best.layout} gives most: "
            f"{count_text(best.report.tokens_per_second / best.report.ranks)} tokens/s per GPU.",
            _throughput(choices),
            Table(headings, rows),
        )
    ]


def _throughput(choices: Sequence[Alternative]) -> Figure:
    rates = [choice.report.tokens_per_second / choice.report.ranks for choice in choices]
    return figure(
        [
            {
                "type": "bar",
                "x": [choice.layout for choice in choices],
                "y": rates,
                "marker": {"color": [series(0) if choice.shown else QUIET for choice in choices]},
                "text": [count_text(rate) for rate in rates],
                "textposition": "outside",
                "cliponaxis": False,
                "hoverinfo": "text",
            }
        ],
        height=320,
        margin={"l": 60, "r": 24, "t": 28, "b": 40},
        xaxis=axis("", type="category", showgrid=False),
        yaxis=axis("tokens/s per GPU", rangemode="tozero"),
    )
