"""Record a routing trace: run texts through the model and keep which experts every token chose.

Prefill only: each step is one forward over a few windows of text per rank, and nothing is generated. Rank 0 appends
every step to the file, so memory holds one step at a time.

Shapes: T tokens of one rank's step, L MoE layers, K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, cast

import numpy as np
import torch

from wingspan.errors import InputError
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.trace_file import TraceWriter
from wingspan.runtime.generation.batches import columns_of
from wingspan.runtime.generation.prompts import Prompt
from wingspan.runtime.measuring.choices import RoutingRecorder
from wingspan.runtime.model.engine import Engine, Model, load
from wingspan.runtime.model.padding import forget_lengths, padding_is_neutral, rotations_by_length
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.placement import Placement

OnStep = Callable[[int], None]
"""Called on rank 0 after each step with the number of tokens that it recorded."""


@dataclass(frozen=True)
class RecordRequest:
    """What to record; the same on every rank.

    Args:
        model: from `describe`.
        placement: over the ranks of the group.
        windows: token ids of each window of text; window n is request n and lives on rank n modulo ranks.
        windows_per_step: windows that each rank runs in one forward.
        device: where to run.
        out: the trace's file, written by rank 0.
        origin: where the trace comes from, in words.
    """

    model: Model
    placement: Placement
    windows: Sequence[Sequence[int]]
    windows_per_step: int
    device: torch.device
    out: Path
    origin: str


@dataclass(frozen=True)
class Recorded:
    """What rank 0 knows at the end."""

    tokens: int
    steps: int
    seconds: float


def cut_windows(
    texts: Sequence[Sequence[int]], window_tokens: int, most_tokens: int | None
) -> list[list[int]]:
    """Cut each text's token ids into windows; the last of a text may be short, texts do not mix.

    Args:
        texts: token ids of each text.
        window_tokens: the most tokens of a window.
        most_tokens: stop when this many tokens are cut; None takes all.

    Raises:
        InputError: there is no token.
    """
    windows: list[list[int]] = []
    left = most_tokens if most_tokens is not None else sum(len(ids) for ids in texts)
    for ids in texts:
        for start in range(0, len(ids), window_tokens):
            window = list(ids[start : start + min(window_tokens, left)])
            left -= len(window)
            if window:
                windows.append(window)
    if not windows:
        raise InputError("the texts hold no token; give files with text in them")
    return windows


@torch.inference_mode()
def record(transport: Transport, request: RecordRequest, on_step: OnStep) -> Recorded | None:
    """Take part in a recording. Collective; returns the result on rank 0, None elsewhere."""
    request.model.shape.check_choices_can_be_kept()
    engine = load(request.model, request.placement, transport, request.device)
    recorder = RoutingRecorder(request.placement.num_layers)
    engine.monitor.observer = recorder
    start = monotonic()
    steps = _steps(request, transport.world.size)
    if transport.world.rank != 0:
        for number, prompts in enumerate(steps):
            transport.gather(_run_step(engine, recorder, prompts, number))
        return None
    with TraceWriter(request.out, request.origin) as writer:
        number = -1
        for number, prompts in enumerate(steps):
            parts = transport.gather(_run_step(engine, recorder, prompts, number))
            recorded = concatenate(cast(list[RoutingTrace], parts))
            writer.append(recorded)
            on_step(recorded.num_tokens)
    return Recorded(writer.num_tokens, number + 1, monotonic() - start)


def _steps(request: RecordRequest, ranks: int) -> Iterator[list[Prompt]]:
    """The windows of each step, all ranks' together."""
    size = ranks * request.windows_per_step
    for start in range(0, len(request.windows), size):
        yield [
            Prompt(start + n, list(ids), None, (start + n) % ranks)
            for n, ids in enumerate(request.windows[start : start + size])
        ]


def _run_step(engine: Engine, recorder: RoutingRecorder, prompts: list[Prompt], number: int) -> RoutingTrace:
    """This rank's windows (perhaps none) through the model; what their tokens chose."""
    world = engine.transport.world
    groups_R = [
        _alike([p for p in prompts if p.home_rank == rank], together=padding_is_neutral(engine.model))
        for rank in range(world.size)
    ]
    device = next(engine.model.parameters()).device
    options: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}
    mine = groups_R[world.rank]
    for group in range(max(map(len, groups_R))):
        now = columns_of([p.ids for p in mine[group]] if group < len(mine) else [], device)
        engine.step.tokens = now.tokens
        forget_lengths(rotations_by_length(engine.model))
        engine.model(
            input_ids=now.ids_PN, attention_mask=now.mask_PC, position_ids=now.positions_PN, **options
        )
    computed = [p for group in mine for p in group]
    engine.monitor.take()
    request_T = np.repeat([p.index for p in computed], [len(p.ids) for p in computed]).astype(np.int32)
    return RoutingTrace(
        recorder.take(),
        np.full_like(request_T, world.rank),
        request_T,
        np.full_like(request_T, number),
        engine.shape.num_experts,
        world.size,
    )


def _alike(prompts: list[Prompt], *, together: bool) -> list[list[Prompt]]:
    """Those that may share a forward: all of them, or those of one length."""
    groups: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(0 if together else len(prompt.ids), []).append(prompt)
    return list(groups.values())
