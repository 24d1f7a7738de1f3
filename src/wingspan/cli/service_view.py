"""What a person sees of a plan for requests: the best groups, why the others lose, the frontier, and what to run."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from wingspan.cli.console import Console
from wingspan.cli.plan_view import model_line
from wingspan.report.columns import Column, aligned, price_columns, seconds_column, table
from wingspan.report.units import full_rate_text
from wingspan.schedule.price import price_per_million_tokens
from wingspan.simulate.service import Offer, PhaseGroup, ServiceGoal
from wingspan.simulate.service_plan import Considered, ServicePlan
from wingspan.writing import json_text

ESTIMATED = "~ estimated from few layers (1 or 2 % off, more under skew); the others predicted whole"


def show(plan: ServicePlan, price: float | None, then: Mapping[str, Sequence[str]]) -> None:
    """Everything, at 80 columns; last `then`, titles and below each its commands."""
    console = Console(highlight=False)
    console.print(model_line(plan.template.model))
    console.print(asked_line(plan))
    console.print()
    judged = [(one.offer, one.reason) for one in plan.considered if one.offer and one.kind != "prefill"]
    if plan.best is None:
        near = "; what comes near:" if judged else ""
        console.print(f"[red]nothing keeps these limits[/red] in the memory there is{near}")
    else:
        _show_best(console, plan.best, price)
    console.print()
    if judged:
        console.print(_considered_table(judged, plan.best, price, console.width))
        console.print()
    for line in left_out(plan):
        console.print(f"[dim]{line}[/dim]")
    if plan.frontier:
        console.print()
        console.print("[dim]frontier: the most tokens/s per GPU for each speed that users see[/dim]")
        console.print(_frontier_table(plan, price, console.width))
        console.print()
    if any(one.offer is not None and one.offer.estimated for one in plan.considered):
        console.print(f"[dim]{ESTIMATED}[/dim]\n")
    for title, lines in then.items():
        console.print(f"[bold]{title}[/bold]")
        for line in lines:
            console.print(line, soft_wrap=True, markup=False)


def asked_line(plan: ServicePlan) -> str:
    """GPUs, requests and limits, in words."""
    goal, cluster, work = plan.goal, plan.template.cluster, plan.template.workload
    ahead = f"; {work.mtp_tokens} tried ahead, {work.acceptance:.0%} of them right" if work.mtp_tokens else ""
    return (
        f"{plan.gpus} x {cluster.gpu.name} ({cluster.name}): requests of {goal.prompt_tokens:,} prompt and "
        f"{goal.output_tokens:,} output tokens; {limits_text(goal)}; {plan.template.precisions.described}{ahead}"
    )


def limits_text(goal: ServiceGoal) -> str:
    """The limits, in words."""
    limits = [
        *([] if goal.ttft_seconds is None else [f"TTFT up to {goal.ttft_seconds:g} s"]),
        *([] if goal.tpot_seconds is None else [f"TPOT up to {goal.tpot_seconds * 1e3:g} ms"]),
    ]
    return " and ".join(limits) or "no limits"


def groups_lines(best: Offer) -> list[str]:
    """All groups, and how prompts are cut."""
    lines = []
    if best.prefill is not None:
        lines.append(groups_line("prefill", best.prefill, best.prefill_groups))
    lines.append(groups_line("decode" if best.prefill else "both", best.decode, best.decode_groups))
    if best.chunk_tokens is not None:
        lines.append(f"prompts in pieces of up to {best.chunk_tokens:,} tokens per GPU and step")
    if idle := best.gpus - best.used_gpus:
        lines.append(f"{idle} GPUs stay idle")
    return lines


def groups_line(kind: str, group: PhaseGroup, count: int) -> str:
    """One kind of groups, in words."""
    deployment = group.deployment
    options, slots = deployment.options, deployment.placement.experts_per_rank
    attention = options.attention_ranks
    work = "sequences" if deployment.workload.phase == "decode" else "tokens"
    return (
        f"{kind}: {count} x EP {group.ranks}, {slots} expert{'s' if slots > 1 else ''} per GPU"
        f"{f' ({group.redundant} redundant)' if group.redundant else ''}, "
        f"{_batch_text(group)} and {_step_text(group)}, "
        f"{'data-parallel attention' if attention == 1 else f'attention over {attention} GPUs'}, "
        f"{deployment.placement.strategy.value.replace('_', '-')} placement, {deployment.dispatcher.value} dispatch, "
        f"{options.schedule}; "
        f"{group.held_bytes / 1e9:.1f} of {deployment.cluster.gpu.memory_bytes / 1e9:.1f} GB"
        f"{' with all sequences at their longest' if work == 'sequences' else ''}"
    )


def _batch_text(group: PhaseGroup) -> str:
    decodes, total = group.deployment.workload.phase == "decode", group.total_sequences
    if total is None:
        return f"{group.batch:,} {'sequences' if decodes else 'tokens'} per GPU"
    return f"{total} {'sequence' if decodes else 'prompt'}{'s' if total > 1 else ''} in all"


def _batch_column(group: PhaseGroup) -> str:
    return str(group.batch) if group.total_sequences is None else f"{group.total_sequences} in all"


def _step_text(group: PhaseGroup) -> str:
    """The step that `simulate` predicts of the group's file; where prompts come beside it, the mean as well."""
    if group.decoding_seconds is None:
        return f"step of {group.step_seconds * 1e3:.1f} ms"
    mean, alone = group.step_seconds * 1e3, group.decoding_seconds * 1e3
    return f"step of {alone:.1f} ms ({mean:.1f} ms in the mean, prompts beside it included)"


def _show_best(console: Console, best: Offer, price: float | None) -> None:
    kind = "prefill and decode split" if best.prefill else "prefill and decode together"
    cost = (
        ""
        if price is None
        else f", {price_per_million_tokens(price, best.tokens_per_second_per_gpu):.3g} per million output tokens"
    )
    console.print(
        f"[bold]best: {kind}, {full_rate_text(best.tokens_per_second_per_gpu)} tokens/s per GPU[/bold] "
        f"({best.requests_per_second:,.1f} requests/s in all){cost}; each user gets "
        f"{best.tokens_per_second_per_user:.1f} tokens/s, TTFT {best.ttft_seconds:.2f} s, "
        f"TPOT {best.tpot_seconds * 1e3:.1f} ms"
    )
    for line in groups_lines(best):
        console.print(line)


def _considered_table(
    judged: Sequence[tuple[Offer, str]], best: Offer | None, price: float | None, width: int
) -> Table:
    why = ["the best" if offer is best else reason for offer, reason in judged]
    return _table_of([offer for offer, _ in judged], price, Column("why not", why, words=True), best, width)


def _table_of(
    offers: Sequence[Offer], price: float | None, remarks: Column, best: Offer | None, width: int
) -> Table:
    tpot_unit, between = seconds_column([offer.tpot_seconds for offer in offers])
    rates = [offer.tokens_per_second_per_gpu for offer in offers]
    prices = [None if price is None else price_per_million_tokens(price, rate) for rate in rates]
    columns = [
        Column("decode", [counted(offer.decode.ranks, offer.decode_groups) for offer in offers], words=True),
        Column("prefill", [_prefill(offer) for offer in offers], words=True),
        Column(
            "slots\n/GPU",
            [str(offer.decode.deployment.placement.experts_per_rank) for offer in offers],
            spared=1,
        ),
        Column("batch\n/GPU", [_batch_column(offer.decode) for offer in offers]),
        Column("TTFT\ns", aligned([offer.ttft_seconds for offer in offers], widest=4)),
        Column(f"TPOT\n{tpot_unit}", between),
        Column("tokens/s\n/user", aligned([offer.tokens_per_second_per_user for offer in offers])),
        Column("tokens/s\n/GPU", _marked(offers, aligned(rates, widest=7))),
        *price_columns("price\n/M", prices),
        remarks,
    ]
    return table(columns, ["bold" if offer is best else None for offer in offers], width)


def _marked(offers: Sequence[Offer], rates: Sequence[str]) -> list[str]:
    """The rates, those that are estimated with a mark."""
    return [f"~{rate}" if offer.estimated else rate for offer, rate in zip(offers, rates, strict=True)]


def _prefill(offer: Offer) -> str:
    return counted(offer.prefill.ranks, offer.prefill_groups) if offer.prefill else "together"


def _alike(considered: Sequence[Considered]) -> Iterator[list[Considered]]:
    """Neighbours that cannot be for one cause, as one row."""

    def key(one: Considered) -> tuple[str, str, int]:
        return (one.kind, one.cause, 0 if one.offer is None else one.ranks)

    for _, rows in groupby(considered, key):
        yield list(rows)


def _sizes(rows: Sequence[Considered]) -> str:
    first, last = rows[0].ranks, rows[-1].ranks
    return f"EP {first}" if first == last else f"EP {first} to {last}"


def counted(ranks: int, count: int) -> str:
    """So many groups, as `EP 24 x 2`."""
    return f"EP {ranks}" + (f" x {count}" if count > 1 else "")


def left_out(plan: ServicePlan) -> list[str]:
    """What has no row: EP sizes that cannot decode, or do both, and the other ones that could prefill."""
    lines = []
    for kind, name in (("split", "cannot decode"), ("together", "cannot do both")):
        if said := _reasons([c for c in plan.considered if c.kind == kind and c.offer is None]):
            lines.append(f"{name}: {said}")
    others = [c for c in plan.considered if c.kind == "prefill" and (not c.offer or c.offer is not plan.best)]
    if said := _reasons(others):
        lines.append(f"prefill on other EP sizes: {said}")
    return lines


def _reasons(considered: Sequence[Considered]) -> str:
    return "; ".join(f"{_sizes(rows)} {rows[-1].reason}" for rows in _alike(considered))


def _frontier_table(plan: ServicePlan, price: float | None, width: int) -> Table:
    marks = ["the best" if offer is plan.best else "" if offer.meets else "over" for offer in plan.frontier]
    return _table_of(plan.frontier, price, Column("", marks, words=True), plan.best, width)


def to_json(plan: ServicePlan, price: float | None, then: Mapping[str, Sequence[str]]) -> str:
    """Everything, as one object."""
    goal = plan.goal
    return json_text(
        {
            "model": plan.template.model.name,
            "gpus": plan.gpus,
            "prompt_tokens": goal.prompt_tokens,
            "output_tokens": goal.output_tokens,
            "ttft_seconds": goal.ttft_seconds,
            "tpot_seconds": goal.tpot_seconds,
            "best": plan.best and record(plan.best, price),
            "considered": [
                {
                    "kind": one.kind,
                    "ranks": one.ranks,
                    "cause": one.cause,
                    "reason": one.reason,
                    **({} if one.offer is None else record(one.offer, price)),
                }
                for one in plan.considered
            ],
            "frontier": [record(offer, price) for offer in plan.frontier],
            "commands": then,
        }
    )


def print_csv(plan: ServicePlan, price: float | None) -> None:
    """One line per point of the frontier."""
    records = [record(offer, price) for offer in plan.frontier]
    if records:
        names = list(dict.fromkeys(name for one in records for name in one))
        out = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        out.writeheader()
        out.writerows(records)


def record(offer: Offer, price: float | None) -> dict[str, Any]:
    """One arrangement as plain values."""
    values: dict[str, Any] = {"together": offer.prefill is None}
    groups = [("decode", offer.decode, offer.decode_groups)]
    groups += [("prefill", offer.prefill, offer.prefill_groups)] if offer.prefill else []
    for name, group, count in groups:
        options = group.deployment.options
        values |= {
            f"{name}_ranks": group.ranks,
            f"{name}_groups": count,
            f"{name}_experts_per_rank": group.deployment.placement.experts_per_rank,
            f"{name}_placement": group.deployment.placement.strategy.value,
            f"{name}_tokens_per_gpu": group.batch,
            f"{name}_total_sequences": group.total_sequences,
            f"{name}_attention_ranks": options.attention_ranks,
            f"{name}_dispatcher": group.deployment.dispatcher.value,
            f"{name}_schedule": options.schedule,
            f"{name}_step_seconds": group.step_seconds,
        }
        if group.decoding_seconds is not None:
            values[f"{name}_without_prompts_seconds"] = group.decoding_seconds
    rate = offer.tokens_per_second_per_gpu
    return values | {
        "chunk_tokens": offer.chunk_tokens,
        "requests_per_second": offer.requests_per_second,
        "tokens_per_second_per_gpu": rate,
        "tokens_per_second_per_user": offer.tokens_per_second_per_user,
        "ttft_seconds": offer.ttft_seconds,
        "tpot_seconds": offer.tpot_seconds,
        "within_limits": offer.meets,
        "estimated": offer.estimated,
        **({} if price is None else {"price_per_million_tokens": price_per_million_tokens(price, rate)}),
    }
