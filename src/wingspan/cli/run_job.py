"""The work behind `wingspan run`: read the arguments, start or join the ranks, show what comes back."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.balance.settings import parse_rebalance
from wingspan.cli.launched import check_wait_is_used, patience, prompt_text
from wingspan.cli.launched import given as options_given
from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.run_prompts import built_in_prompts, read_prompts
from wingspan.cli.run_setup import Asked, Setup, planned_step, read_setup
from wingspan.cli.run_view import RunView, say_many_ranks
from wingspan.cli.runtime_import import need_runtime
from wingspan.cli.values import choice
from wingspan.errors import InputError, RunError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.ranks.capacity import check_room
from wingspan.specs.cluster import load_cluster
from wingspan.specs.placement import Placement
from wingspan.specs.running import Device, TransportKind
from wingspan.writing import json_text, write_json

if TYPE_CHECKING:
    from wingspan.cli.execution_choice import Execution
    from wingspan.runtime.api import Model, Prompt, RunResult, Tokenizer
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
    out: Path | None
    wait_seconds: float | None
    as_json: bool


def execute(arguments: Arguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    _check_values(arguments)
    setup = read_setup(_asked(arguments), os.environ)
    folder, facts = setup.folder, setup.facts
    group = Group.find(os.environ, setup.ranks, setup.ranks_per_node, arguments.transport)
    check_wait_is_used(arguments.wait_seconds, group)
    if group.size == 1 and arguments.rebalance != "off":
        raise InputError(
            f"--rebalance {arguments.rebalance}: one rank has nowhere to move experts to; use --ranks 2 or more"
        )
    facts.check_placement(group.size, setup.placement.experts_per_rank)
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
    device = runtime.select_device(arguments.device)
    group = group.meet(os.environ, device, patience(arguments.wait_seconds))
    model = runtime.describe(folder, runtime.dtype_named(setup.dtype))
    runtime.check_weights(model)
    if group.launch is None and device.type == "cpu":
        check_room(group.size, runtime.rank_bytes(model, setup.placement.experts_per_rank))
    placement = setup.build_placement(len(model.shape.paths), model.shape.num_experts, group.size)
    tokenizer = runtime.Tokenizer(folder)
    notes = setup.notes
    if setup.deployment is not None:
        notes = (*notes, planned_step(setup.deployment, arguments.source))
    if not given:
        given, said = built_in_prompts(tokenizer, model.config.get_text_config().vocab_size, group.size)
        notes = (*notes, said)
    if given.texts and tokenizer.why_no_text:
        raise InputError(f"{tokenizer.why_no_text}; or give the prompts as --prompt-ids 5,9,17")
    prompts = runtime.assign(given.texts, given.id_lists, tokenizer, model.config, group.size)
    runtime.check_context(prompts, arguments.max_new_tokens, model.config)
    if group.rank in (None, 0):
        _say_what_is_left_out(model, tokenizer, notes)
    chosen = _execution(arguments, setup, group, prompts, placement)
    request = runtime.RunRequest(
        model,
        placement,
        prompts,
        arguments.max_new_tokens,
        runtime.Sampling(
            arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed, arguments.min_p
        ),
        device,
        runtime.DispatchOptions(chosen.dispatcher, setup.row_precision, setup.plugin),
        flows={
            phase: runtime.flow_named(name, shared_beside_dispatch=setup.shared_beside_dispatch)
            for phase, name in chosen.schedules.items()
        },
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

    def work(transport: Transport) -> None:
        result = runtime.run(transport, request, tokenizer, view.listener())
        if result is not None:
            _finish(result, arguments, view)

    with cleared_up(arguments.trace, arguments.out):
        group.run(
            work,
            device,
            {}
            if group.place is None
            else _given(arguments, prompts, chosen, placement, runtime.fingerprint(folder)),
        )


def _given(
    arguments: Arguments,
    prompts: list[Prompt],
    chosen: Execution,
    placement: Placement,
    fingerprint: dict[str, str],
) -> dict[str, str]:
    """What all ranks that a launcher started must have alike; paths may differ, what they lead to may not."""
    return {
        **options_given(arguments, _MAY_DIFFER),
        "the schedule": str(chosen.schedules),
        "the dispatcher": str(chosen.dispatcher),
        "the placement": sha256(placement.slots_LRS.tobytes()).hexdigest()[:16],
        "number of prompts": str(len(prompts)),
        **{f"prompt {number}": prompt_text(prompt) for number, prompt in enumerate(prompts)},
        **fingerprint,
    }


def _say_what_is_left_out(model: Model, tokenizer: Tokenizer, notes: Sequence[str]) -> None:
    """What the checkpoint asks for and this run does not do: on standard error, a line each."""
    for note in notes:
        print(f"wingspan: {note}", file=sys.stderr)
    if model.not_applied:
        print(
            f"wingspan: generation_config.json is not followed in {', '.join(model.not_applied)}",
            file=sys.stderr,
        )
    if tokenizer.problem:
        print(f"wingspan: only ids, no text: {tokenizer.problem}", file=sys.stderr)


def _asked(arguments: Arguments) -> Asked:
    return Asked(**{f.name: getattr(arguments, f.name) for f in fields(Asked)})


def _execution(
    arguments: Arguments, setup: Setup, group: Group, prompts: list[Prompt], placement: Placement
) -> Execution:
    """The schedule of each phase, and the dispatcher: as asked for, or by prediction."""
    from wingspan.cli.execution_choice import Execution, choose

    if setup.schedule != "auto":
        return Execution(dict.fromkeys(("prefill", "decode"), setup.schedule), setup.dispatcher, "")
    return choose(
        setup.folder,
        arguments.cluster or "",
        group,
        placement,
        prompts,
        arguments.max_new_tokens,
        setup.dispatcher,
    )


def _finish(result: RunResult, arguments: Arguments, view: RunView) -> None:
    """On rank 0: write and print everything, then fail if the check did."""
    if arguments.as_json:
        print(json_text(result.to_dict()), flush=True)
    else:
        view.summary(result, arguments.trace)
        sys.stdout.flush()
    if arguments.out is not None:
        write_json(arguments.out, result.to_dict())
    if arguments.trace is not None:
        from wingspan.report.perfetto import write_trace

        write_trace(result.timeline, arguments.trace, result.rebalance or ())
    if result.check is not None and not result.check.passed:
        check = result.check
        raise RunError(
            f"the run differs from the single-process reference: {check.dtype} logits by "
            f"{check.max_logit_difference:.2e}, {check.difference_from_fp32:.2e} from float32 where "
            f"{check.allowed_difference:.2e} is allowed; greedy tokens equal: {check.tokens_equal}"
        )


def _check_values(arguments: Arguments) -> None:
    """What can be refused before seconds go into importing torch."""
    parse_rebalance(arguments.rebalance)
    device = choice(arguments.device, "--device", Device)
    transport = choice(arguments.transport, "--transport", TransportKind)
    if transport is TransportKind.SHM and device is Device.CUDA:
        raise InputError("--transport shm moves rows of the CPU; use --transport torch on cuda")
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
    check_outputs(arguments.trace, arguments.out)
