"""What `wingspan simulate-serving` does: options to requests and groups, and what is shown of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wingspan.cli.console import Console
from wingspan.cli.counting import Counting
from wingspan.cli.values import numbers
from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_REQUESTS, MOST_TOKENS
from wingspan.report.page import write_page
from wingspan.report.rows import csv_text, serving_rows
from wingspan.report.serving_page import serving_page
from wingspan.report.terminal import sentences, serving_head, serving_table
from wingspan.report.units import count_text
from wingspan.schedule.serving_result import ServingLimits, ServingReport
from wingspan.simulate.serving.predict import Serving, predict_serving
from wingspan.simulate.serving.source import (
    USUAL_REQUESTS,
    RequestSource,
    drawn_requests,
    rates_of,
    recorded_requests,
)
from wingspan.specs.models import load_model
from wingspan.specs.reading import parse
from wingspan.specs.routing_text import parse_routing
from wingspan.writing import json_text


@dataclass(frozen=True)
class ServingArguments:
    """The command line: what serves, and the rest."""

    serving: Serving
    seed: int | None
    rate: str | None
    requests: Path | None
    num_requests: int | None
    prompt_tokens: int
    output_tokens: int
    length_spread: float
    ttft_p99: float | None
    tpot_p99: float | None
    find_limit: bool
    as_json: bool
    as_csv: bool
    html: Path | None


def execute(arguments: ServingArguments) -> None:
    """Simulate every load and show the result."""
    limits = parse(
        ServingLimits,
        {"ttft_p99_seconds": arguments.ttft_p99, "tpot_p99_seconds": arguments.tpot_p99},
        "limits",
    )
    if arguments.find_limit and not limits.any:
        raise InputError("--find-limit needs a limit: --ttft-p99 SECONDS, --tpot-p99 SECONDS, or both")
    _check_sizes(arguments)
    source = _source(arguments)
    _check_seed(arguments, source)
    given = [] if arguments.rate is None else numbers(arguments.rate, "--rate")
    rates, remarks = rates_of(source, given, searched=arguments.find_limit)
    with Counting("simulating") as counting:
        report = predict_serving(
            arguments.serving,
            source,
            rates,
            limits,
            search=arguments.find_limit,
            watch=lambda rate, done, of: counting.show(f"{rate:.3g} requests/s", done, of),
        )
    report = report.model_copy(update={"notes": [*remarks, *report.notes]})
    if arguments.as_json:
        print(json_text(report.model_dump(mode="json"), indent=2))
    elif arguments.as_csv:
        print(csv_text(serving_rows(report)), end="")
    else:
        _show(report, arguments)
    if arguments.html:
        write_page(serving_page(report), arguments.html)


def _check_sizes(arguments: ServingArguments) -> None:
    """Raise `InputError` for a size that would only end in a day, or with the memory."""
    for option, value, most in (
        ("--num-requests", arguments.num_requests or 0, MOST_REQUESTS),
        ("--prompt-tokens", arguments.prompt_tokens, MOST_CONTEXT),
        ("--output-tokens", arguments.output_tokens, MOST_CONTEXT),
        ("--max-sequences", arguments.serving.max_sequences, MOST_TOKENS),
        ("--step-tokens", arguments.serving.step_tokens, MOST_TOKENS),
    ):
        if value > most:
            raise InputError(f"{option} {value:,}: is more than {most:,}")


def _check_seed(arguments: ServingArguments, source: RequestSource) -> None:
    """Raise `InputError` for a seed where neither requests, nor arrivals, nor experts' shares are drawn."""
    if arguments.seed is None or source.seeded:
        return
    drawn = arguments.serving.deployment is None and parse_routing(arguments.serving.routing).kind in (
        "log_normal",
        "power_law",
    )
    if not drawn:
        raise InputError(
            f"--seed {arguments.seed}: does nothing here: {arguments.requests} says when requests arrive, and this "
            "routing is not drawn; leave it out"
        )


def _source(arguments: ServingArguments) -> RequestSource:
    serving, seed = arguments.serving, arguments.serving.seed
    model = load_model(serving.model) if serving.deployment is None else serving.deployment.model
    if arguments.requests is not None:
        return recorded_requests(model, arguments.requests, arguments.num_requests, seed=seed)
    return drawn_requests(
        model,
        arguments.num_requests or USUAL_REQUESTS,
        arguments.prompt_tokens,
        arguments.output_tokens,
        spread=arguments.length_spread,
        seed=seed,
    )


def _show(report: ServingReport, arguments: ServingArguments) -> None:
    console = Console(highlight=False)
    for name, value in report.conditions.items():
        console.print(f"[dim]{name}:[/dim] {value}")
    for group in report.groups:
        console.print(
            f"[dim]{group.name.capitalize()}:[/dim] {group.ranks} ranks; room for "
            f"{count_text(group.kv_tokens_per_home * group.homes)} tokens of KV cache, "
            f"{count_text(group.sequences_per_home * group.homes)} sequences"
        )
    console.print(f"[dim]{serving_head(report)}[/dim]\n")
    console.print(serving_table(report, console.width))
    console.print()
    if report.limits.any:
        highest = report.highest_load_requests_per_second
        searched = "" if arguments.find_limit else " of those given (--find-limit searches)"
        answer = "none" if highest is None else f"{highest:.3g} requests/s"
        console.print(f"highest load within the limits{searched}: [bold]{answer}[/bold]")
    for line in sentences(report.notes):
        console.print(line)
    if arguments.html:
        console.print(f"page: {arguments.html} (open in a browser)")
