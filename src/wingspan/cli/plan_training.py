"""What `wingspan plan --phase train` shows."""

from __future__ import annotations

import csv
import sys
from typing import Any

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.simulate.training.layout import Recompute
from wingspan.simulate.training.planning import TrainingChoice, TrainingPlan
from wingspan.writing import json_text

_SHOWN = 12


def show(plan: TrainingPlan) -> None:
    """The fastest layouts, and the memory of the best."""
    console = Console(highlight=False)
    model, work = plan.model, plan.workload
    console.print(
        f"[bold]{model.name}[/bold] trained on {plan.gpus} x {plan.cluster.gpu.name} ({plan.cluster.name}): "
        f"{plan.sequences:,} sequences of {work.tokens_per_gpu:,} tokens a step, "
        f"{work.precisions(model, plan.cluster.gpu).attention.activations} products"
    )
    capacity = plan.cluster.gpu.memory_bytes
    best = plan.choices[0]
    if plan.fits:
        console.print(f"{len(plan.choices)} of {plan.tried} layouts fit; the fastest:")
    else:
        console.print(
            f"[red]nothing fits[/red] {capacity / 1e9:.0f} GB; of {plan.tried} layouts that with the least memory:"
        )
    console.print(_table(plan))
    verdict = "best" if plan.fits else "least memory"
    console.print(
        f"[bold]{verdict}:[/bold] {_words(best)}; {best.micro_batches} micro-batches of one sequence a rank, "
        f"pipeline idle {best.step.bubble / best.step.seconds:.0%}"
    )
    console.print(
        "[dim]- memory of the fullest stage's GPUs, with even routing; tensor and context parallelism are not "
        "tried[/dim]"
    )


def to_json(plan: TrainingPlan) -> str:
    """Everything, as one object."""
    return json_text(
        {
            "model": plan.model.name,
            "gpus": plan.gpus,
            "total_sequences": plan.sequences,
            "tokens_per_sequence": plan.workload.tokens_per_gpu,
            "gpu_memory_bytes": plan.cluster.gpu.memory_bytes,
            "fits": plan.fits,
            "tried": plan.tried,
            "choices": [_record(plan, choice) for choice in plan.choices],
        }
    )


def print_csv(plan: TrainingPlan) -> None:
    """One line per layout that fits."""
    records = [_record(plan, choice) for choice in plan.choices if plan.fits]
    if records:
        out = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(records)


def _record(plan: TrainingPlan, choice: TrainingChoice) -> dict[str, Any]:
    layout, memory, step = choice.layout, choice.memory, choice.step
    return {
        "pipeline_parallel": layout.pipeline,
        "data_parallel": layout.data,
        "expert_parallel": layout.experts,
        "recompute": layout.recompute.value,
        "style": layout.states.style,
        "zero_stage": layout.states.zero,
        "micro_batches": choice.micro_batches,
        "step_seconds": step.seconds,
        "bubble_seconds": step.bubble,
        "exchange_seconds": step.exchange,
        "tokens_per_second_per_gpu": plan.tokens_per_second_per_gpu(choice),
        "weights_bytes": memory.weights,
        "gradients_bytes": memory.gradients,
        "optimizer_bytes": memory.optimizer,
        "activations_bytes": memory.activations,
        "reserve_bytes": memory.reserve,
        "memory_bytes": memory.total,
    }


def _table(plan: TrainingPlan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ("PP", "DP", "EP", "recom-\npute", "ZeRO", "step\ns", "tokens/s\n/GPU"):
        table.add_column(column, justify="left" if "recom" in column else "right", no_wrap=True)
    for column in ("weights\nGB", "gradi-\nents", "opti-\nmizer", "activa-\ntions", "all\nGB"):
        table.add_column(column, justify="right", no_wrap=True)
    for choice in plan.choices[:_SHOWN]:
        layout, memory = choice.layout, choice.memory
        parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.total)
        table.add_row(
            *map(str, (layout.pipeline, layout.data, layout.experts)),
            "sel." if layout.recompute is Recompute.SELECTIVE else layout.recompute.value,
            str(layout.states.zero),
            f"{choice.step.seconds:.3g}",
            f"{plan.tokens_per_second_per_gpu(choice):,.0f}",
            *(f"{part / 1e9:.1f}" for part in parts),
            style="bold" if choice is plan.choices[0] and plan.fits else None,
        )
    return table


def _words(choice: TrainingChoice) -> str:
    layout = choice.layout
    return (
        f"PP {layout.pipeline} x DP {layout.data}, EP {layout.experts}, {layout.recompute.value} recompute, "
        f"ZeRO {layout.states.zero} as {layout.states.style} keeps its states"
    )
