"""A step whose compute is paced and whose transfers are real: each rank sleeps as long as the described GPU computes.

Layers, dispatchers, schedules and recorder are those of a real run; only the model is missing. So EP sizes that no
machine at hand could compute for can still be measured on real links.

Shapes: L MoE layers, T tokens of this rank, K experts per token, D hidden size, N rows, S local slots.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers, DispatchOptions
from wingspan.runtime.generation.micro_batches import interleave, split_rows
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder, SpanKey, clock_name
from wingspan.runtime.measuring.report import RankMeasurement, peak_memory_bytes
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import SEQUENTIAL, Flow, Step
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation
from wingspan.specs.placement import Placement


class Pace(Protocol):
    """How long this rank computes."""

    def seconds(self, operation: Operation, layer: int | None) -> float:
        """One operation of one micro-batch, in layer `layer` of all."""

    def experts_seconds(self, layer: int, rows_S: Sequence[int]) -> float:
        """This rank's experts in layer `layer`, for the rows that each of its slots got."""


@dataclass(frozen=True)
class PacedStep:
    """What to execute; the same on every rank but for the tokens' choices.

    Args:
        layers: all layers.
        moe_layers: which of them have experts, in order.
        hidden: values of a row.
        dtype: of the rows that travel.
        placement: over the transport's ranks.
        shared_expert: MoE layers have one.
        flow: the schedule.
        dispatch: how tokens travel.
        steps: how many to measure, after one that warms up.
    """

    layers: int
    moe_layers: tuple[int, ...]
    hidden: int
    dtype: torch.dtype
    placement: Placement
    shared_expert: bool = False
    flow: Flow = SEQUENTIAL
    dispatch: DispatchOptions = DEFAULT_DISPATCH
    steps: int = 3


class PacedExperts:
    """Stands for a rank's experts: sleeps, and gives every row back as it came."""

    def __init__(self, pace: Pace, layer: int) -> None:
        self._pace = pace
        self._layer = layer

    def __call__(
        self,
        rows_ND: torch.Tensor,
        counts_S: Sequence[int],
        *,
        in_place: bool = False,  # noqa: ARG002 - as `LocalExperts`
    ) -> torch.Tensor:
        """The rows themselves, after the time that computing on them takes."""
        time.sleep(self._pace.experts_seconds(self._layer, counts_S))
        return rows_ND


class _PacedSharedExpert:
    """Stands for a block's shared expert."""

    comes_later = True

    def __init__(self, pace: Pace, layer: ExpertParallelLayer, recorder: Recorder) -> None:
        self._pace = pace
        self._layer = layer
        self._recorder = recorder

    def compute_ahead(self, _: torch.Tensor) -> None:
        """Sleep as long as it computes."""
        start = self._recorder.now()
        time.sleep(self._pace.seconds(Operation.SHARED_EXPERT, self._layer.number))
        self._recorder.compute(Operation.SHARED_EXPERT, self._layer.span_key(), start)


@torch.inference_mode()
def run_paced(
    transport: Transport,
    step: PacedStep,
    pace: Pace,
    experts_LTK: NDArray[np.int64],
    phase: str,
    *,
    keep_spans: bool = False,
) -> RankMeasurement:
    """Take part in paced steps. Collective; returns what this rank measured in all but the first.

    Args:
        transport: the group.
        step: what to execute.
        pace: this rank's.
        experts_LTK: which logical experts each of this rank's tokens chooses in each MoE layer.
        phase: prefill or decode.
        keep_spans: also keep the timeline.

    Raises:
        RuntimeError: a row came back changed: experts that give rows back must leave a token as it was.
    """
    world = transport.world
    recorder = Recorder(world.rank, world.size, keep_spans=keep_spans, keep_steps=step.steps)
    model = _PacedModel(transport, step, pace, torch.from_numpy(experts_LTK), recorder)
    for number in range(step.steps + 1):
        recorder.spans = [] if number == 1 else recorder.spans  # the first one warmed up
        model.monitor.take()  # every step has the same load
        transport.share(torch.zeros(1))  # begin together
        recorder.begin_step(phase, experts_LTK.shape[1])
        model.forward()
        recorder.end_step()
    return RankMeasurement(
        rank=world.rank,
        steps=recorder.steps,
        load_LE={phase: model.monitor.take().numpy() * step.steps},
        memory_bytes={},
        buffer_bytes={phase: model.buffers.take_asked_bytes()},
        peak_memory_bytes=peak_memory_bytes(),
        spans=recorder.spans,
        clock=clock_name(),
    )


class _PacedModel:
    """The layers of one rank."""

    def __init__(
        self,
        transport: Transport,
        paced: PacedStep,
        pace: Pace,
        experts_LTK: torch.Tensor,
        recorder: Recorder,
    ) -> None:
        self._paced = paced
        self._pace = pace
        self._recorder = recorder
        self._experts_LTK = experts_LTK
        self._step = Step(flow=paced.flow)
        self.buffers = Buffers()
        cpu = torch.device("cpu")
        self.monitor = LoadMonitor(paced.placement.num_layers, paced.placement.num_experts, cpu)
        dispatchers = Dispatchers(paced.placement, transport, self.buffers, cpu, paced.dispatch)
        self._layers = {
            number: self._layer(index, number, dispatchers) for index, number in enumerate(paced.moe_layers)
        }
        T = experts_LTK.shape[1]
        generator = torch.Generator().manual_seed(transport.world.rank)
        # Powers of two come back as they left in every format that rows travel in.
        exponents_TD = torch.randint(0, 4, (T, paced.hidden), generator=generator, dtype=torch.int8)
        signs_TD = torch.randint(0, 2, (T, paced.hidden), generator=generator, dtype=torch.int8) * 2 - 1
        self._x_TD = (signs_TD << exponents_TD).to(paced.dtype)

    def _layer(self, index: int, number: int, dispatchers: Dispatchers) -> ExpertParallelLayer:
        experts: Any = PacedExperts(self._pace, number)
        layer = ExpertParallelLayer(
            index, number, experts, dispatchers.for_layer(index), self.monitor, self._recorder, self._step
        )
        if self._paced.shared_expert:
            shared: Any = _PacedSharedExpert(self._pace, layer, self._recorder)
            layer.shared_expert = shared
        return layer

    def forward(self) -> None:
        """One step of all micro-batches."""
        parts = split_rows(len(self._x_TD), self._paced.flow.micro_batches)
        forwards = [partial(self._forward, part) for part in parts]
        if len(forwards) == 1:
            forwards[0]()
        else:
            interleave(forwards, [None] * len(forwards), self._step)

    def _forward(self, part: slice) -> None:
        x_TD = self._x_TD[part]
        self._compute(Operation.EMBED, None)
        for number in range(self._paced.layers):
            self._compute(Operation.ATTENTION, number)
            layer = self._layers.get(number)
            if layer is None:
                self._compute(Operation.DENSE, number)
                continue
            self._compute(Operation.GATE, number)
            experts_TK = self._experts_LTK[layer.index, part]
            weights_TK = torch.full(experts_TK.shape, 1 / experts_TK.shape[1])
            y_TD = layer(x_TD, experts_TK, weights_TK)
            if not torch.equal(y_TD, x_TD):
                raise RuntimeError(f"layer {number}: the rows that came back are not those that left")
        self._compute(Operation.HEAD, None)

    def _compute(self, operation: Operation, layer: int | None) -> None:
        start = self._recorder.now()
        time.sleep(self._pace.seconds(operation, layer))
        self._recorder.compute(operation, SpanKey(layer, self._step.micro_batch_or_none), start)
