"""The work behind `wingspan record`: read the texts, start or join the ranks, show the progress."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.cli.launched import check_wait_is_used, given, patience
from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.progress import progress
from wingspan.cli.runtime_import import need_runtime
from wingspan.errors import InputError
from wingspan.report.units import full_rate_text
from wingspan.routing.trace_file import TraceFile, check_trace_name
from wingspan.runtime.launch.group import Group
from wingspan.runtime.setup.config_facts import config_facts
from wingspan.runtime.setup.model_folder import find_checkpoint
from wingspan.specs.reading import choice
from wingspan.specs.running import Device, WeightType
from wingspan.writing import is_stream, json_text

if TYPE_CHECKING:
    from wingspan.runtime.api import Recorded
    from wingspan.runtime.transport.transport import Transport

_MAY_DIFFER = {"model", "sources", "out", "ranks", "ranks_per_node", "wait_seconds", "as_json"}
"""Options that ranks may have each its own, or that are compared by what they lead to."""


@dataclass(frozen=True)
class RecordArguments:
    """The command line of `wingspan record`."""

    model: str
    sources: list[Path]
    out: Path
    ranks: int | None
    experts_per_rank: int | None
    ranks_per_node: int | None
    request_tokens: int
    requests_per_step: int
    max_tokens: int | None
    dtype: str
    device: str
    wait_seconds: float | None
    as_json: bool


def execute(arguments: RecordArguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    folder = find_checkpoint(arguments.model)
    texts = read_texts(arguments.sources)
    check_outputs(arguments.out)
    check_trace_name(arguments.out)
    choice(arguments.device, "--device", Device)
    choice(arguments.dtype, "--dtype", WeightType)
    group = Group.find(os.environ, arguments.ranks, arguments.ranks_per_node)
    check_wait_is_used(arguments.wait_seconds, group)
    facts = config_facts(folder)
    facts.check_placement(group.size, arguments.experts_per_rank or facts.experts or 1)
    if facts.longest_tokens is not None:
        _check_length(arguments.request_tokens, facts.longest_tokens)
    need_runtime()
    from wingspan.runtime import api as runtime

    device = runtime.select_device(arguments.device)
    group = group.meet(os.environ, device, patience(arguments.wait_seconds))
    model = runtime.describe(folder, runtime.dtype_named(arguments.dtype))
    runtime.check_weights(model)
    slots = arguments.experts_per_rank or -(-model.shape.num_experts // group.size)
    _check_length(
        arguments.request_tokens, getattr(model.config.get_text_config(), "max_position_embeddings", None)
    )
    tokenizer = runtime.Tokenizer(folder)
    windows = runtime.cut_windows(
        [tokenizer.encode(text) for text in texts.values()], arguments.request_tokens, arguments.max_tokens
    )
    request = runtime.RecordRequest(
        model,
        runtime.default_placement(model.shape, group.size, slots),
        windows,
        arguments.requests_per_step,
        device,
        arguments.out,
        f"recorded from {folder.resolve().name} on {len(texts)} text files, windows of {arguments.request_tokens} "
        "tokens",
    )
    tokens = sum(len(ids) for ids in windows)

    def work(transport: Transport) -> None:
        quiet = arguments.as_json or transport.world.rank != 0
        with progress("recording tokens", tokens, quiet=quiet) as advance:
            result = runtime.record(transport, request, advance)
        if result is not None:
            _show(result, arguments)

    with cleared_up(arguments.out):
        group.run(
            work,
            device,
            {} if group.place is None else _given(arguments, windows, runtime.fingerprint(folder)),
        )


def _given(
    arguments: RecordArguments, windows: list[list[int]], fingerprint: dict[str, str]
) -> dict[str, str]:
    """What all ranks that a launcher started must have alike; paths may differ, what they lead to may not."""
    return {
        **given(arguments, _MAY_DIFFER),
        "the windows of text": ",".join(map(str, windows)),
        **fingerprint,
    }


def read_texts(sources: list[Path]) -> dict[Path, str]:
    """The files' texts, folders searched through; raises `InputError` where there is none to read."""
    if not sources:
        raise InputError("no text to record on; give --text FILE or a folder")
    texts: dict[Path, str] = {}
    for source in sources:
        if source.is_file():
            try:
                texts[source] = source.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError) as error:
                raise InputError(f"--text {source}: cannot be read as UTF-8 text ({error})") from None
        elif source.is_dir():
            texts |= _folder_texts(source)
        else:
            raise InputError(f"--text {source}: no such file or folder")
    return texts


def _folder_texts(folder: Path) -> dict[Path, str]:
    texts = {}
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        try:
            texts[file] = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
    if not texts:
        raise InputError(f"--text {folder}: no UTF-8 file in this folder")
    return texts


def _check_length(tokens: int, longest: int | None) -> None:
    if longest and tokens > longest:
        raise InputError(f"--request-tokens {tokens} exceeds the model's context; use at most {longest}")


def _show(result: Recorded, arguments: RecordArguments) -> None:
    if is_stream(arguments.out):  # it may be standard output, and cannot be read back
        return
    file = TraceFile.open(arguments.out)
    size_bytes = arguments.out.stat().st_size
    if arguments.as_json:
        about = {
            "trace": str(arguments.out),
            "tokens": result.tokens,
            "steps": result.steps,
            "layers": file.num_layers,
            "experts": file.num_experts,
            "top_k": file.top_k,
            "ranks": file.num_ranks,
            "size_bytes": size_bytes,
            "seconds": result.seconds,
        }
        print(json_text(about), flush=True)
        return
    print(
        f"{arguments.out}: {result.tokens:,} tokens in {result.steps} steps, {file.num_layers} MoE layers, "
        f"top-{file.top_k} of {file.num_experts} experts, {file.num_ranks} home ranks\n"
        f"{size_bytes / 1e6:.2f} MB ({size_bytes / result.tokens:.1f} MB per million tokens), "
        f"{full_rate_text(result.tokens / max(result.seconds, 1e-9))} tokens/s",
        flush=True,
    )
