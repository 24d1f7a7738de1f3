"""Pictures of one step's report: operations, exposed communication, links, memory, load of the experts."""

from __future__ import annotations

from typing import Any

from wingspan.report.figures import Figure, axis, bound, category_axis, figure, heat_map, row_axis
from wingspan.report.palette import ACROSS_NODES, INK, MEMORY, OPERATIONS, PAPER, WITHIN_NODE
from wingspan.report.ranks import representative
from wingspan.report.units import bytes_text, seconds_text, share_text, time_scale
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import COMMUNICATION

_GB = 1e9


def breakdown(report: StepReport) -> Figure:
    """Busy time per operation of three ranks, what computes and what travels in bars of their own."""
    ranks = representative(report)
    scale, unit = time_scale(report.step_seconds)
    rows = {
        (rank, travels): f"rank {rank} ({name})  {'communication' if travels else 'compute'}"
        for rank, name in ranks.items()
        for travels in (False, True)
    }
    data = []
    for operation in OPERATIONS:
        seconds = report.operation_seconds.get(operation)
        if seconds is None or not _shows(max(seconds), report):
            continue
        travels = operation in COMMUNICATION
        values = [seconds[rank] * scale for rank in ranks]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": operation.value.replace("_", " "),
                "y": [rows[rank, travels] for rank in ranks],
                "x": values,
                "marker": {"color": OPERATIONS[operation], "line": {"color": PAPER, "width": 1}},
                "hovertemplate": f"{operation.value.replace('_', ' ')}: %{{x:.3g}} {unit}<extra></extra>",
            }
        )
    names = list(rows.values())
    return figure(
        data,
        height=100 + 38 * len(names),
        barmode="stack",
        xaxis=axis(f"busy time in the step, {unit}", range=[0, report.step_seconds * scale * 1.02]),
        yaxis=row_axis(names),
        **bound(report.step_seconds * scale, f"the step takes {seconds_text(report.step_seconds)}"),
    )


def exposed(report: StepReport) -> Figure:
    """Show how long each rank waits for a transfer with nothing to compute."""
    scale, unit = time_scale(max(report.exposed_communication_seconds))
    mean = sum(report.exposed_communication_seconds) / report.ranks
    return figure(
        [
            {
                "type": "bar",
                "x": list(range(report.ranks)),
                "y": [seconds * scale for seconds in report.exposed_communication_seconds],
                "marker": {"color": OPERATIONS[Operation.DISPATCH]},
                "hovertemplate": f"rank %{{x}}: %{{y:.3g}} {unit}<extra></extra>",
            }
        ],
        height=260,
        bargap=0.1,
        xaxis=axis("rank", showgrid=False),
        yaxis=axis(f"exposed, {unit}", rangemode="tozero"),
        shapes=[
            {
                "type": "line",
                "x0": 0,
                "x1": 1,
                "xref": "paper",
                "y0": mean * scale,
                "y1": mean * scale,
                "line": {"color": INK, "width": 1.5, "dash": "dot"},
            }
        ],
        annotations=[
            {
                "x": 1,
                "xref": "paper",
                "y": mean * scale,
                "xanchor": "right",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"mean {seconds_text(mean)}",
                "bgcolor": PAPER,
            }
        ],
    )


def links(report: StepReport) -> Figure | None:
    """How busy the most loaded link of each class is; None where the report names no link."""
    if not report.links:
        return None
    shares = [link.utilisation * 100 for link in report.links]
    return figure(
        [
            {
                "type": "bar",
                "orientation": "h",
                "y": [link.link.replace("_", " ") for link in report.links],
                "x": shares,
                "marker": {"color": ACROSS_NODES},
                "text": [share_text(link.utilisation) for link in report.links],
                "textposition": "auto",
                "hoverinfo": "text",
            }
        ],
        height=90 + 42 * len(report.links),
        xaxis=axis("time in which the busiest carries data, % of the step", range=[0, 112]),
        yaxis=category_axis(),
    )


def bytes_by_rank(report: StepReport) -> Figure | None:
    """What each rank sends in the step, inside its node and beyond; None where nothing was sent."""
    parts = (
        ("within the node", report.sent_within_node_bytes, WITHIN_NODE),
        ("across nodes", report.sent_across_nodes_bytes, ACROSS_NODES),
    )
    most = max(max(sizes) for _, sizes, _ in parts)
    if not most:
        return None
    scale, unit = (1e9, "GB") if most >= 1e9 else (1e6, "MB")
    return figure(
        [
            {
                "type": "bar",
                "name": name,
                "x": list(range(report.ranks)),
                "y": [size / scale for size in sizes],
                "marker": {"color": colour},
                "hovertemplate": f"rank %{{x}} {name}: %{{y:.3g}} {unit}<extra></extra>",
            }
            for name, sizes, colour in parts
        ],
        height=280,
        barmode="stack",
        bargap=0.1,
        xaxis=axis("rank", showgrid=False),
        yaxis=axis(f"sent in the step, {unit}", rangemode="tozero"),
    )


def memory(report: StepReport, capacity_bytes: float | None) -> Figure:
    """Memory by part on the fullest and the emptiest rank, against what a GPU has."""
    peaks = report.peak_memory_bytes
    fullest, emptiest = peaks.index(max(peaks)), peaks.index(min(peaks))
    ranks = {fullest: "fullest"} | ({emptiest: "emptiest"} if emptiest != fullest else {})
    rows = [f"rank {rank} ({name})" for rank, name in ranks.items()]
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part.value,
            "y": rows,
            "x": [sizes[rank] / _GB for rank in ranks],
            "marker": {"color": MEMORY[part], "line": {"color": PAPER, "width": 1}},
            "hovertemplate": f"{part.value}: %{{x:.3g}} GB<extra></extra>",
        }
        for part, sizes in report.memory_bytes.items()
        if any(sizes)
    ]
    longest = max(max(peaks), capacity_bytes or 0) / _GB
    mark = bound(capacity_bytes / _GB, f"a GPU has {bytes_text(capacity_bytes)}") if capacity_bytes else {}
    return figure(
        data,
        height=100 + 52 * len(rows),
        barmode="stack",
        xaxis=axis("memory, GB (1 GB = 1e9 bytes)", range=[0, longest * 1.02]),
        yaxis=category_axis(),
        **mark,
    )


def link_rows(report: StepReport) -> list[list[str]]:
    """Each class of links: busy, bytes through the busiest, bytes through all."""
    return [
        [
            use.link.replace("_", " "),
            share_text(use.utilisation),
            bytes_text(use.busiest_bytes),
            bytes_text(use.total_bytes),
        ]
        for use in report.links
    ]


def expert_load(report: StepReport) -> Figure | None:
    """Tokens per expert and MoE layer, relative to the layer's mean; None where no token was routed."""
    means = [sum(layer) / len(layer) if layer else 0.0 for layer in report.load_tokens]
    if not any(means):
        return None
    relative = [
        [round(tokens / mean, 3) if mean else 0.0 for tokens in layer]
        for layer, mean in zip(report.load_tokens, means, strict=True)
    ]
    height = max(240, min(460, 120 + 6 * len(relative)))
    return heat_map(relative, x="logical expert", y="MoE layer", unit="tokens / mean", height=height)


def _shows(seconds: float, report: StepReport) -> bool:
    """Whether a time is more than the rounding of sums."""
    return seconds > 1e-9 * report.step_seconds


def operation_rows(report: StepReport) -> list[list[str]]:
    """Operation, mean rank, its share of the step, slowest rank, longest on any rank, hidden; longest first.

    What is hidden counts in the last column only, so that the others add up to the step.
    """
    kept = [(op, spent) for op, spent in report.spent_seconds.items() if _exists(op, report)]
    kept.sort(key=lambda item: -sum(item[1]))
    rows = []
    for operation, spent in kept:
        mean = sum(spent) / report.ranks
        hidden = sum(report.hidden_seconds.get(operation, [])) / report.ranks
        rows.append(
            [
                operation.value.replace("_", " "),
                seconds_text(mean),
                share_text(mean / report.step_seconds) if report.step_seconds else "-",
                seconds_text(spent[report.slowest_rank]),
                seconds_text(max(spent)),
                seconds_text(hidden) if hidden else "-",
            ]
        )
    whole = seconds_text(report.step_seconds)
    return [*rows, ["step", whole, share_text(1.0), whole, whole, ""]]


def _exists(operation: Operation, report: StepReport) -> bool:
    return _shows(max(report.operation_seconds[operation]), report)
