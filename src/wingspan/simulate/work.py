"""What each operation of a step costs a rank when it has the GPU for itself.

Shapes: R ranks, S slots per rank, P parts of a step or products of an operation, L MoE layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.cost.attention import (
    decode_attention_seconds,
    prefill_attention_seconds,
    prefill_layer_seconds,
    recurrence_seconds,
    unrecorded_layer_seconds,
)
from wingspan.cost.compute import BatchRegime, elementwise_seconds, is_bare, launch_seconds, matmul_seconds
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.limits import MOST_DRAWS
from wingspan.schedule.result import Operation
from wingspan.specs.cluster import Cluster
from wingspan.specs.mixers import Mixer
from wingspan.specs.mixers.core import Core, Recurrence
from wingspan.specs.model import DenseMlp, LayerKind
from wingspan.specs.part_precision import PartPrecision
from wingspan.specs.precision import Precision, wider
from wingspan.specs.workload import RecordedRouting

Array = NDArray[np.float64]

_STREAM_BYTES = 2
"""Hidden states between layers are BF16."""
_ROUTER = PartPrecision(weights=Precision.BF16, activations=Precision.BF16)
"""Routers stay in 16 bits or more."""


@dataclass(frozen=True, eq=False)
class Cost:
    """Seconds, arithmetic and memory traffic of an operation; each (R,) or one number for all ranks."""

    seconds: Array
    flops: Array
    moved_bytes: Array

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds, self.flops + other.flops, self.moved_bytes + other.moved_bytes
        )

    def over_products(self) -> Cost:
        """The sum over the first axis: products that run one after another."""
        return Cost(self.seconds.sum(0), self.flops.sum(0), self.moved_bytes.sum(0))


class Work:
    """Prices a deployment's operations for one micro-batch.

    Args:
        deployment: what runs.
        cluster: as much of its cluster as the ranks fill.
        micro_batches: into how many the step's tokens are cut.
    """

    def __init__(self, deployment: Deployment, cluster: Cluster, micro_batches: int) -> None:
        self._model = deployment.model
        self._cluster = cluster
        self._precisions = deployment.precisions
        self._phase = deployment.workload.phase
        self._batch = BatchRegime.of(deployment.workload.phase, deployment.sending)
        self._group = deployment.options.attention_ranks
        self._cut = deployment.options.expert_tensor_parallel
        # In a group whose ranks all hold all tokens each does for all what is not cut.
        self._copies = deployment.summing_ranks if deployment.replicated else 1
        self._fuses = deployment.fuses_sums
        self._homes = deployment.ranks // self._group
        self._dispatches = deployment.sending is not None and deployment.ranks > 1
        tokens_R, sequences_R = deployment.tokens_R / micro_batches, deployment.sequences_R / micro_batches
        self._shared_tokens = _alike(deployment.of_attention_group(tokens_R))
        self._shared_sequences = _alike(deployment.of_attention_group(sequences_R))
        self._tokens = self._shared_tokens if deployment.replicated else _alike(tokens_R)
        self._sequences = self._shared_sequences if deployment.replicated else _alike(sequences_R)
        self._contexts_RB = contexts(deployment)
        self._tried = deployment.workload.tried_per_sequence
        self._micro_batches = micro_batches

    def embed(self) -> Cost:
        """Look the tokens' rows up; what the engine does before a step is counted here."""
        return self._with_engine(Operation.EMBED, self._stream())

    @property
    def engine_seconds(self) -> dict[Operation, float]:
        """What the engine adds: to a step, before its first task; to a pass of a layer in decode with a dispatch.

        What each sequence or token of a prompt adds counts on the home that has most of them: all wait for it.
        """
        added = self._cluster.kernels.engine
        each, on_home = added.sequence_seconds, self._shared_sequences
        if self._phase == "prefill":
            each, on_home = added.token_seconds, self._shared_tokens
        # `on_home` is of one micro-batch, and each has a task of this operation.
        of_step = added.step_seconds + (added.agreement_seconds if self._homes > 1 else 0.0)
        found = {Operation.EMBED: of_step / self._micro_batches + each * float(on_home.max())}
        if self._dispatches and self._batch is BatchRegime.SMALL:
            found[Operation.ATTENTION] = added.layer_seconds
        return {operation: seconds for operation, seconds in found.items() if seconds}

    def of_kind(self, kind: LayerKind) -> dict[Operation, Cost]:
        """What layers of this kind compute beside experts, by operation."""
        found = {Operation.ATTENTION: self.attention(kind)} if kind.mixers else {}
        return found if kind.dense is None else {**found, Operation.DENSE: self.dense(kind.dense)}

    def attention(self, kind: LayerKind) -> Cost:
        """Norm, projections and core of every mixer of a layer of this kind; small kernels of the layer go with it."""
        mixed = _sum([self._mixer(mixer) for mixer in kind.mixers])
        return self._with_engine(Operation.ATTENTION, _longer(mixed, self._small_seconds))

    def dense(self, mlp: DenseMlp) -> Cost:
        """Norm and MLP of a layer."""
        return self._stream() + self._mlp(
            self._shared_tokens, mlp.intermediate / self._group, mlp.matrices, self._precisions.dense
        )

    def gate(self) -> Cost:
        """Norm, router and projections of rows of an MoE layer; routers stay in 16 bits or more."""
        model, experts = self._model, self._model.experts
        inner_P, columns_P = np.array(experts.router(model.hidden), np.float64).T
        router = self._matmul(self._tokens, inner_P[:, None], columns_P[:, None], _ROUTER)
        cost = self._stream() + router.over_products()
        if experts.row_width is None:
            return cost
        inward = self._matmul(self._tokens, model.hidden, experts.row_width, self._precisions.shared)
        return (
            cost
            + inward
            + self._matmul(self._tokens, experts.row_width, model.hidden, self._precisions.shared)
        )

    def shared_expert(self) -> Cost:
        """The shared experts on the rank's own tokens; cut like the others where all ranks hold all tokens.

        Then engines compute them as one more routed expert (SGLang) or on a second stream beside these (TensorRT-LLM,
        vLLM): their bytes and arithmetic take their time, their launches none.
        """
        width = self._model.experts.shared_intermediate / self._copies
        cost = self._mlp(self._tokens, width, self._model.experts.matrices, self._precisions.shared)
        if not self._fuses:
            return cost
        part = self._precisions.shared
        bare = is_bare(part.weights, part.activations)
        launches = 2 * launch_seconds(self._cluster, self._batch, bare=bare)
        return _longer(cost, -np.minimum(launches, cost.seconds))

    def head(self) -> Cost:
        """Last norm and logits: of every sequence's last token, and of all that it tries ahead."""
        rows = self._shared_sequences * self._tried
        norm = self._elementwise(self._sequences * self._tried * self._model.hidden * 2)
        whole = self._precisions.unquantised
        head = PartPrecision(weights=whole, activations=whole)
        return norm + self._matmul(rows, self._model.hidden, self._model.vocabulary / self._group, head)

    def experts(self, rows_PLRS: Array, seconds_PLR: Array, active_PLRS: Array) -> Cost:
        """All experts of each rank in each part and layer: arrays (P, L, R).

        Args:
            rows_PLRS: rows that each slot computes.
            seconds_PLR: what that takes, from `layer_cost`.
            active_PLRS: the share of the time in which each slot has rows.
        """
        model, precisions = self._model, self._precisions
        experts = model.experts
        intermediate = experts.intermediate / self._cut
        values = experts.matrices * model.row_width * intermediate
        rows, active = rows_PLRS.sum(axis=-1), active_PLRS.sum(axis=-1)
        width = 2 * model.row_width + 2 * experts.matrices * intermediate
        moved = (
            active * values * precisions.experts.weights.weight_bytes
            + rows * width * precisions.experts.activations.bytes
        )
        added = self._cluster.kernels.engine.expert_seconds
        seconds = seconds_PLR + added * active if added else seconds_PLR
        return Cost(seconds, 2.0 * values * rows, moved)

    def _with_engine(self, operation: Operation, cost: Cost) -> Cost:
        return _longer(cost, self.engine_seconds.get(operation, 0.0))

    @property
    def _small_seconds(self) -> Array:
        """Small kernels of one pass of a layer, and the gaps between its kernels: (R,) or (1,).

        Where kernels are launched one by one, the host's time for a layer holds the gaps.
        """
        small, tokens = self._cluster.kernels.small, np.atleast_1d(self._tokens)
        moved = small.row_passes * tokens * self._model.hidden * _STREAM_BYTES
        gaps = small.layer_seconds if self._batch is BatchRegime.SMALL else 0.0
        return np.where(tokens > 0, gaps + moved / self._cluster.gpu.sustained_memory_bytes_per_second, 0.0)

    def _mixer(self, mixer: Mixer) -> Cost:
        tokens, precisions = self._shared_tokens, self._precisions
        absorbed = self._batch is not BatchRegime.LARGE
        inner_P, columns_P = np.array(
            mixer.products(self._model.hidden, self._group, absorbed=absorbed), np.float64
        ).T
        products = self._matmul(tokens, inner_P[:, None], columns_P[:, None], precisions.attention)
        cost = self._stream() + products.over_products()
        stored = PartPrecision(weights=precisions.attention.weights, activations=Precision.BF16)
        for inner, columns in mixer.absorbing(self._group) if absorbed else ():
            cost = cost + self._matmul(tokens, inner, columns, stored, bare=False)
        for core in mixer.cores(self._group, absorbed=absorbed):
            cost = cost + self._core(core)
        recurrence = mixer.recurrence(self._group)
        if recurrence is not None:
            cost = cost + self._recurrence(recurrence)
        if self._batch is BatchRegime.SMALL:
            return cost
        unrecorded = self._batch is BatchRegime.UNRECORDED
        layer_seconds = unrecorded_layer_seconds if unrecorded else prefill_layer_seconds
        return Cost(layer_seconds(self._cluster, cost.seconds), cost.flops, cost.moved_bytes)

    def _core(self, core: Core) -> Cost:
        precisions, cluster = self._precisions, self._cluster
        sequences = self._shared_sequences
        if self._batch is not BatchRegime.LARGE:
            keys_R = core.seen(self._contexts_RB).mean(axis=1)
            seconds = decode_attention_seconds(
                cluster, core, sequences, keys_R, precisions.core, precisions.kv, self._tried
            )
            pairs = sequences * keys_R
            return Cost(
                seconds,
                self._tried * pairs * core.flops_per_pair,
                pairs * core.cached_values * precisions.kv.bytes
                + self._tried * sequences * core.row_values * _STREAM_BYTES,
            )
        pairs_R = core.pairs(self._contexts_RB).mean(axis=1)
        # Sequences of one length with as many pairs cost the same.
        alike_R = (np.sqrt(1 + 8 * pairs_R) - 1) / 2
        seconds = prefill_attention_seconds(cluster, core, alike_R, 0.0, precisions.core, sequences)
        pairs = sequences * pairs_R
        moved = np.broadcast_to(self._shared_tokens * core.cached_values * precisions.kv.bytes, pairs.shape)
        return Cost(seconds, pairs * core.flops_per_pair, moved)

    def _recurrence(self, recurrence: Recurrence) -> Cost:
        tokens, sequences = self._shared_tokens, self._shared_sequences
        precision = wider(self._precisions.attention.activations, Precision.BF16)
        seconds = recurrence_seconds(
            self._cluster,
            recurrence,
            sequences,
            tokens,
            precision,
            decode=self._batch is not BatchRegime.LARGE,
        )
        return Cost(seconds, tokens * recurrence.flops_per_token, 2 * sequences * recurrence.state_bytes)

    def _stream(self) -> Cost:
        """Read and write every token's row for its norm, unless the sum before it did."""
        return self._elementwise(self._tokens * self._model.hidden * (0 if self._fuses else 2))

    def _mlp(self, tokens: ArrayLike, intermediate: float, matrices: int, part: PartPrecision) -> Cost:
        hidden = self._model.hidden
        up = self._matmul(tokens, hidden, (matrices - 1) * intermediate, part)
        return up + self._matmul(tokens, intermediate, hidden, part)

    def _matmul(
        self,
        rows: ArrayLike,
        inner: ArrayLike,
        columns: ArrayLike,
        part: PartPrecision,
        *,
        bare: bool | None = None,
    ) -> Cost:
        weights, activations = part.weights, part.activations
        if weights.bytes >= 2:
            activations = wider(activations, Precision.BF16)
        seconds = matmul_seconds(
            self._cluster, rows, inner, columns, weights, activations, self._batch, bare=bare
        )
        rows, inner, columns = (np.asarray(a, dtype=np.float64) for a in (rows, inner, columns))
        read = np.where(rows > 0, inner * columns * weights.weight_bytes, 0.0)
        moved = read + rows * (inner + columns) * activations.bytes
        return Cost(seconds, np.asarray(2.0 * rows * inner * columns), np.asarray(moved))

    def _elementwise(self, values: ArrayLike) -> Cost:
        moved = np.asarray(values, dtype=np.float64) * _STREAM_BYTES
        return Cost(elementwise_seconds(self._cluster, moved, self._batch), np.zeros(()), moved)


def active_slots(deployment: Deployment, rows_PLRS: Array) -> Array:
    """The share of the time in which each slot has rows.

    All of it or none, of a replica its part, where a step's own choices were drawn or recorded; else of tokens that
    each choose alone.
    """
    work = deployment.workload
    trace = work.routing.tokens if isinstance(work.routing, RecordedRouting) else None
    if work.fluctuating or (trace is not None and trace.num_tokens == deployment.tokens):
        return np.asarray(np.minimum(rows_PLRS, 1.0))
    tokens = max(deployment.tokens / len(rows_PLRS), 1.0)
    return np.asarray(1 - (1 - np.minimum(rows_PLRS / tokens, 1.0)) ** tokens)


def contexts(deployment: Deployment) -> Array:
    """Context lengths of each rank's sequences, of which every rank of an attention group sees all: (R, B)."""
    workload, ranks, group = deployment.workload, deployment.ranks, deployment.options.attention_ranks
    mean, spread = workload.context.mean_tokens, workload.context.spread
    if workload.phase == "prefill":
        mean = min(mean, workload.tokens_per_gpu)
    if not spread:
        return np.full((ranks, 1), float(mean))
    rng = np.random.default_rng((workload.seed, 1))
    sigma = np.sqrt(np.log1p(spread**2))
    count = max(1, round(workload.sequences_per_gpu))
    if ranks * count > MOST_DRAWS:
        raise InputError(
            f"workload.context: a spread draws a length for each of {ranks * count:,} sequences, more than "
            f"{MOST_DRAWS:,}; take fewer, or no spread"
        )
    drawn = mean * np.exp(sigma * rng.standard_normal((ranks, count)) - sigma**2 / 2)
    if workload.phase == "prefill":
        # Every rank computes equally many tokens; only how they are cut into prompts differs.
        drawn *= mean * count / drawn.sum(axis=1, keepdims=True)
    shared = drawn.reshape(ranks // group, -1)
    return np.asarray(np.repeat(shared, group, axis=0))


def _alike(values_R: Array) -> Array:
    """One number for all ranks, where they are alike."""
    return values_R[:1] if (values_R == values_R[0]).all() else values_R


def _longer(cost: Cost, seconds: Array | float) -> Cost:
    return Cost(cost.seconds + seconds, cost.flops, cost.moved_bytes)


def _sum(costs: list[Cost]) -> Cost:
    return reduce(add, costs, Cost(np.zeros(1), np.zeros(1), np.zeros(1)))
