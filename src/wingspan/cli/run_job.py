"""The work behind `wingspan run`: read the arguments, start or join the ranks, show what comes back."""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.cli.launched import check_wait_is_used, patience, prompt_text
from wingspan.cli.launched import given as options_given
from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.run_prompts import built_in_prompts, read_prompts
from wingspan.cli.run_view import RunView, say_many_ranks
from wingspan.cli.runtime_import import need_runtime
from wingspan.errors import InputError, RunError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.setup.setup import AUTO, Asked, Setup, read_setup
from wingspan.specs.cluster import load_cluster
from wingspan.writing import json_text, write_json

if TYPE_CHECKING:
    from wingspan.runtime.api import EngineSetup, Prompt, RunRequest, RunResult
    from wingspan.runtime.launch.start import Rest
    from wingspan.runtime.transport.transport import Transport

_IMPORT_BEGUN_SECONDS = time.time()

_MAY_DIFFER = {
    "source",
    "checkpoint",
    "placement",
    "ranks",
    "ranks_per_node",  # compared where the ranks meet
    "texts",
    "prompts_file",
    "id_texts",
    "cluster",
    "trace",
    "html",
    "out",
    "wait_seconds",
    "as_json",
}
"""Options that ranks may have each its own, or that are compared by what they lead to."""


@dataclass(frozen=True)
class Arguments:
    """The command line of `wingspan run`."""

    source: str
    checkpoint: Path | None
    ranks: int | None
    experts_per_rank: int | None
    ranks_per_node: int | None
    placement: str | None
    texts: list[str]
    prompts_file: Path | None
    id_texts: list[str]
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int
    dtype: str | None
    device: str
    rebalance: str
    schedule: str | None
    cluster: str | None
    transport: str
    dispatcher: str | None
    row_precision: str | None
    check: bool
    trace: Path | None
    html: Path | None
    out: Path | None
    wait_seconds: float | None
    as_json: bool


def execute(arguments: Arguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    _check_values(arguments)
    setup = read_setup(_asked(arguments), os.environ)
    folder, facts = setup.folder, setup.facts
    group = setup.group(os.environ)
    check_wait_is_used(arguments.wait_seconds, group)
    given = read_prompts(
        arguments.texts,
        arguments.prompts_file,
        arguments.id_texts,
        facts,
        arguments.max_new_tokens,
        first=group.rank in (None, 0),
    )
    if group.launch is None and not arguments.as_json:
        say_many_ranks(group.size)
    need_runtime()
    from wingspan.runtime import api as runtime

    seconds_importing = time.time() - _IMPORT_BEGUN_SECONDS
    device = runtime.select_device(setup.device)
    group = group.meet(os.environ, device, patience(arguments.wait_seconds))
    engine = runtime.engine_setup(setup, group, device)
    model = engine.model
    tokenizer = runtime.Tokenizer(folder)
    notes = runtime.remarks(setup, model, tokenizer)
    if not given:
        given, said = built_in_prompts(tokenizer, model.config.get_text_config().vocab_size, group.size)
        notes.append(said)
    if given.texts and tokenizer.why_no_text:
        raise InputError(f"{tokenizer.why_no_text}; or give the prompts as --prompt-ids 5,9,17")
    prompts = runtime.assign(given.texts, given.id_lists, tokenizer, model.config, group.size)
    runtime.check_context(prompts, arguments.max_new_tokens, model.config)
    if group.rank in (None, 0):
        for note in notes:
            print(f"wingspan: {note}", file=sys.stderr)
    engine, reason = _by_prediction(arguments, setup, group, prompts, engine)
    request = runtime.RunRequest(
        engine,
        prompts,
        arguments.max_new_tokens,
        runtime.Sampling(
            arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed, arguments.min_p
        ),
        keep_logits=arguments.check,
        keep_spans=not (arguments.trace is None and arguments.html is None),
    )
    view = RunView(
        prompts,
        tokenizer,
        arguments.max_new_tokens,
        runtime.process_started_seconds(),
        seconds_importing,
        reason,
        quiet=arguments.as_json,
    )

    def work(transport: Transport) -> Rest | None:
        result = runtime.run(transport, request, tokenizer, view.listener())
        return None if result is None else lambda: _finish(result, request, arguments, view)

    with cleared_up(arguments.trace, arguments.html, arguments.out):
        group.run(
            work,
            device,
            {} if group.place is None else _given(arguments, prompts, engine, runtime.fingerprint(folder)),
        )


def _given(
    arguments: Arguments,
    prompts: list[Prompt],
    engine: EngineSetup,
    fingerprint: dict[str, str],
) -> dict[str, str]:
    """What all ranks that a launcher started must have alike; paths may differ, what they lead to may not."""
    return {
        **options_given(arguments, _MAY_DIFFER),
        "the schedule": str({phase: flow.name for phase, flow in engine.flows.items()}),
        "the dispatcher": str(engine.dispatch.kind),
        "the placement": sha256(engine.placement.slots_LRS.tobytes()).hexdigest()[:16],
        "number of prompts": str(len(prompts)),
        **{f"prompt {number}": prompt_text(prompt) for number, prompt in enumerate(prompts)},
        **fingerprint,
    }


def _asked(arguments: Arguments) -> Asked:
    return Asked(**{f.name: getattr(arguments, f.name) for f in fields(Asked)})


def _by_prediction(
    arguments: Arguments, setup: Setup, group: Group, prompts: list[Prompt], engine: EngineSetup
) -> tuple[EngineSetup, str]:
    """With `--schedule auto` the schedule of each phase and the dispatcher that are predicted fastest, and why."""
    if setup.schedule != AUTO:
        return engine, ""
    from wingspan.cli.execution_choice import choose
    from wingspan.runtime.api import flows_of

    chosen = choose(
        setup.folder,
        arguments.cluster or "",
        group,
        engine.placement,
        prompts,
        arguments.max_new_tokens,
        setup.dispatcher,
    )
    dispatch = replace(engine.dispatch, kind=chosen.dispatcher)
    return replace(engine, flows=flows_of(setup, chosen.schedules), dispatch=dispatch), chosen.reason


def _finish(result: RunResult, request: RunRequest, arguments: Arguments, view: RunView) -> None:
    """On rank 0, when the others have left: check, write and print everything, then fail if the check did."""
    if arguments.check:
        from wingspan.runtime.api import checked

        result = checked(result, request)
    if arguments.as_json:
        print(json_text(result.to_dict()), flush=True)
    else:
        view.summary(result, arguments.trace, arguments.html)
        sys.stdout.flush()
    if arguments.out is not None:
        write_json(arguments.out, result.to_dict())
    if arguments.trace is not None:
        from wingspan.report.perfetto import write_trace

        write_trace(result.timeline, arguments.trace, result.rebalance or ())
    if arguments.html is not None:
        from wingspan.cli.run_html import write_run

        write_run(result, request, arguments.html)
    if result.check is not None and not result.check.passed:
        check = result.check
        raise RunError(
            f"the run differs from the single-process reference: {check.dtype} logits by "
            f"{check.max_logit_difference:.2e}, {check.difference_from_fp32:.2e} from float32 where "
            f"{check.allowed_difference:.2e} is allowed; greedy tokens equal: {check.tokens_equal}"
        )


def _check_values(arguments: Arguments) -> None:
    """What can be refused before seconds go into importing torch."""
    if arguments.schedule == "auto" and arguments.cluster is None:
        raise InputError(
            "--schedule auto: predicts by a cluster file; make one with wingspan calibrate, give --cluster"
        )
    if arguments.cluster is not None:
        load_cluster(arguments.cluster)
    if not math.isfinite(arguments.temperature):
        raise InputError(f"--temperature {arguments.temperature}: use a number from 0 on")
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise InputError(f"--top-p {arguments.top_p}: use a share above 0 and up to 1")
    if arguments.min_p is not None and not 0 <= arguments.min_p <= 1:
        raise InputError(f"--min-p {arguments.min_p}: use a share from 0 to 1")
    check_outputs(arguments.trace, arguments.html, arguments.out)
