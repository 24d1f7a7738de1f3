"""The work behind `wingspan run`: read the arguments, start or join the ranks, show what comes back."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wingspan.cli.model_argument import find_checkpoint
from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.run_view import RunView
from wingspan.cli.runtime_import import import_runtime
from wingspan.errors import InputError, RunError
from wingspan.runtime.live.settings import parse_rebalance
from wingspan.writing import json_text, write_json

if TYPE_CHECKING:
    from wingspan.cli.execution_choice import Execution

_IMPORT_BEGUN_SECONDS = time.time()


@dataclass(frozen=True)
class Arguments:
    """The command line of `wingspan run`."""

    model: str
    ranks: int | None
    experts_per_rank: int
    ranks_per_node: int | None
    texts: list[str]
    prompts_file: Path | None
    id_texts: list[str]
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    dtype: str
    device: str
    rebalance: str
    overlap: str
    cluster: str | None
    transport: str
    dispatch: str
    precision: str
    check: bool
    trace: Path | None
    report: Path | None
    as_json: bool


def execute(arguments: Arguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    folder = find_checkpoint(arguments.model)
    _check_cheap(arguments)
    runtime = import_runtime()
    seconds_importing = time.time() - _IMPORT_BEGUN_SECONDS
    device = runtime.select_device(arguments.device)
    group = runtime.Group.find(
        os.environ, arguments.ranks, arguments.ranks_per_node, arguments.transport, device
    )
    if group.size == 1 and arguments.rebalance != "off":
        raise InputError(
            f"--rebalance {arguments.rebalance}: one rank has nowhere to move experts to; use --ranks 2 or more"
        )
    model = runtime.describe(folder, runtime.dtype_named(arguments.dtype))
    placement = runtime.default_placement(model.shape, group.size, arguments.experts_per_rank)
    tokenizer = runtime.Tokenizer(folder)
    prompts = _prompts(arguments, runtime, tokenizer, model.config, group)
    chosen = _execution(arguments, folder, group, prompts)
    request = runtime.RunRequest(
        model,
        placement,
        prompts,
        arguments.max_new_tokens,
        runtime.Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed),
        device,
        runtime.dispatch_options(chosen.dispatch, arguments.precision),
        flows={phase: runtime.flow_named(name) for phase, name in chosen.overlap.items()},
        check=arguments.check,
        rebalance=parse_rebalance(arguments.rebalance),
        keep_spans=arguments.trace is not None,
    )
    view = RunView(
        prompts,
        tokenizer,
        arguments.max_new_tokens,
        runtime.process_started_seconds(),
        seconds_importing,
        chosen.reason,
        quiet=arguments.as_json,
    )

    def work(transport: Any) -> None:
        result = runtime.run(transport, request, tokenizer, view.listener())
        if result is not None:
            _finish(result, arguments, view)

    with cleared_up(arguments.trace, arguments.report):
        group.run(work)


def _prompts(arguments: Arguments, runtime: Any, tokenizer: Any, config: Any, group: Any) -> list[Any]:
    """All prompts; under a launcher every rank has the same command line, but only rank 0 has standard input."""
    texts = arguments.texts + _read_prompts(arguments, first=group.world is None or group.world.rank == 0)
    ids = [_parse_ids(text) for text in arguments.id_texts]
    prompts: list[Any] = runtime.assign(texts, ids, tokenizer, config, group.size)
    runtime.check_context(prompts, arguments.max_new_tokens, config)
    return prompts


def _execution(arguments: Arguments, folder: Path, group: Any, prompts: list[Any]) -> Execution:
    """The schedule of each phase, and the dispatcher: as asked for, or by prediction."""
    from wingspan.cli.execution_choice import Execution, choose

    if arguments.overlap != "auto":
        plain = dict.fromkeys(("prefill", "decode"), arguments.overlap)
        return Execution(plain, arguments.dispatch, "")
    if arguments.cluster is None:
        raise InputError(
            "--overlap auto: predicts by a cluster file; make one with wingspan calibrate, give --cluster"
        )
    return choose(
        folder,
        arguments.cluster,
        group,
        arguments.experts_per_rank,
        prompts,
        arguments.max_new_tokens,
        arguments.dispatch,
    )


def _finish(result: Any, arguments: Arguments, view: RunView) -> None:
    """On rank 0: write and print everything, then fail if the check did."""
    if arguments.as_json:
        print(json_text(result.to_dict()), flush=True)
    else:
        view.summary(result, arguments.trace)
        sys.stdout.flush()
    if arguments.report is not None:
        write_json(arguments.report, result.to_dict())
    if arguments.trace is not None:
        from wingspan.report.perfetto import write_trace

        write_trace(result.spans, arguments.trace)
    if result.check is not None and not result.check.passed:
        check = result.check
        raise RunError(
            f"the run differs from the single-process reference: {check.dtype} logits by "
            f"{check.max_logit_difference:.2e}, {check.difference_from_fp32:.2e} from float32 where "
            f"{check.allowed_difference:.2e} is allowed; greedy tokens equal: {check.tokens_equal}"
        )


def _check_cheap(arguments: Arguments) -> None:
    """What can be refused before seconds go into importing torch."""
    parse_rebalance(arguments.rebalance)
    if arguments.experts_per_rank < 1:
        raise InputError(f"--experts-per-rank {arguments.experts_per_rank}: use 1 or more")
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise InputError(f"--top-p {arguments.top_p}: use a share above 0 and up to 1")
    for name, value in (("--top-k", arguments.top_k), ("--top-p", arguments.top_p)):
        if value is not None and not arguments.temperature:
            raise InputError(
                f"{name} {value}: needs --temperature above 0; at 0 the likeliest token is taken"
            )
    check_outputs(arguments.trace, arguments.report)


def _read_prompts(arguments: Arguments, *, first: bool) -> list[str]:
    """Lines of the prompts file; of standard input where nothing else was given and it is not a terminal."""
    source = arguments.prompts_file
    if source is None:
        if arguments.texts or arguments.id_texts or sys.stdin is None or sys.stdin.isatty():
            return []
        source = Path("-")
    if str(source) == "-" and not first:
        raise InputError(
            "prompts from standard input reach only rank 0 under a launcher; give a --prompts-file"
        )
    if str(source) == "-":
        lines = sys.stdin.read().splitlines()
    elif source.is_file():
        lines = source.read_text().splitlines()
    else:
        raise InputError(f"--prompts-file {source}: no such file")
    return [line for line in lines if line.strip()]


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--prompt-ids {text!r}: expected whole numbers with commas, as 5,9,17") from None
