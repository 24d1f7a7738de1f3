"""The work behind `wingspan bench serve`: draw or read requests, send them, show what they met."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.cli.counting import Counting
from wingspan.errors import InputError
from wingspan.report.units import seconds_text
from wingspan.schedule.serving_result import Latencies, ServingLimits
from wingspan.specs.reading import parse
from wingspan.specs.request_files import read_requests
from wingspan.specs.requests import Requests, poisson_requests
from wingspan.writing import json_text, write_json

if TYPE_CHECKING:
    from wingspan.client.call import Timed

_KEY = "WINGSPAN_API_KEY"
_USUAL_REQUESTS = 100
_USUAL_RATE = 1.0


@dataclass(frozen=True)
class Sent:
    """Which requests are sent, and when."""

    trace: Path | None
    count: int | None
    prompt_tokens: int
    output_tokens: int
    spread: float
    rate: float | None
    concurrency: int | None
    seed: int

    def read(self) -> tuple[Requests, Sequence[str]]:
        """The requests, and what was assumed of a trace."""
        if self.rate is not None and self.concurrency is not None:
            raise InputError(
                "--rate and --concurrency: a load has times or a number under way; give one of them"
            )
        rate = self.rate or _USUAL_RATE
        if self.trace is None:
            drawn = poisson_requests(
                rate, self.count or _USUAL_REQUESTS, self.prompt_tokens, self.output_tokens,
                spread=self.spread, seed=self.seed,
            )  # fmt: skip
            return drawn, ()
        read = read_requests(self.trace, self.count)
        remarks = [f"{read.format}: {remark}" for remark in read.remarks]
        if read.timed or self.concurrency is not None:
            return (read.requests if self.rate is None else read.requests.at_rate(self.rate)), remarks
        arrival_N = poisson_requests(rate, len(read.requests), 1, 1, seed=self.seed).arrival_seconds_N
        remarks.append(
            f"{read.format}: the file has no arrivals; they are drawn (Poisson, {rate:g} requests/s)"
        )
        return replace(read.requests, arrival_seconds_N=arrival_N), remarks


def execute(
    url: str,
    model: str | None,
    sent: Sent,
    *,
    ttft_p99: float | None,
    tpot_p99: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    address = _address(url)
    limits = parse(ServingLimits, {"ttft_p99_seconds": ttft_p99, "tpot_p99_seconds": tpot_p99}, "limits")
    requests, remarks = sent.read()
    _need_client()
    from wingspan.client.call import Endpoint
    from wingspan.client.load import Load, drive, served_model
    from wingspan.client.report import report, vllm_result

    key = os.environ.get(_KEY) or None
    target = Endpoint(address, model or served_model(address, key), key)
    date = time.strftime("%Y%m%d-%H%M%S")
    with Counting("answered") as counting:
        answers = drive(
            target,
            Load(requests, sent.concurrency, seed=sent.seed),
            lambda done, of: counting.show(target.model, done, of),
        )
    found = report(answers, limits)
    rate = None if sent.concurrency is not None else requests.rate_per_second
    result = vllm_result(target, answers, found, rate=rate, concurrency=sent.concurrency, date=date)
    if out is not None:
        write_json(out, result)
    if as_json:
        details = {"input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts"}
        print(json_text({key: value for key, value in result.items() if key not in details}, indent=2))
        return
    _show(target.model, address, found, answers, limits, remarks, out)


def _show(
    model: str,
    address: str,
    found: Latencies,
    answers: Sequence[Timed],
    limits: ServingLimits,
    remarks: Sequence[str],
    out: Path | None,
) -> None:
    console = Console(highlight=False)
    failed = [one.error for one in answers if one.error is not None]
    console.print(f"{model} at {address}: {found.requests} answered, {len(failed)} failed")
    console.print(
        f"[bold]{found.output_tokens_per_second:,.1f} tokens/s[/bold]   {found.completed_requests_per_second:.2f} "
        f"requests/s   {found.prompt_tokens_per_second:,.1f} prompt tokens/s   {found.duration_seconds:.1f} s in all"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in ("mean", "p50", "p90", "p99", "highest"):
        table.add_column(name, justify="right")
    for name, of in (
        ("time to first token", found.ttft_seconds),
        ("time per output token", found.tpot_seconds),
        ("end to end", found.end_to_end_seconds),
    ):
        table.add_row(name, *(seconds_text(value) for value in (of.mean, of.p50, of.p90, of.p99, of.highest)))
    console.print(table)
    if limits.any:
        console.print(
            f"goodput: {found.goodput_requests_per_second:.2f} requests/s; {found.within_limits_share:.1%} within the "
            "limits"
        )
    if failed:
        console.print(f"first failure: {failed[0]}")
    for remark in remarks:
        console.print(remark)
    if out is not None:
        console.print(f"written: {out}")


def _address(url: str) -> str:
    address = url.rstrip("/").removesuffix("/v1")
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{url}: is no address; write http://localhost:8000")
    return address


def _need_client() -> None:
    try:
        import httpx2  # noqa: F401
    except ImportError as error:
        raise InputError(f"this needs {error.name}; pip install 'wingspan[serve]'") from None
