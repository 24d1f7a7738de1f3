"""What a person sees of a predicted step."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.deployment import Deployment
from wingspan.report.columns import bytes_column
from wingspan.report.perfetto import write_trace
from wingspan.report.rows import csv_text, step_rows
from wingspan.report.step_accounts import hidden_account, time_account
from wingspan.report.units import full_rate_text
from wingspan.schedule.result import StepReport
from wingspan.simulate.predicted_timeline import predicted_timeline
from wingspan.simulate.prediction import Prediction
from wingspan.specs.engines import EngineKind, profile_of

_TRACED_RANKS = 8


def show(deployment: Deployment, report: StepReport, trace: Path | None) -> None:
    """The step in a few tables."""
    console = Console(highlight=False)
    console.print(describe(deployment))
    between = report.step_range_seconds
    error = "" if between is None else f" ({between[0] * 1e3:,.3g} to {between[1] * 1e3:,.3g})"
    console.print(
        f"\n[bold]step {report.step_seconds * 1e3:,.2f} ms[/bold]{error}   "
        f"[bold]{full_rate_text(report.tokens_per_second / report.ranks)} tokens/s per GPU[/bold]   "
        f"{full_rate_text(report.tokens_per_second)} in all"
    )
    console.print(fit_line(report, deployment.cluster.gpu.memory_bytes))
    for table in (_times(report), _links(report), memory_table(report, deployment.cluster.gpu.memory_bytes)):
        console.print()
        console.print(table)
    console.print()
    console.print(
        f"load: fullest expert {report.imbalance:.2f} x the mean, mean over layers. "
        f"Slowest: {report.slowest_reason}"
    )
    console.print(f"rests on: {report.rests_on}")
    for note in report.notes:
        console.print(f"[dim]- {note}[/dim]")
    if trace is not None:
        console.print(f"trace: {trace} (open in ui.perfetto.dev or chrome://tracing)")


def describe(deployment: Deployment) -> str:
    """Model, hardware, work and layout in two lines."""
    work, cluster = deployment.workload, deployment.used_cluster
    group = deployment.options.attention_ranks
    attention = "data-parallel attention" if group == 1 else f"attention over {group} GPUs"
    return (
        f"[bold]{deployment.model.name}[/bold] on {cluster.gpus} x {cluster.gpu.name} ({cluster.name}): "
        f"{work.phase}, {_batch(deployment)}, context {work.context.mean_tokens}\n"
        f"{deployment.layout}, {_experts(deployment)}, "
        f"{deployment.placement.strategy.value.replace('_', '-')} placement{_shared(deployment)}, {attention}, "
        f"{_dispatch(deployment)}, {deployment.build_schedule().name}, "
        f"{work.routing.kind.replace('_', '-')} routing{_engine(deployment)}; {deployment.precisions.described}"
    )


def _shared(deployment: Deployment) -> str:
    return " with shared experts in slots" if deployment.model.experts.shared_slots else ""


def _engine(deployment: Deployment) -> str:
    engine = deployment.options.engine
    return "" if engine is EngineKind.NONE else f", {profile_of(engine).name} around it"


def _batch(deployment: Deployment) -> str:
    """The work of a step, as it was asked for."""
    work = deployment.workload
    if work.total_sequences is not None:
        idle = int((deployment.of_attention_group(deployment.tokens_R) == 0).sum())
        count = f"{work.total_sequences} sequence{'s' if work.total_sequences > 1 else ''} in all"
        return count if not idle else f"{count} ({idle} GPUs without)"
    kind = "sequence" if work.phase == "decode" else "token"
    count = f"{work.tokens_per_gpu} {kind}{'s' if work.tokens_per_gpu > 1 else ''} per GPU"
    if not work.tokens_spread:
        return count
    least, most = (int(bound) for bound in (deployment.tokens_R.min(), deployment.tokens_R.max()))
    return f"{count} ({least:,} to {most:,})"


def _experts(deployment: Deployment) -> str:
    """How many a GPU holds, and how much of each."""
    each, cut = deployment.placement.experts_per_rank, deployment.options.expert_tensor_parallel
    experts = f"{each} expert{'s' if each > 1 else ''}"
    return f"{experts} per GPU" if cut == 1 else f"1/{cut} of {experts} per GPU"


def _dispatch(deployment: Deployment) -> str:
    alone = deployment.sending is None and deployment.ranks > 1
    return "no dispatch" if alone else f"{deployment.dispatcher.value} dispatch"


def fit_line(report: StepReport, capacity: float) -> str:
    """Whether the fullest rank has room."""
    peak = max(report.peak_memory_bytes)
    if peak <= capacity:
        return f"[green]fits[/green]: {peak / 1e9:.1f} of {capacity / 1e9:.1f} GB on the fullest GPU"
    return f"[red]does not fit[/red]: {peak / 1e9:.1f} GB needed of {capacity / 1e9:.1f} GB"


def memory_table(report: StepReport, capacity: float) -> Table:
    """Memory of the fullest rank by part."""
    rank = report.peak_memory_bytes.index(max(report.peak_memory_bytes))
    table = _table("memory of the fullest GPU", "GB", "of GPU")
    for part, sizes in report.memory_bytes.items():
        if sizes[rank]:
            table.add_row(part, f"{sizes[rank] / 1e9:.3f}", f"{sizes[rank] / capacity:.1%}")
    table.add_section()
    peak = report.peak_memory_bytes[rank]
    table.add_row("all parts", f"{peak / 1e9:.3f}", f"{peak / capacity:.1%}")
    return table


def print_csv(report: StepReport) -> None:
    """One line per rank: its seconds per operation, waiting, bytes and memory."""
    print(csv_text(step_rows(report)), end="")


def write_timeline(prediction: Prediction, slowest: int, path: Path) -> None:
    """The timeline of the first ranks and of the slowest one."""
    ranks = sorted({*range(min(_TRACED_RANKS, prediction.deployment.ranks)), slowest})
    write_trace(predicted_timeline(prediction, ranks), path)


def _times(report: StepReport) -> Table:
    table = _table("time of the mean GPU", "ms", "of step")
    for name, seconds in time_account(report).items():
        _time_row(table, name, seconds, report)
    table.add_section()
    _time_row(table, "step", report.step_seconds, report)
    hidden = {name: seconds for name, seconds in hidden_account(report).items() if seconds}
    if hidden:
        table.add_section()
    for name, seconds in hidden.items():
        _time_row(table, name, seconds, report)
    return table


def _time_row(table: Table, name: str, seconds: float, report: StepReport) -> None:
    table.add_row(name, f"{seconds * 1e3:,.2f}", f"{seconds / report.step_seconds:.1%}")


def _links(report: StepReport) -> Table:
    table = _table("use of the hardware", "busiest GPU", "of peak")
    for name, share in report.utilisation.items():
        table.add_row(name, "", f"{share:.1%}")
    unit, busiest = bytes_column([link.busiest_bytes for link in report.links])
    for link, text in zip(report.links, busiest, strict=True):
        table.add_row(f"{link.link} link", f"{text} {unit}", f"{link.utilisation:.1%}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column(title, min_width=26)
    for column in columns:
        table.add_column(column, justify="right", min_width=11)
    return table
