"""What `wingspan sweep` does: options to axes, the predictions, and what is shown of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from wingspan.cli.console import Console
from wingspan.cli.progress import progress
from wingspan.cli.values import integers, numbers, words
from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_EXPERTS, MOST_RANKS, MOST_TOKENS
from wingspan.report.terminal import sentences, sweep_table
from wingspan.schedule.price import price_per_million_tokens
from wingspan.schedule.sweep_result import SweepResult
from wingspan.simulate import sweep_axes
from wingspan.simulate.sweep import Axis, Setting, sweep
from wingspan.simulate.sweep_start import settle
from wingspan.specs.cluster import Cluster

_USUAL_CONTEXT = 4096
_MOST_ROWS = 60
"""Longer tables are not printed: the CSV and the page have all."""


def predict(
    start: Setting, axes: Sequence[Axis], longest_step_ms: float | None, price: float | None
) -> SweepResult:
    """All points, with a bar of progress on a terminal; with a price of a GPU hour, what their tokens cost."""
    base, varied, conditions = settle(start, axes)
    count = math.prod(len(axis.choices) for axis in varied)
    with progress("predicting", count) as advance:
        longest = None if longest_step_ms is None else longest_step_ms / 1e3
        result = sweep(base, varied, conditions, advance, longest)
    return result if price is None else _priced(result, price)


def _priced(result: SweepResult, price: float) -> SweepResult:
    points = [
        point.model_copy(
            update={
                "price_per_million_tokens": price_per_million_tokens(price, point.tokens_per_second_per_gpu)
            }
        )
        for point in result.points
    ]
    return result.model_copy(update={"points": points})


def sizes(
    phase: str, tokens_per_gpu: str | None, context: str | None, longest: int | None, *, whole: bool = False
) -> tuple[str, str]:
    """Batches and contexts, as given or as usual; raises `InputError` where a step cannot hold a prompt.

    With `whole` sequences are counted, and any prompt fits.
    """
    prefill = phase == "prefill"
    batch = tokens_per_gpu or ("4096" if prefill else "64")
    smallest = min(integers(batch, "--tokens-per-gpu", MOST_TOKENS))
    usual = min(_USUAL_CONTEXT, longest or _USUAL_CONTEXT)
    context = context or str(min(usual, smallest) if prefill else usual)
    largest = max(integers(context, "--context", MOST_CONTEXT))
    if prefill and largest > smallest and not whole:
        raise InputError(
            f"a prefill of {smallest:,} tokens per GPU cannot hold a prompt of {largest:,}: raise --tokens-per-gpu or "
            "lower --context"
        )
    return batch, context


def all_axes(clusters: Sequence[Cluster], texts: dict[str, str | None]) -> list[Axis]:
    """Every axis that was given, outermost first.

    Args:
        clusters: of the first.
        texts: the values of the others, by the option's name; None leaves it out.
    """
    grouped = texts["--experts-per-rank"] is not None
    given = {option: text for option, text in texts.items() if text is not None}
    return [
        sweep_axes.cluster_axis(clusters),
        *(make(given[option], option) for option, make in _makers(grouped) if option in given),
    ]


def _makers(grouped: bool) -> Iterator[tuple[str, Callable[[str, str], Axis]]]:
    """How each option's text becomes an axis, in the order in which they nest."""
    yield "--schedule", lambda text, option: sweep_axes.schedule_axis(words(text, option))
    yield "--routing", lambda text, option: sweep_axes.routing_axis(words(text, option))
    yield "--bandwidth", lambda text, option: sweep_axes.bandwidth_axis(numbers(text, option))
    for name, axis, most in (
        ("--context", sweep_axes.context_axis, MOST_CONTEXT),
        ("--tokens-per-gpu", sweep_axes.batch_axis, MOST_TOKENS),
        ("--total-sequences", sweep_axes.total_sequences_axis, MOST_TOKENS),
        ("--expert-tp", sweep_axes.expert_tp_axis, MOST_RANKS),
        ("--experts-per-rank", sweep_axes.experts_per_rank_axis, MOST_EXPERTS),
        ("--ranks", partial(sweep_axes.ranks_axis, grouped=grouped), MOST_RANKS),
    ):
        yield name, partial(_counted, axis, most)


def _counted(axis: Callable[[Sequence[int]], Axis], most: int, text: str, option: str) -> Axis:
    return axis(integers(text, option, most))


def show(result: SweepResult, html: Path | None) -> None:
    """Conditions, table and sentences on the terminal."""
    console = Console(highlight=False)
    for name, value in result.conditions.items():
        console.print(f"[dim]{name}:[/dim] {value}")
    if len(result.points) <= _MOST_ROWS:
        console.print(sweep_table(result))
    else:
        console.print(f"\n{len(result.points)} points; --csv or --json for all, --html for pictures\n")
    for line in (*sentences(result.findings), *sentences(result.notes)):
        console.print(line)
    if html:
        console.print(f"page: {html} (open in a browser)")
