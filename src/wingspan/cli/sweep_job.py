"""What `wingspan sweep` does: options to axes, the predictions, and what is shown of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from wingspan.cli.console import Console
from wingspan.cli.values import integers, numbers, words
from wingspan.deployment import Options
from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_EXPERTS, MOST_RANKS, MOST_TOKENS
from wingspan.report.page import write_page
from wingspan.report.rows import csv_text, sweep_rows
from wingspan.report.sweep_page import sweep_page
from wingspan.report.terminal import sentences, sweep_table
from wingspan.schedule.sweep_result import SweepResult
from wingspan.simulate import sweep_axes
from wingspan.simulate.sweep import Axis, Setting, sweep
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision
from wingspan.specs.reading import parse
from wingspan.specs.workload import Workload
from wingspan.writing import json_text

_OPEN_EXPERTS = ("seed", "seed-gated", "seed-small")
"""The reference model leaves the number of experts open: one for each GPU."""
_USUAL_CONTEXT = 4096
_MOST_ROWS = 60
"""Longer tables are not printed: the CSV and the page have all."""


@dataclass(frozen=True)
class SweepArguments:
    """The command line, lists still as text."""

    model: str
    clusters: str
    ranks: str
    experts_per_rank: str | None
    tokens_per_gpu: str | None
    context: str | None
    routing: str
    bandwidth: str | None
    schedule: str
    phase: str
    attention_ranks: int
    scale_experts: bool | None
    weights: str | None
    activations: str | None
    kv: str | None
    seed: int
    as_json: bool
    as_csv: bool
    html: Path | None


def execute(arguments: SweepArguments) -> None:
    """Predict all points and show them."""
    base, axes, conditions = read(arguments)
    count = math.prod(len(axis.choices) for axis in axes)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("predicting", total=count)
        result = sweep(base, axes, conditions, lambda: progress.advance(task))
    if arguments.as_json:
        print(json_text(result.model_dump(mode="json"), indent=2))
    elif arguments.as_csv:
        print(csv_text(sweep_rows(result)), end="")
    else:
        _show(result, arguments)
    if arguments.html:
        write_page(sweep_page(result), arguments.html)


def read(arguments: SweepArguments) -> tuple[Setting, list[Axis], dict[str, str]]:
    """The base setting, the axes in the order in which they nest, and the conditions in words."""
    model = load_model(arguments.model)
    clusters = [load_cluster(name) for name in words(arguments.clusters, "--cluster")]
    scale = arguments.model in _OPEN_EXPERTS if arguments.scale_experts is None else arguments.scale_experts
    workload = {
        "phase": arguments.phase,
        "tokens_per_gpu": 1,
        "context": 1,
        "weights": arguments.weights,
        "activations": arguments.activations,
        "kv": arguments.kv or Precision.BF16,
        "seed": arguments.seed,
    }
    base = Setting(
        model=model,
        cluster=clusters[0],
        gpus=clusters[0].gpus,
        workload=parse(Workload, workload, "workload"),
        options=parse(Options, {"attention_ranks": arguments.attention_ranks}, "options"),
        scale_experts=scale,
    )
    conditions = {
        "Model": f"{model.name}: {model.layers} layers, top-{model.experts.per_token} of "
        + ("as many experts as GPUs" if scale else f"{model.experts.count} experts"),
        "Phase": arguments.phase,
        "Precision": base.workload.precisions(model).described,
    }
    if arguments.attention_ranks > 1:
        conditions["Attention"] = f"tensor-parallel over {arguments.attention_ranks} ranks of a node"
    axes = []
    for axis, fixed in _all_axes(arguments, clusters, model.max_context):
        if len(axis.choices) > 1:
            axes.append(axis)
        else:
            base = axis.choices[0].apply(base)
            conditions[axis.label[0].upper() + axis.label[1:]] = fixed
    return base, axes, conditions


def _sizes(arguments: SweepArguments, longest: int | None) -> tuple[str, str]:
    """Batches and contexts, as given or as usual; raises `InputError` where a step cannot hold a prompt."""
    prefill = arguments.phase == "prefill"
    batch = arguments.tokens_per_gpu or ("4096" if prefill else "64")
    smallest = min(integers(batch, "--tokens-per-gpu", MOST_TOKENS))
    usual = min(_USUAL_CONTEXT, longest or _USUAL_CONTEXT)
    context = arguments.context or str(min(usual, smallest) if prefill else usual)
    largest = max(integers(context, "--context", MOST_CONTEXT))
    if prefill and largest > smallest:
        raise InputError(
            f"a prefill of {smallest:,} tokens per GPU cannot hold a prompt of {largest:,}: raise --tokens-per-gpu or "
            "lower --context"
        )
    return batch, context


def _all_axes(
    arguments: SweepArguments, clusters: Sequence[Any], longest: int | None
) -> list[tuple[Axis, str]]:
    """Every axis with what to say of it where it has one value; outermost first."""
    grouped = arguments.experts_per_rank is not None
    batches, contexts = _sizes(arguments, longest)
    optional: list[tuple[Callable[..., Axis], str | None, Callable[[str, str], Any], str]] = [
        (sweep_axes.schedule_axis, arguments.schedule, words, "--schedule"),
        (sweep_axes.routing_axis, arguments.routing, words, "--routing"),
        (sweep_axes.bandwidth_axis, arguments.bandwidth, numbers, "--bandwidth"),
        (sweep_axes.context_axis, contexts, _integers(MOST_CONTEXT), "--context"),
        (sweep_axes.batch_axis, batches, _integers(MOST_TOKENS), "--tokens-per-gpu"),
        (
            sweep_axes.experts_per_rank_axis,
            arguments.experts_per_rank,
            _integers(MOST_EXPERTS),
            "--experts-per-rank",
        ),
        (partial(sweep_axes.ranks_axis, grouped=grouped), arguments.ranks, _integers(MOST_RANKS), "--ranks"),
    ]
    axes = [(sweep_axes.cluster_axis(clusters), clusters[0].name)]
    for make, text, values, option in optional:
        if text is not None:
            axes.append((make(values(text, option)), text))
    return axes


def _integers(most: int) -> Callable[[str, str], list[int]]:
    return partial(integers, most=most)


def _show(result: SweepResult, arguments: SweepArguments) -> None:
    console = Console(highlight=False)
    for name, value in result.conditions.items():
        console.print(f"[dim]{name}:[/dim] {value}")
    if len(result.points) <= _MOST_ROWS:
        console.print(sweep_table(result))
    else:
        console.print(f"\n{len(result.points)} points; --csv or --json for all, --html for pictures\n")
    for line in (*sentences(result.findings), *sentences(result.notes)):
        console.print(line)
    if arguments.html:
        console.print(f"page: {arguments.html} (open in a browser)")
