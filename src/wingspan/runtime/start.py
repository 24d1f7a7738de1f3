"""One way from a setup to running ranks, whoever gives them requests: the model described once, then loaded by each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import torch

from wingspan.balance.settings import Rebalance
from wingspan.runtime.balance.rebalancer import Rebalancer
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, DispatchOptions
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.launch.group import Group
from wingspan.runtime.measuring.recorder import KEPT_STEPS
from wingspan.runtime.model.architecture import dtype_named, read_config
from wingspan.runtime.model.engine import Engine, Model, check_weights, describe, load, rank_bytes
from wingspan.runtime.model.quantised import format_said
from wingspan.runtime.model.step import Flow, flow_named
from wingspan.runtime.ranks.capacity import check_room
from wingspan.runtime.setup.setup import AUTO, Setup
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.batching import UNLIMITED, BatchLimits
from wingspan.specs.placement import Placement
from wingspan.traffic.distinct import Choice

PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class EngineSetup:
    """What every rank loads, and how it steps; the same on all.

    Args:
        model: described, not loaded.
        placement: over exactly the ranks.
        device: where they compute.
        dispatch: how tokens travel.
        flows: the schedule of each phase; sequential where none is named.
        rebalance: how experts move meanwhile; None: they stay, as on a single rank.
    """

    model: Model
    placement: Placement
    device: torch.device
    dispatch: DispatchOptions = DEFAULT_DISPATCH
    flows: Mapping[str, Flow] = field(default_factory=dict)
    rebalance: Rebalance | None = None


@dataclass(frozen=True)
class Started:
    """A rank that is ready for requests."""

    engine: Engine
    generator: Generator
    rebalancer: Rebalancer | None
    load_seconds: float


def engine_setup(setup: Setup, group: Group, device: torch.device) -> EngineSetup:
    """Describe the model and place its experts, before any rank starts.

    A schedule that is to be chosen by prediction is left out: the caller sets `flows`.

    Raises:
        InputError: the weights are not all there, there is no room for them, or the experts do not fit the ranks.
    """
    model = describe(setup.folder, dtype_named(setup.dtype))
    check_weights(model)
    placement = setup.build_placement(len(model.shape.paths), model.shape.num_experts, group.size)
    if group.launch is None and device.type == "cpu":
        check_room(group.size, rank_bytes(model, placement.slots_per_rank))
    options = DispatchOptions(setup.dispatcher, setup.row_precision, setup.plugin)
    schedules = {} if setup.schedule == AUTO else dict.fromkeys(PHASES, setup.schedule)
    return EngineSetup(model, placement, device, options, flows_of(setup, schedules), setup.rebalance)


def flows_of(setup: Setup, schedules: Mapping[str, str]) -> dict[str, Flow]:
    """Each phase's schedule as ranks follow it; raises `InputError` for a text that is none."""
    return {
        phase: flow_named(name, shared_beside_dispatch=setup.shared_beside_dispatch)
        for phase, name in schedules.items()
    }


def remarks(setup: Setup, model: Model, tokenizer: Tokenizer) -> list[str]:
    """What is done otherwise than the deployment and the checkpoint say, a line each."""
    lines = [*setup.notes]
    if setup.planned_step is not None:
        lines.append(setup.planned_step)
    if model.not_applied:
        lines.append(f"generation_config.json is not followed in {', '.join(model.not_applied)}")
    if said := format_said(model.folder, read_config(model.folder)):
        dtype = str(model.dtype).removeprefix("torch.")
        lines.append(f"the weights are quantised ({said}): ranks hold them, and compute, in {dtype}")
    if tokenizer.problem:
        lines.append(f"only ids, no text: {tokenizer.problem}")
    return lines


_LOOKED_AT_STEPS = 128
"""How many of each phase are kept where somebody looks every second or so, and no report is made at the end."""


def start(
    transport: Transport,
    setup: EngineSetup,
    limits: BatchLimits = UNLIMITED,
    *,
    tokenizer: Any = None,
    keep_logits: bool = False,
    keep_spans: bool = False,
    more_to_come: bool = False,
    prefix_bytes: int = 0,
) -> Started:
    """Load this rank's share, and make it ready to step. Collective.

    Args:
        transport: the group.
        setup: the same on every rank.
        limits: of each rank's batch; without, all requests are admitted at once.
        tokenizer: transformers' own, for answers that must follow a grammar.
        keep_logits: also keep what every token was chosen from.
        keep_spans: record every operation for a timeline.
        more_to_come: requests may follow those that are held, so nobody knows how many steps there will be.
        prefix_bytes: memory for what sequences that ended had, for others that begin alike; 0: nothing is shared.
    """
    begun = monotonic()
    engine = load(
        setup.model,
        setup.placement,
        transport,
        setup.device,
        dispatch=setup.dispatch,
        keep_spans=keep_spans,
        keep_steps=_LOOKED_AT_STEPS if more_to_come else KEPT_STEPS,
    )
    _warm_up(transport, setup.device)
    load_seconds = monotonic() - begun
    rebalancer = _rebalancer(engine, setup)
    generator = Generator(
        engine,
        setup.flows,
        rebalancer,
        limits,
        keep_logits=keep_logits,
        tokenizer=tokenizer,
        more_to_come=more_to_come,
        prefix_bytes=prefix_bytes,
    )
    return Started(engine, generator, rebalancer, load_seconds)


def _warm_up(transport: Transport, device: torch.device) -> None:
    """On GPUs, make now what the first product and the first exchange would make: handles and communicators."""
    if device.type != "cuda":
        return
    square = torch.ones((16, 16), dtype=torch.bfloat16, device=device)
    rows = torch.ones((transport.world.size, 16), device=device) @ square.float()
    one_R = [1] * transport.world.size
    transport.exchange_rows(torch.empty_like(rows), rows, one_R, one_R).wait()
    (square @ square).cpu()


def _rebalancer(engine: Engine, setup: EngineSetup) -> Rebalancer | None:
    if setup.rebalance is None or engine.transport.world.size == 1:
        return None
    layers = list(engine.layers.values())
    return Rebalancer(
        setup.rebalance,
        engine.transport,
        setup.placement,
        layers,
        engine.dispatchers,
        engine.monitor,
        engine.recorder,
        layers[0].experts.row_bytes,
        Choice(setup.placement.num_experts, setup.model.shape.top_k),
        setup.device,
    )
