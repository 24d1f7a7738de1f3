"""The work behind `wingspan run`: read the arguments, start or join the ranks, show what comes back."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.cli.model_argument import find_checkpoint
from wingspan.cli.run_view import RunView
from wingspan.cli.runtime_import import import_runtime
from wingspan.errors import InputError, RunError

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
    transport: str
    dispatch: str
    precision: str
    overlap: str
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
    world = runtime.world_from_environment(os.environ, arguments.ranks_per_node)
    nodes = runtime.nodes_from_environment(os.environ) if world is None else None
    size = _group_size(arguments, world, nodes)
    device = runtime.select_device(arguments.device)
    kind = runtime.transport_kind(arguments.transport)
    if kind == runtime.TransportKind.MPI and world is None:
        raise InputError("--transport mpi: start the ranks by MPI: mpirun -n 8 wingspan run ...")
    flow = runtime.flow_named(arguments.overlap)
    model = runtime.describe(folder, runtime.dtype_named(arguments.dtype))
    placement = runtime.default_placement(model.shape, size, arguments.experts_per_rank)
    tokenizer = runtime.Tokenizer(folder)
    texts = arguments.texts + _read_prompts(arguments)
    ids = [_parse_ids(text) for text in arguments.id_texts]
    prompts = runtime.assign(texts, ids, tokenizer, model.config, size)
    runtime.check_context(prompts, arguments.max_new_tokens, model.config)
    request = runtime.RunRequest(
        model,
        placement,
        prompts,
        arguments.max_new_tokens,
        runtime.Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed),
        device,
        dispatch=runtime.dispatch_options(arguments.dispatch, arguments.precision),
        flows={"prefill": flow, "decode": flow},
        check=arguments.check,
        keep_spans=arguments.trace is not None,
    )
    view = RunView(
        prompts,
        tokenizer,
        arguments.max_new_tokens,
        runtime.process_started_seconds(),
        seconds_importing,
        quiet=arguments.as_json,
    )

    def work(transport: Any) -> None:
        with runtime.chosen(kind, transport, device) as rows:
            result = runtime.run(rows, request, tokenizer, view.listener())
        if result is not None:
            _finish(result, arguments, view)

    if kind == runtime.TransportKind.MPI:
        runtime.join_mpi_ranks(work, world)
    elif world is not None:
        runtime.join_ranks(work, world, device)
    elif nodes is not None:
        runtime.run_ranks(work, size, nodes.ranks_per_node, device, nodes)
    else:
        runtime.run_ranks(work, size, arguments.ranks_per_node or size, device)


def _finish(result: Any, arguments: Arguments, view: RunView) -> None:
    """On rank 0: write and print everything, then fail if the check did."""
    if arguments.trace is not None:
        from wingspan.report.perfetto import write_trace

        write_trace(result.spans, arguments.trace)
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(result.to_dict()))
    if arguments.as_json:
        print(json.dumps(result.to_dict()), flush=True)
    else:
        view.summary(result, arguments.trace)
    if result.check is not None and not result.check.passed:
        check = result.check
        raise RunError(
            f"the run differs from the single-process reference: {check.dtype} logits by "
            f"{check.max_logit_difference:.2e}, {check.difference_from_fp32:.2e} from float32 where "
            f"{check.allowed_difference:.2e} is allowed; greedy tokens equal: {check.tokens_equal}"
        )


def _check_cheap(arguments: Arguments) -> None:
    """What can be refused before seconds go into importing torch."""
    if arguments.experts_per_rank < 1:
        raise InputError(f"--experts-per-rank {arguments.experts_per_rank}: use 1 or more")
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise InputError(f"--top-p {arguments.top_p}: use a share above 0 and up to 1")
    for name, value in (("--top-k", arguments.top_k), ("--top-p", arguments.top_p)):
        if value is not None and not arguments.temperature:
            raise InputError(
                f"{name} {value}: needs --temperature above 0; at 0 the likeliest token is taken"
            )
    for option, file in (("--trace", arguments.trace), ("--report", arguments.report)):
        if file is not None and not file.parent.is_dir():
            raise InputError(f"{option} {file}: the folder {file.parent} does not exist; create it")


def _group_size(arguments: Arguments, world: Any, nodes: Any) -> int:
    if nodes is not None:
        if arguments.ranks not in (None, nodes.size):
            raise InputError(
                f"--ranks {arguments.ranks}, but the testbed has {nodes.size}; leave --ranks out"
            )
        return int(nodes.size)
    if world is None:
        size = 1 if arguments.ranks is None else arguments.ranks
        if size < 1:
            raise InputError(f"--ranks {size}: use 1 or more")
        if size % (arguments.ranks_per_node or size):
            raise InputError(
                f"--ranks-per-node {arguments.ranks_per_node} does not divide {size} ranks into whole nodes"
            )
        return size
    if arguments.ranks not in (None, world.size):
        raise InputError(
            f"--ranks {arguments.ranks}, but the launcher started {world.size}; leave --ranks out"
        )
    return int(world.size)


def _read_prompts(arguments: Arguments) -> list[str]:
    """Lines of the prompts file; of standard input where nothing else was given and it is not a terminal."""
    source = arguments.prompts_file
    if source is None:
        if arguments.texts or arguments.id_texts or sys.stdin is None or sys.stdin.isatty():
            return []
        source = Path("-")
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
