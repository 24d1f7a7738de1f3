"""What `wingspan simulate-serving` does: requests and groups, the simulations, what is shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wingspan.cli.console import Console
from wingspan.cli.values import numbers
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_REQUESTS, MOST_TOKENS
from wingspan.report.page import write_page
from wingspan.report.rows import csv_text, serving_rows
from wingspan.report.serving_page import serving_page
from wingspan.report.terminal import sentences, serving_table
from wingspan.report.units import count_text
from wingspan.schedule.serving_result import LoadPoint, ServingLimits, ServingReport
from wingspan.simulate.serving.deployed import Caps, group_of, kv_transfer
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.measure import described, measure
from wingspan.simulate.serving.search import find_highest_load
from wingspan.simulate.serving.settle import MOST_TIMES, alike, unsettled_note, until_settled
from wingspan.simulate.sweep_axes import with_routing, with_schedule
from wingspan.simulate.sweep_start import start
from wingspan.specs.models import load_model
from wingspan.specs.reading import parse
from wingspan.specs.requests import Requests, poisson_requests, read_requests
from wingspan.writing import json_text

_NOTES = (
    "step times are interpolated between predictions (docs/serving.md)",
    "a request is admitted when KV cache for its whole prompt and output is free; nothing is preempted",
    "throughput counts what ends while requests still arrive",
)


@dataclass(frozen=True)
class ServingArguments:
    """The command line."""

    model: str
    cluster: str
    ranks: int
    separate_prefill: int | None
    rate: str | None
    requests: Path | None
    num_requests: int
    prompt_tokens: int
    output_tokens: int
    length_spread: float
    max_sequences: int
    step_tokens: int
    ttft_p99: float | None
    tpot_p99: float | None
    find_limit: bool
    attention_ranks: int
    schedule: str
    routing: str
    weights: str | None
    activations: str | None
    kv: str | None
    seed: int
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
    longest = load_model(arguments.model).max_context
    sample, at_rate, cut = _source(arguments, longest)
    fleet, conditions = _fleet(arguments, sample)

    def with_requests(rate: float, count: int) -> LoadPoint:
        return measure(serve(at_rate(rate, count), fleet), rate, limits)

    with Console(stderr=True).status("simulating"):
        if arguments.requests is not None:
            own = len(sample)
            highest, points, remark = _loads(arguments, sample, lambda rate: with_requests(rate, own))
        else:
            count = arguments.num_requests
            highest, points, remark = _loads(
                arguments, sample, lambda rate: until_settled(partial(with_requests, rate), count)
            )
            points = alike(points, with_requests)
    report = ServingReport(
        conditions=conditions,
        ranks=sum(group.ranks for group in fleet.groups),
        groups=[described(group) for group in fleet.groups],
        limits=limits,
        points=points,
        highest_load_requests_per_second=highest if limits.any else None,
        notes=[note for note in (remark, cut, *_NOTES) if note],
    )
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
        ("--num-requests", arguments.num_requests, MOST_REQUESTS),
        ("--prompt-tokens", arguments.prompt_tokens, MOST_CONTEXT),
        ("--output-tokens", arguments.output_tokens, MOST_CONTEXT),
        ("--max-sequences", arguments.max_sequences, MOST_TOKENS),
        ("--step-tokens", arguments.step_tokens, MOST_TOKENS),
    ):
        if value > most:
            raise InputError(f"{option} {value:,}: is more than {most:,}")


def _source(
    arguments: ServingArguments, longest: int | None
) -> tuple[Requests, Callable[[float, int], Requests], str]:
    """A sample of the requests, the requests at a rate, and a note.

    At a rate they are so many drawn ones, cut to the model's `longest` context, or the file's faster or slower.

    Raises:
        InputError: the file has longer ones, or the drawn ones would be longer in the mean; no engine serves them.
    """
    if arguments.requests is not None:
        given = read_requests(arguments.requests)
        if longest is not None and (longer_N := given.longer_than(longest)).any():
            first = int(longer_N.argmax())
            tokens = int(given.prompt_tokens_N[first] + given.output_tokens_N[first])
            raise InputError(
                f"{arguments.requests}: {int(longer_N.sum()):,} of {len(given):,} requests are longer than the "
                f"{longest:,} tokens that {arguments.model} was made for (the first has {tokens:,}, prompt and "
                "output); leave them out"
            )
        # As they stand they may come at one instant: then they have no rate, and none can be asked for.
        return given, lambda rate, _: given if rate == given.rate_per_second else given.at_rate(rate), ""
    mean = arguments.prompt_tokens + arguments.output_tokens
    if longest is not None and mean > longest:
        raise InputError(
            f"--prompt-tokens {arguments.prompt_tokens} and --output-tokens {arguments.output_tokens} are longer than "
            f"the {longest:,} tokens that {arguments.model} was made for; ask for fewer"
        )

    def drawn(rate: float, count: int) -> Requests:
        lengths = (arguments.prompt_tokens, arguments.output_tokens)
        return poisson_requests(rate, count, *lengths, spread=arguments.length_spread, seed=arguments.seed)

    def draw(rate: float, count: int) -> Requests:
        return drawn(rate, count) if longest is None else drawn(rate, count).cut_to(longest)

    sample = drawn(_USUAL_RATE, MOST_TIMES * arguments.num_requests)
    longer = 0 if longest is None else int(sample.longer_than(longest).sum())
    cut = (
        f"{longer:,} of {len(sample):,} drawn requests are cut to the model's {longest:,} tokens"
        if longer
        else ""
    )
    return sample if longest is None else sample.cut_to(longest), draw, cut


def _fleet(arguments: ServingArguments, requests: Requests) -> tuple[Fleet, dict[str, str]]:
    lengths_N = requests.prompt_tokens_N + requests.output_tokens_N
    caps = Caps(
        sequences_per_gpu=arguments.max_sequences,
        tokens_per_step=arguments.step_tokens,
        longest_context=int(lengths_N.max()),
        mean_context=max(1, round(float(lengths_N.mean()))),
    )
    deployment = _deployment(arguments, arguments.ranks)
    model = deployment.model
    conditions = {
        "Model": f"{model.name}: {model.layers} layers, top-{model.experts.per_token} of {model.experts.count}",
        "Precision": deployment.workload.precisions(model).described,
        "Cluster": arguments.cluster,
        "Requests": _described(arguments, requests),
        "Step": f"{arguments.schedule} schedule, {arguments.routing} routing"
        + (f", attention over {arguments.attention_ranks} ranks" if arguments.attention_ranks > 1 else ""),
    }
    if arguments.separate_prefill is None:
        both = group_of(deployment, caps, name="prefill and decode", decodes=True, prefills=True)
        return Fleet(both), conditions
    apart = _deployment(arguments, arguments.separate_prefill)
    return (
        Fleet(
            group_of(apart, caps, name="prefill", decodes=False, prefills=True),
            group_of(deployment, caps, name="decode", decodes=True, prefills=False),
            kv_transfer(deployment, caps),
        ),
        conditions,
    )


def _deployment(arguments: ServingArguments, ranks: int) -> Deployment:
    setting = start(
        arguments.model,
        arguments.cluster,
        gpus=ranks,
        attention_ranks=arguments.attention_ranks,
        weights=arguments.weights,
        activations=arguments.activations,
        kv=arguments.kv,
        seed=arguments.seed,
        scale_experts=False,
    )
    setting = with_schedule(with_routing(arguments.routing)(setting), arguments.schedule)
    if setting.fastest_schedule:
        raise InputError("--schedule fastest is for one step; name one: sequential, chunks:N, two-batch")
    return setting.deployment()


def _described(arguments: ServingArguments, sample: Requests) -> str:
    lengths = f"mean {sample.prompt_tokens_N.mean():.0f} prompt and {sample.output_tokens_N.mean():.0f} output tokens"
    if arguments.requests is not None:
        return f"{len(sample)} of {arguments.requests}; {lengths}"
    return f"Poisson, at least {arguments.num_requests} per load, seed {arguments.seed}; {lengths}"


def _loads(
    arguments: ServingArguments, sample: Requests, at_load: Callable[[float], LoadPoint]
) -> tuple[float | None, list[LoadPoint], str]:
    """Highest load within the limits, every load simulated, and a remark."""
    rates = _rates(arguments, sample)
    if arguments.find_limit:
        found = find_highest_load(at_load, rates[0])
        return found.requests_per_second, found.points, found.note
    points = [at_load(rate) for rate in rates]
    # Below a load that breaks the limits; one that meets them above it was too short to show that it does not.
    kept = list(itertools.takewhile(lambda point: point.meets_limits, points))
    return (kept[-1].offered_requests_per_second if kept else None), points, unsettled_note(points)


def _rates(arguments: ServingArguments, requests: Requests) -> list[float]:
    if arguments.rate is not None:
        rates = sorted(numbers(arguments.rate, "--rate"))
        if rates[0] <= 0:
            raise InputError(f"--rate {arguments.rate}: every rate must be above 0")
        return rates
    if arguments.requests is None:
        return [_USUAL_RATE]
    if arguments.find_limit and math.isinf(requests.rate_per_second):
        raise InputError(
            f"{arguments.requests}: all requests arrive at one instant, so no load can be searched"
        )
    return [requests.rate_per_second]


_USUAL_RATE = 10.0


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
    console.print(serving_table(report))
    if report.limits.any:
        highest = report.highest_load_requests_per_second
        searched = "" if arguments.find_limit else " of those given (--find-limit searches)"
        answer = "none" if highest is None else f"{highest:.3g} requests/s"
        console.print(f"highest load within the limits{searched}: [bold]{answer}[/bold]")
    for line in sentences(report.notes):
        console.print(line)
    if arguments.html:
        console.print(f"page: {arguments.html} (open in a browser)")
