"""The order of operations in one step: one description that the simulator predicts and the runtime executes.

A schedule is a list of tasks. Each task runs on one stream of every rank; a stream works through its tasks in
list order, and a task begins when its stream is free and every task in `after` has ended. Tasks of the
communication stream are collective: all ranks of the exchange meet in them. A task `behind` another works on what that
one has done so far: it begins a little after it, and ends after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from wingspan.errors import InputError
from wingspan.schedule.result import Operation, Stream
from wingspan.specs.execution import STREAMED, ScheduleKind, schedule_text

COLLECTIVES = frozenset({Operation.ALL_GATHER, Operation.REDUCE_SCATTER, Operation.ALL_REDUCE})
"""Transfers inside a group that shares attention, or experts."""
COMMUNICATION = COLLECTIVES | {Operation.DISPATCH, Operation.COMBINE}


@dataclass(frozen=True)
class Task:
    """One operation of one micro-batch and chunk.

    Args:
        operation: what is done.
        layer: which layer, counted from 0 over dense and MoE layers; None for embedding and head.
        micro_batch: which part of the step's tokens.
        chunk: which part of the micro-batch's rows, in dispatch, expert and combine.
        after: numbers of the tasks that must have ended.
        of_experts: a collective of the ranks that share experts, not of those that share attention.
        behind: number of the task whose results it takes piece by piece, an expert's rows each.
    """

    operation: Operation
    layer: int | None
    micro_batch: int
    chunk: int
    after: tuple[int, ...]
    of_experts: bool = False
    behind: int | None = None

    @cached_property
    def stream(self) -> Stream:
        """Where it runs."""
        return Stream.COMMUNICATION if self.operation in COMMUNICATION else Stream.COMPUTE


@dataclass(frozen=True)
class Schedule:
    """Tasks in the order in which each stream takes them."""

    name: str
    micro_batches: int
    chunks: int
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Layers:
    """What a schedule must know of the model and its deployment.

    Args:
        count: all layers.
        dense: those with an MLP that every token passes.
        moe: those with experts; None: all that are not dense.
        mixing: those with attention or another mixer; None: all.
        shared_expert: MoE layers have a shared expert.
        shared_beside_dispatch: it computes while the rows travel; otherwise before they leave.
        tensor_parallel: attention and dense layers gather their tokens before and scatter sums after.
        expert_parallel: experts lie on several groups of ranks, between which rows travel.
        expert_tensor_parallel: a group shares each of its experts: gathers rows before, and scatters sums after.
        replicated: one group shares both, so that all its ranks hold all tokens: sums are reduced to all of them, and
            nothing is gathered.
        drafts: tokens are tried ahead: what predicts them stands behind all.
    """

    count: int
    dense: frozenset[int] = frozenset()
    moe: frozenset[int] | None = None
    mixing: frozenset[int] | None = None
    shared_expert: bool = False
    shared_beside_dispatch: bool = True
    tensor_parallel: bool = False
    expert_parallel: bool = True
    expert_tensor_parallel: bool = False
    replicated: bool = False
    drafts: bool = False

    def has_experts(self, layer: int) -> bool:
        """Whether rows travel in it."""
        return layer not in self.dense if self.moe is None else layer in self.moe

    def has_mixer(self, layer: int) -> bool:
        """Whether tokens are mixed in it."""
        return self.mixing is None or layer in self.mixing


def sequential(layers: Layers) -> Schedule:
    """One operation after the other; only a shared expert may run beside a dispatch."""
    return chunked(layers, 1)


def chunked(layers: Layers, chunks: int) -> Schedule:
    """Rows of each MoE layer leave in chunks: while one is computed, the next arrives and the last returns.

    Raises:
        InputError: fewer than one chunk.
    """
    if chunks < 1:
        raise InputError(f"chunks {chunks} must be at least 1")
    kind = ScheduleKind.SEQUENTIAL if chunks == 1 else ScheduleKind.CHUNKS
    return _one_batch(_Builder(layers, chunks), schedule_text(kind, chunks))


def streamed(layers: Layers, kind: ScheduleKind) -> Schedule:
    """Rows of each expert return while the next one's are computed, in a fused kernel also come so (`STREAMED`)."""
    return _one_batch(_Builder(layers, 1, kind), schedule_text(kind))


def _one_batch(build: _Builder, name: str) -> Schedule:
    layers = build.layers
    build.embed(0)
    for layer in range(layers.count):
        build.before_experts(layer, 0)
        if layers.has_experts(layer):
            build.gate(layer, 0)
            build.experts_in_chunks(layer, 0)
    build.head(0)
    build.draft(1)
    return Schedule(name, 1, build.chunks, tuple(build.tasks))


def two_batch(layers: Layers) -> Schedule:
    """The step's sequences in two micro-batches that alternate: one computes while the other's rows travel."""
    build = _Builder(layers, 1)
    both = (0, 1)
    for batch in both:
        build.embed(batch)
    for layer in range(layers.count):
        for batch in both:
            build.before_experts(layer, batch)
            if layers.has_experts(layer):
                build.gate(layer, batch)
                build.dispatch(layer, batch, 0)
        if layers.has_experts(layer):
            for batch in both:
                build.shared_expert(layer, batch, late=True)
                build.expert(layer, batch, 0)
                build.combine(layer, batch, 0)
    for batch in both:
        build.head(batch)
    build.draft(2)
    return Schedule("two-batch", 2, 1, tuple(build.tasks))


def schedule_of(kind: ScheduleKind, chunks: int, layers: Layers) -> Schedule:
    """The schedule of this kind; `chunks` are used by the one that has them.

    Raises:
        InputError: fewer than one chunk.
    """
    if kind is ScheduleKind.TWO_BATCH:
        return two_batch(layers)
    if kind in STREAMED:
        return streamed(layers, kind)
    return chunked(layers, chunks) if kind is ScheduleKind.CHUNKS else sequential(layers)


@dataclass
class _Builder:
    """Adds tasks; `_last` holds, per micro-batch, the tasks whose results the next one needs."""

    layers: Layers
    chunks: int
    kind: ScheduleKind | None = None
    tasks: list[Task] = field(default_factory=list)
    _last: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _dispatched: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    _computed: dict[tuple[int, int], int] = field(default_factory=dict)
    _beside: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def embed(self, batch: int) -> None:
        self._chain(Operation.EMBED, None, batch)

    def head(self, batch: int) -> None:
        self._chain(Operation.HEAD, None, batch)

    def draft(self, batches: int) -> None:
        """Behind all micro-batches, which are tried together."""
        if self.layers.drafts:
            after = tuple(task for batch in range(batches) for task in self._last[batch])
            self._add(Operation.DRAFT, None, 0, 0, after)

    def before_experts(self, layer: int, batch: int) -> None:
        """Mixers and dense MLP of a layer, as far as it has them."""
        if self.layers.has_mixer(layer):
            self._gathered(Operation.ATTENTION, layer, batch)
        if layer in self.layers.dense:
            self._gathered(Operation.DENSE, layer, batch)

    def gate(self, layer: int, batch: int) -> None:
        self._chain(Operation.GATE, layer, batch)
        self._beside[batch] = ()
        self.shared_expert(layer, batch, late=False)

    def shared_expert(self, layer: int, batch: int, *, late: bool) -> None:
        """Before the dispatch, or (`late`) beside it, as the layers want."""
        # Its sum is reduced together with the experts', where they are: no transfer is left to be beside.
        beside = self.layers.shared_beside_dispatch and not self.layers.replicated
        if not self.layers.shared_expert or beside is not late:
            return
        if late:
            self._beside[batch] = (self._add(Operation.SHARED_EXPERT, layer, batch, 0, self._last[batch]),)
        else:
            self._chain(Operation.SHARED_EXPERT, layer, batch)

    def dispatch(self, layer: int, batch: int, chunk: int) -> None:
        """Rows to the groups of their experts, and there to all ranks of the group."""
        done = self._last[batch]
        if self.layers.expert_parallel:
            done = (self._add(Operation.DISPATCH, layer, batch, chunk, done),)
        if self.layers.expert_tensor_parallel and not self.layers.replicated:
            done = (self._add(Operation.ALL_GATHER, layer, batch, chunk, done, of_experts=True),)
        self._dispatched[batch, chunk] = done

    def expert(self, layer: int, batch: int, chunk: int) -> None:
        arrived = self._dispatched[batch, chunk]
        as_they_come = self.kind is ScheduleKind.FUSED and self.layers.expert_parallel
        self._computed[batch, chunk] = self._add(
            Operation.EXPERT, layer, batch, chunk, arrived, behind=as_they_come
        )

    def combine(self, layer: int, batch: int, chunk: int) -> None:
        """Sums of a group's ranks, and rows back to where their tokens live."""
        done = self._computed[batch, chunk]
        if self.layers.expert_tensor_parallel:
            summed = Operation.ALL_REDUCE if self.layers.replicated else Operation.REDUCE_SCATTER
            done = self._add(summed, layer, batch, chunk, (done,), of_experts=True)
        if self.layers.expert_parallel:
            done = self._add(Operation.COMBINE, layer, batch, chunk, (done,), behind=self.kind in STREAMED)
        self._last[batch] = (*(self._beside[batch] if chunk == self.chunks - 1 else ()), done)

    def experts_in_chunks(self, layer: int, batch: int) -> None:
        """Dispatch runs one chunk ahead of the experts, combine one behind the dispatch."""
        gated = self._last[batch]
        self.dispatch(layer, batch, 0)
        self.shared_expert(layer, batch, late=True)
        for chunk in range(self.chunks):
            if chunk + 1 < self.chunks:
                self._last[batch] = gated
                self.dispatch(layer, batch, chunk + 1)
            self.expert(layer, batch, chunk)
            self.combine(layer, batch, chunk)

    def _gathered(self, operation: Operation, layer: int, batch: int) -> None:
        if self.layers.tensor_parallel and not self.layers.replicated:
            self._chain(Operation.ALL_GATHER, layer, batch)
        self._chain(operation, layer, batch)
        if self.layers.tensor_parallel:
            summed = Operation.ALL_REDUCE if self.layers.replicated else Operation.REDUCE_SCATTER
            self._chain(summed, layer, batch)

    def _chain(self, operation: Operation, layer: int | None, batch: int) -> None:
        self._last[batch] = (self._add(operation, layer, batch, 0, self._last.get(batch, ())),)

    def _add(
        self,
        operation: Operation,
        layer: int | None,
        batch: int,
        chunk: int,
        after: tuple[int, ...],
        *,
        of_experts: bool = False,
        behind: bool = False,
    ) -> int:
        """The number of a new task; one that is `behind` begins before the last of `after` has ended."""
        whole, last = (after[:-1], after[-1]) if behind else (after, None)
        self.tasks.append(Task(operation, layer, batch, chunk, whole, of_experts, last))
        return len(self.tasks) - 1
