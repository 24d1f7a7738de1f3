"""One MoE layer's experts under expert parallelism, and its place in an unmodified transformers model.

Shapes: T tokens, M of them valid (the rest is padding), D hidden size, K experts per token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from wingspan.errors import InputError
from wingspan.runtime.dispatch.dispatcher import Dispatcher, Handle, PeerBytes, Pending, Received, Value
from wingspan.runtime.dispatch.streamed import StreamedDispatcher
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder, SpanKey
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.experts_table import need_row
from wingspan.runtime.model.shared_expert import SharedExpert
from wingspan.runtime.model.step import Step
from wingspan.runtime.ranks.clock import Moment
from wingspan.runtime.transport.turns import is_bulk
from wingspan.schedule.result import Operation

IMPLEMENTATION = "wingspan"
"""Name of our experts function in transformers' registry."""

_ATTRIBUTE = "expert_parallel_layer"


class ExpertParallelLayer:
    """Replaces the body of a transformers experts module: dispatch, this rank's experts, combine.

    Args:
        index: number among the MoE layers.
        number: number among all layers.
    """

    def __init__(
        self,
        index: int,
        number: int,
        experts: LocalExperts,
        dispatcher: Dispatcher[Any, Any],
        monitor: LoadMonitor,
        recorder: Recorder,
        step: Step,
    ) -> None:
        self.index = index
        self.number = number
        self.experts = experts
        self.dispatcher = dispatcher
        self.shared_expert: SharedExpert | None = None
        self.gate_begun: Moment | None = None
        self.beside_gate: list[tuple[Moment, Moment]] = []
        """What ran since then and is not the gate's: the shared expert, where it comes first."""
        self._monitor = monitor
        self._recorder = recorder
        self._step = step

    def __call__(
        self, hidden_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        """The weighted sum of each token's experts (T, D); zero for padding. Collective over the EP group."""
        self._end_gate()
        tokens = self._step.tokens
        # A model whose last layers share keys and values gives them the last column of each row alone: a token.
        if tokens is None or tokens.rows != len(hidden_TD):
            return self._exchange_and_compute(hidden_TD, hidden_TD, experts_TK, weights_TK)
        at_M = tokens.at_M
        y_MD = self._exchange_and_compute(hidden_TD, hidden_TD[at_M], experts_TK[at_M], weights_TK[at_M])
        return torch.zeros_like(hidden_TD).index_copy(0, at_M, y_MD)

    def of_picks(
        self,
        hidden_TD: torch.Tensor,
        rows_TKD: torch.Tensor,
        experts_TK: torch.Tensor,
        wanted_TK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What each pick's expert makes of a row of its own (T, K, D), not weighted. Collective over the EP group.

        Args:
            hidden_TD: the tokens.
            rows_TKD: what each expert takes.
            experts_TK: the picks.
            wanted_TK: which of them are computed; the others give zeros, as padding does. None: all.
        """
        self._end_gate()
        pick_P = self._picks(experts_TK, wanted_TK)
        rows_MD, experts_M1 = rows_TKD.flatten(0, 1)[pick_P], experts_TK.flatten()[pick_P, None]
        y_MD = self._exchange_and_compute(hidden_TD, rows_MD, experts_M1, rows_MD.new_ones(len(rows_MD), 1))
        y_PD = rows_TKD.new_zeros((experts_TK.numel(), rows_TKD.shape[-1])).index_copy(0, pick_P, y_MD)
        return y_PD.view(rows_TKD.shape)

    def _picks(self, experts_TK: torch.Tensor, wanted_TK: torch.Tensor | None) -> torch.Tensor:
        """Which of all picks, counted through, are those of tokens, and wanted."""
        (T, K), tokens = experts_TK.shape, self._step.tokens
        if tokens is None or tokens.rows != T:
            pick_P = torch.arange(experts_TK.numel(), device=experts_TK.device)
        else:
            pick_P = (tokens.at_M[:, None] * K + torch.arange(K, device=experts_TK.device)).flatten()
        return pick_P if wanted_TK is None else pick_P[wanted_TK.flatten()[pick_P]]

    def _end_gate(self) -> None:
        if self.gate_begun is not None:
            self._recorder.compute(Operation.GATE, self.span_key(), self.gate_begun, without=self.beside_gate)
            self.gate_begun = None

    def span_key(self, chunk: int | None = None) -> SpanKey:
        """Where in the step this layer is, for the recorder."""
        chunked = self._step.flow.chunks > 1
        return SpanKey(self.number, self._step.micro_batch_or_none, chunk if chunked else None)

    def _exchange_and_compute(
        self, all_TD: torch.Tensor, x_MD: torch.Tensor, experts_MK: torch.Tensor, weights_MK: torch.Tensor
    ) -> torch.Tensor:
        """The layer's operations in the order that the step's schedule has them."""
        step, chunks = self._step, self._step.flow.chunks
        several = chunks > 1 or step.flow.micro_batches > 1
        if several and not self.dispatcher.capabilities.overlap:
            raise InputError("`schedule`: this dispatcher has one exchange under way; use sequential")
        shared = self.shared_expert if self.shared_expert and self.shared_expert.comes_later else None
        self._monitor.count(self.index, experts_MK)
        if shared is not None and step.flow.shared_expert_first:
            shared.compute_ahead(all_TD)
            shared = None
        dispatcher = self._dispatcher_for(x_MD, experts_MK.shape[1], shared)
        routed = _Clock(self._recorder.now())
        routes = dispatcher.route(x_MD, experts_MK, weights_MK, chunks, step.micro_batch)
        under_way = [_Chunk(self, dispatcher, c, route) for c, route in enumerate(routes)]
        under_way[0].dispatched = routed
        for operation, c in step.flow.of_layer:
            if operation is Operation.DISPATCH:
                under_way[c].send()
            elif operation is Operation.EXPERT:
                under_way[c].compute()
            elif operation is Operation.COMBINE:
                under_way[c].send_back()
            elif shared is not None:
                shared.compute_ahead(all_TD)
            if operation is Operation.DISPATCH or (operation is Operation.COMBINE and c == chunks - 1):
                step.pause()
        parts = [chunk.take() for chunk in under_way]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(x_MD.dtype)

    def _dispatcher_for(
        self, x_MD: torch.Tensor, top_k: int, shared: SharedExpert | None
    ) -> Dispatcher[Any, Any]:
        """On the communication stream where the schedule has compute beside exchanges.

        NCCL has streams of its own, and gradients are exchanged on the spot. A dispatch beside the shared expert alone
        must be worth the change of threads; every rank may judge for itself, its exchanges' order is the same.
        """
        streamed = self._step.flow.overlaps or (
            shared is not None and is_bulk(x_MD.numel() * x_MD.element_size() * top_k, ranks=1)
        )
        communication = self._step.communication
        if communication is None or not streamed or torch.is_grad_enabled():
            return self.dispatcher
        return StreamedDispatcher(self.dispatcher, communication)


class _Clock:
    """When an exchange began, and from when until when it has held this rank up so far."""

    def __init__(self, start: Moment) -> None:
        self.start = start
        self.held: list[tuple[Moment, Moment]] = []


class _Chunk:
    """A part of a layer's tokens on its way to the experts and back."""

    def __init__(
        self, layer: ExpertParallelLayer, dispatcher: Dispatcher[Any, Any], number: int, route: Any
    ) -> None:
        self._layer = layer
        self._dispatcher = dispatcher
        self._recorder = layer._recorder
        self._number = number
        self._route = route
        self._pending_dispatch: Pending[Received[Any]] | None = None
        self._pending_combine: Pending[torch.Tensor] | None = None
        self._handle: Handle | None = None
        self._rows_out: torch.Tensor | None = None
        self._returned = _Clock(0.0)
        self.dispatched: _Clock | None = None

    def send(self) -> None:
        """Start the dispatch. What of it is done on the spot (sorting, copying) counts as exposed."""
        begun = self._recorder.now()
        self.dispatched = self.dispatched or _Clock(begun)
        self._pending_dispatch = self._dispatcher.send(self._route)
        # From the clock's start, because the first chunk's began with the exchange of counts.
        since = begun if self._number else self.dispatched.start
        self.dispatched.held.append((since, self._recorder.now()))

    def compute(self) -> None:
        """Wait for the rows, and let this rank's experts have them."""
        if self._pending_dispatch is None or self.dispatched is None:
            raise RuntimeError("the schedule computes a chunk before its dispatch")
        received = self._wait(self._pending_dispatch, self.dispatched)
        self._handle = received.handle
        self._moved(Operation.DISPATCH, self._pending_dispatch, self.dispatched, received.handle.traffic)
        start = self._recorder.now()
        self._rows_out = self._layer.experts(received.rows_ND, received.counts_S, in_place=True)
        self._recorder.compute(Operation.EXPERT, self._layer.span_key(self._number), start)

    def send_back(self) -> None:
        """Start the combine."""
        if self._rows_out is None or self._handle is None:
            raise RuntimeError("the schedule combines a chunk before its experts")
        self._returned = _Clock(self._recorder.now())
        self._pending_combine = self._dispatcher.send_back(self._rows_out, self._handle)
        self._returned.held.append((self._returned.start, self._recorder.now()))

    def take(self) -> torch.Tensor:
        """Wait for the weighted sums."""
        if self._pending_combine is None or self._handle is None:
            raise RuntimeError("the schedule leaves a chunk without its combine")
        sums_TD = self._wait(self._pending_combine, self._returned)
        self._moved(Operation.COMBINE, self._pending_combine, self._returned, self._handle.back_traffic)
        return sums_TD

    def _wait(self, pending: Pending[Value], clock: _Clock) -> Value:
        start = self._recorder.now()
        value = pending.wait()
        clock.held.append((start, self._recorder.now()))
        return value

    def _moved(self, operation: Operation, pending: Pending[Any], clock: _Clock, traffic: PeerBytes) -> None:
        """Record an exchange that has been waited for."""
        began, ended = pending.under_way or (clock.start, self._recorder.now())
        self._recorder.transfer(
            operation,
            self._layer.span_key(self._number),
            began,
            ended,
            clock.held,
            (traffic.sent_R, traffic.received_R),
        )


def install(model: nn.Module, layers: dict[str, ExpertParallelLayer]) -> None:
    """Make the experts modules at these paths compute through their `ExpertParallelLayer`."""
    for path, layer in layers.items():
        module = model.get_submodule(path)
        call = need_row(module).call
        if call is None:
            object.__setattr__(module, _ATTRIBUTE, layer)
        else:
            module.forward = partial(call, module, layer)
    if any(hasattr(model.get_submodule(path), _ATTRIBUTE) for path in layers):
        model.set_experts_implementation(IMPLEMENTATION)  # type: ignore[operator]


def _experts_function(
    module: nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    layer: ExpertParallelLayer = getattr(module, _ATTRIBUTE)
    return layer(hidden_states, top_k_index, top_k_weights)


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _experts_function)
