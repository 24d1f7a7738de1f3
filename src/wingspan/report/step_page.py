"""The page of one step, predicted or measured: where its time goes, what it waits for, what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wingspan.report import step_figures as figures
from wingspan.report.figures import Figure
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.ranks import representative
from wingspan.report.timeline import close_up, whole_step
from wingspan.report.units import bytes_text, rate_text, seconds_text, share_text, whole_text
from wingspan.schedule.result import Operation, Span, StepReport


def step_page(
    report: StepReport,
    conditions: Mapping[str, str],
    *,
    spans: Sequence[Span] = (),
    drawn: str = "",
    ended_seconds: float | None = None,
    capacity_bytes: float | None = None,
    more: Sequence[Section] = (),
) -> Page:
    """All pictures of one step.

    Args:
        conditions: model, cluster, workload: what a reader must know to trust the figures.
        spans: of one step, of any ranks; without any there is no timeline.
        drawn: which step that was, where there were several.
        ended_seconds: when it ended, where its spans do not say: on their clock.
        capacity_bytes: memory of one GPU.
        more: sections to put after the first ones, such as a comparison with a baseline.
    """
    sections = [
        *_timeline(report, spans, drawn, ended_seconds),
        *more,
        _breakdown(report),
        _exposed(report),
        *_links(report),
        *_memory(report, capacity_bytes),
        *_load(report),
    ]
    return Page(
        title=f"One {report.phase} step on {report.ranks} ranks, {report.source}",
        subtitle=_subtitle(report),
        tiles=_tiles(report, capacity_bytes),
        conditions=conditions,
        sections=sections,
        notes=report.notes,
    )


def _subtitle(report: StepReport) -> str:
    experts = "one expert" if report.experts_per_rank == 1 else f"{report.experts_per_rank} experts"
    nodes = -(-report.ranks // report.ranks_per_node)
    spread = "one node" if nodes == 1 else f"{nodes} nodes of {report.ranks_per_node}"
    means = f", means of {report.steps} steps" if report.steps > 1 else ""
    return f"{experts} per rank and layer, {spread}, {report.schedule} schedule{means}"


def _tiles(report: StepReport, capacity_bytes: float | None) -> list[Tile]:
    peak = max(report.peak_memory_bytes)
    filled = f"{share_text(peak / capacity_bytes)} of the GPU" if capacity_bytes else "on the fullest rank"
    error = "" if report.relative_error is None else f"± {report.relative_error * 100:.0f} %, "
    tiles = [
        Tile("Step time", seconds_text(report.step_seconds), f"{error}{whole_text(report.tokens)} tokens"),
        Tile(
            "Throughput, tokens/s",
            rate_text(report.tokens_per_second),
            f"{rate_text(report.tokens_per_second / report.ranks)} per "
            f"{'GPU' if report.source == 'predicted' else 'rank'}",
        ),
        Tile("Exposed communication", share_text(report.overhead), "of the step, on the mean rank"),
        Tile("Hottest expert", f"{report.imbalance:.2f} x mean", "tokens, per layer, mean over layers"),
        Tile("Peak memory", bytes_text(peak), filled),
    ]
    if report.utilisation:
        shares = " / ".join(f"{share * 100:.0f} %" for share in report.utilisation.values())
        tiles.append(Tile("Use of the GPU's peak", shares, f"{' / '.join(report.utilisation)}, mean rank"))
    return tiles


def _timeline(
    report: StepReport, spans: Sequence[Span], drawn: str, ended_seconds: float | None
) -> list[Section]:
    ranks = representative(report, {span.rank for span in spans})
    if not ranks:
        return []
    sections = []
    near = close_up(spans, ranks)
    if near is not None:
        rows = "Each rank has two rows: what it computes, and what travels meanwhile."
        sections.append(near_section(near, f"{rows} {_gaps(report, spans)} {drawn}".strip()))
    kind = {"slowest": "the slowest", "median": "a median", "fastest": "the fastest"}
    shown = ", ".join(f"rank {rank} ({kind[name]})" for rank, name in ranks.items())
    sections.append(
        Section(
            "The whole step",
            f"The same for all layers. Shown: {shown}, out of {report.ranks} ranks.{'' if sections else f' {drawn}'}",
            whole_step(spans, ranks, ended_seconds),
        )
    )
    return sections


def near_section(near: tuple[Figure, int, int], see: str) -> Section:
    """The close up of two layers, and how to look at it."""
    picture, first, last = near
    return Section(
        f"Layers {first} and {last}, close up" if first != last else f"Layer {first}, close up",
        see,
        picture,
        caption="Hover over a bar for its times and bytes; drag to zoom, double-click to go back.",
    )


def _gaps(report: StepReport, spans: Sequence[Span]) -> str:
    if any(span.operation is Operation.WAIT for span in spans):
        between = "" if report.source == "predicted" else ", or lies between operations"
        return f"A gap in a compute row is a transfer that nothing hides{between}; grey is waiting for slower ranks."
    return "A gap in a compute row is time in which the rank waits: that is where communication is exposed."


def _breakdown(report: StepReport) -> Section:
    reason = report.slowest_reason.removeprefix(f"rank {report.slowest_rank}: ").rstrip(".")
    pace = f"Rank {report.slowest_rank} sets the pace" + (f": {reason}." if reason else ".")
    return Section(
        "Where the time goes",
        f"{pace} Where a compute bar ends before the dashed line, that rank waits for the rest of the step.",
        figures.breakdown(report),
        operation_table(report),
        caption="Transfers count as far as a rank computes nothing meanwhile, so each column adds up to the step; "
        "what is hidden behind compute stands beside it.",
    )


def operation_table(report: StepReport) -> Table:
    """What the mean rank and the slowest one spend on each operation."""
    slowest = f"rank {report.slowest_rank} (slowest)"
    headings = ("operation", "mean rank", "of the step", slowest, "longest", "hidden, mean")
    return Table(headings, figures.operation_rows(report))


def _exposed(report: StepReport) -> Section:
    exposed = report.exposed_communication_seconds
    worst = exposed.index(max(exposed))
    return Section(
        "Exposed communication",
        f"Time in which a rank waits for a transfer and has nothing to compute: {share_text(report.overhead)} of the "
        f"step on the mean rank, most on rank {worst} ({seconds_text(exposed[worst])}). "
        "Communication that is hidden behind compute does not count.",
        figures.exposed(report),
        caption=f"Rank {worst} computes for {seconds_text(report.step_seconds - exposed[worst])} of the step. A rank "
        "with less to compute waits longer, so imbalance shows here too.",
    )


def _links(report: StepReport) -> list[Section]:
    sections = []
    if (use := figures.links(report)) is not None:
        busiest = max(report.links, key=lambda link: link.utilisation)
        sections.append(
            Section(
                "Links",
                f"The fullest link decides how long a transfer takes. Busiest here: {busiest.link.replace('_', ' ')}, "
                f"carrying data for {share_text(busiest.utilisation)} of the step.",
                use,
                Table(("link", "busy", "through the busiest", "in all"), figures.link_rows(report)),
            )
        )
    if (sent := figures.bytes_by_rank(report)) is not None:
        within, across = sum(report.sent_within_node_bytes), sum(report.sent_across_nodes_bytes)
        sections.append(
            Section(
                "Bytes sent by each rank",
                f"{bytes_text(within)} stay within nodes and {bytes_text(across)} cross between nodes in one step, "
                "over all ranks. Uneven bars mean that some ranks' network cards work more than others.",
                sent,
            )
        )
    return sections


def _memory(report: StepReport, capacity_bytes: float | None) -> list[Section]:
    peak = max(report.peak_memory_bytes)
    if not peak:
        return []
    if capacity_bytes is None:
        verdict = f"The fullest rank needs {bytes_text(peak)}."
    elif peak <= capacity_bytes:
        verdict = f"It fits: the fullest rank leaves {bytes_text(capacity_bytes - peak)} free."
    else:
        verdict = f"It does not fit: the fullest rank lacks {bytes_text(peak - capacity_bytes)}."
    largest = max(report.memory_bytes, key=lambda part: max(report.memory_bytes[part]), default=None)
    named = f" The largest part is {largest.value}." if largest else ""
    return [Section("Memory", verdict + named, figures.memory(report, capacity_bytes))]


def _load(report: StepReport) -> list[Section]:
    picture = figures.expert_load(report)
    if picture is None:
        return []
    return [
        Section(
            "Load of the experts",
            "Each row is a MoE layer, each column an expert. Best is one even tone. Dark cells are experts that get "
            "many times the mean: with one expert per GPU their rank is the last to finish that layer. "
            f"The hottest expert of a layer gets {report.imbalance:.2f} times the mean, averaged over layers.",
            picture,
        )
    ]
