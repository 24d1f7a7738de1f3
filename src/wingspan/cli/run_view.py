"""What a person sees of a run: progress, text as it comes, and the summary."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wingspan.cli.console import Console
from wingspan.host import usable_cores
from wingspan.report.rebalance import lines
from wingspan.report.units import bytes_text, rate_text
from wingspan.schedule.rebalance_result import RebalanceEvent
from wingspan.schedule.result import Operation, StepReport

if TYPE_CHECKING:
    from wingspan.runtime.api import Check, Listener, Prompt, RunResult, Tokenizer

_COLUMNS = {
    Operation.ATTENTION: "attn",
    Operation.GATE: "gate",
    Operation.DISPATCH: "disp",
    Operation.EXPERT: "expert",
    Operation.COMBINE: "comb",
    Operation.WAIT: "wait",
}


_RANKS_PER_CORE = 16
"""More than so many take longer to start than a person waits without a word."""


def say_many_ranks(ranks: int) -> None:
    """Before seconds of silence: how many ranks are to share this machine's cores."""
    cores = usable_cores()
    if ranks > _RANKS_PER_CORE * cores:
        print(
            f"wingspan: {ranks} ranks share {cores} cores: starting them and loading their weights takes a while",
            file=sys.stderr,
            flush=True,
        )


class RunView:
    """Shows one run on rank 0's terminal; with `quiet` only stderr gets a word."""

    def __init__(
        self,
        prompts: list[Prompt],
        tokenizer: Tokenizer,
        max_new_tokens: int,
        started_seconds: float,
        importing_seconds: float,
        chosen: str,
        *,
        quiet: bool,
    ) -> None:
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._started_seconds = started_seconds
        self._importing_seconds = importing_seconds
        self._chosen = chosen
        self._quiet = quiet
        self._console = Console(highlight=False)
        self._ids: dict[int, list[int]] = {p.index: [] for p in prompts}
        self._steps = 0
        self._first_token_seconds: float | None = None
        self._live: Live | None = None

    def listener(self) -> Listener:
        """The callbacks for the run."""
        from wingspan.runtime.api import Listener

        return Listener(on_loaded=self._on_loaded, on_tokens=self._on_tokens)

    def _on_loaded(self, seconds: float) -> None:
        if not self._quiet:
            if self._chosen:
                self._console.print(f"[dim]by prediction: {self._chosen}[/dim]")
            self._console.print(f"[dim]weights loaded in {seconds:.2f} s[/dim]")
            if self._console.is_terminal:
                self._live = Live(console=self._console, refresh_per_second=12)
                self._live.start()

    def _on_tokens(self, tokens: dict[int, int]) -> None:
        if self._first_token_seconds is None:
            self._first_token_seconds = time.time() - self._started_seconds
        self._steps += 1
        for prompt, token in tokens.items():
            self._ids[prompt].append(token)
        if self._live is not None:
            self._live.update(self._streamed())

    def _streamed(self) -> Table:
        done = self._steps / self._max_new_tokens
        table = Table(box=None, show_header=False, pad_edge=False)
        for prompt in self._prompts:
            text = Text(prompt.text or str(prompt.ids), style="bold")
            text.append(self._decoded(prompt.index), style="not bold")
            table.add_row(f"[dim]{prompt.index}[/dim]", text)
        width = 30
        table.add_row(
            "", f"[dim]{'━' * int(width * done):<{width}} {self._steps}/{self._max_new_tokens} tokens[/dim]"
        )
        return table

    def _decoded(self, prompt: int) -> str:
        text = self._tokenizer.decode(self._ids[prompt])
        return text if text is not None else " " + ",".join(map(str, self._ids[prompt]))

    def summary(self, result: RunResult, trace: Path | None, html: Path | None) -> None:
        """The outputs, then what the run took."""
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()
        for output in result.outputs:
            heading = f"[dim]── prompt on rank {output.home_rank} ──[/dim]"
            self._console.print(heading)
            shown = Text(output.prompt or str(output.prompt_ids), style="bold")
            shown.append(output.text if output.text is not None else f" {output.token_ids}", style="not bold")
            self._console.print(shown)
        self._console.print()
        self._console.print(_rank_table(result))
        self._console.print(_load_line(result.report))
        self._console.print(self._speed_line(result))
        if result.rebalance is not None:
            self._console.print(_rebalance_text(result.rebalance))
        if trace is not None:
            self._console.print(f"trace: {trace} (open in ui.perfetto.dev or chrome://tracing)")
        if html is not None:
            self._console.print(f"page: {html} (open in a browser)")
        if result.check is not None:
            self._console.print(_check_line(result.check))

    def _speed_line(self, result: RunResult) -> str:
        first = self._first_token_seconds or 0.0
        decode = result.decode
        speed = f"prefill {rate_text(result.prefill.tokens_per_second)} tokens/s"
        if decode is not None:
            speed += f"; decode {rate_text(decode.tokens_per_second)} tokens/s"
            speed += f", {decode.step_seconds * 1e3:.1f} ms a step"
        return (
            f"{speed}; first token {first:.1f} s after the command "
            f"({self._importing_seconds:.1f} s imports, {result.load_seconds:.1f} s weights)"
        )


def _rank_table(result: RunResult) -> Table:
    report: StepReport = result.report
    across = any(report.sent_across_nodes_bytes)
    # Between a transfer's end and the look at it lie microseconds even where nothing is computed beside it.
    hides = sum(map(sum, report.hidden_seconds.values())) > 0.01 * report.step_seconds * report.ranks
    table = Table(
        title=f"mean {report.phase} step, {_milliseconds(report.step_seconds)} ms on each rank: milliseconds, "
        f"{'of transfers what no compute hides; ' if hides else ''}bytes sent to other ranks",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    sizes = ["in node", *(["across"] if across else []), "peak mem"]
    for name in ("rank", *_COLUMNS.values(), "rest", *(["hidden"] if hides else []), *sizes):
        table.add_column(name, justify="right", no_wrap=True)
    spent, nothing = report.spent_seconds, [0.0] * report.ranks
    for rank in range(report.ranks):
        shown = [spent.get(op, nothing)[rank] for op in _COLUMNS]
        rest = sum(seconds[rank] for seconds in spent.values()) - sum(shown)
        hidden = [sum(seconds[rank] for seconds in report.hidden_seconds.values())] if hides else []
        table.add_row(
            str(rank),
            *(_milliseconds(seconds) for seconds in (*shown, rest, *hidden)),
            bytes_text(report.sent_within_node_bytes[rank]),
            *([bytes_text(report.sent_across_nodes_bytes[rank])] if across else []),
            bytes_text(report.peak_memory_bytes[rank]),
        )
    return table


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds >= 0.00995 else f"{seconds * 1e3:.2f}"


def _load_line(report: StepReport) -> str:
    per_layer = [
        max(layer) / max(1e-9, sum(layer) / len(layer)) for layer in report.load_tokens if sum(layer)
    ]
    layers = " ".join(f"{ratio:.2f}" for ratio in per_layer[:12]) + (" ..." if len(per_layer) > 12 else "")
    return f"tokens per expert, max/mean per layer: {layers}; mean over layers {report.imbalance:.2f}"


def _rebalance_text(events: list[RebalanceEvent]) -> str:
    if not events:
        return "rebalancing: the run ended before the first decision"
    return "\n".join(["rebalancing:", *(f"  {line}" for line in lines(events))])


def _check_line(check: Check) -> str:
    verdict = "[green]equal[/green]" if check.passed else "[red]DIFFERENT[/red]"
    tokens = {True: "same greedy tokens", False: "other tokens", None: "tokens were sampled"}[
        check.tokens_equal
    ]
    if check.not_finite:
        verdict += f", {check.not_finite} logits are NaN or infinite"
    line = (
        f"check against the single-process reference: {verdict} ({check.tokens_compared} tokens, {tokens}; "
        f"{check.dtype} logits within {check.max_logit_difference:.1e}, "
        f"{check.max_logit_difference / (check.largest_logit or 1.0):.1e} of the largest, {check.largest_logit:.1f})"
    )
    if check.dtype == "float32":
        return line
    return (
        f"{line}\n  largest difference from float32: this run {check.difference_from_fp32:.1e}, plain transformers "
        f"{check.rounding_difference:.1e} (rounding also flips near-ties between experts and tokens)"
    )
