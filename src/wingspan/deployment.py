"""The deployment: model, cluster, workload, placement and options in one file that a person can read and diff.

`Deployment` is what `simulate` predicts and `run` runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wingspan.deployment_presets import is_preset, preset_values
from wingspan.errors import InputError
from wingspan.limits import MOST_SLOTS, Ranks, Tokens
from wingspan.placement.spec import PlacementSpec
from wingspan.reading import check_kind, json_value
from wingspan.routing.homes import spread_requests
from wingspan.routing.trace import RoutingTrace
from wingspan.schedule.schedule import Layers, Schedule, schedule_of
from wingspan.specs.cluster import Cluster
from wingspan.specs.engines import Engine, EngineKind, profile_of
from wingspan.specs.execution import STREAMED, DispatcherKind, ScheduleKind, ScheduleText, parse_schedule
from wingspan.specs.model import ModelSpec
from wingspan.specs.part_precision import Precisions
from wingspan.specs.placement import Placement
from wingspan.specs.reading import Spec, parse
from wingspan.specs.workload import RecordedRouting, Workload
from wingspan.traffic.counted import count_traffic
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice
from wingspan.traffic.expected import expected_traffic
from wingspan.traffic.layers import LayerTraffic
from wingspan.traffic.planes import plane_of
from wingspan.traffic.shares import expert_shares
from wingspan.writing import is_stream, json_text, write_text

SCHEMA_VERSION = 2
"""Raised whenever a file of the version before would be read otherwise."""


class Options(Spec):
    """How the step is executed."""

    schedule: ScheduleText = Field(
        default="sequential",
        description="sequential, chunks:N (a layer's rows in N parts; each pays the latency of its own exchange), "
        "two-batch, single-batch (rows return while later experts are computed) or fused (one kernel for a layer)",
    )
    shared_beside_dispatch: bool = Field(default=True, description="shared experts compute while rows travel")
    dispatcher: DispatcherKind | None = Field(
        default=None, description="default: flat in decode, hierarchical in prefill"
    )
    engine: Engine = Field(
        default=EngineKind.NONE,
        description="whose work beside its kernels is counted: a name, or a profile that calibrate wrote",
    )
    attention_ranks: Ranks = Field(
        default=1, description="1: data-parallel; more: tensor-parallel over that many ranks of a node"
    )
    expert_tensor_parallel: Ranks = Field(
        default=1,
        description="1: an expert lies whole on a rank; more: its width is cut over that many neighbours",
    )
    reserve_share: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="of GPU memory, for the driver, libraries and fragments that no formula counts; a cluster that "
        "says process_bytes has these instead",
    )

    @model_validator(mode="before")
    @classmethod
    def _schedule_in_two_keys(cls, data: Any) -> Any:
        """Files of earlier versions have a schedule's kind and its `chunks` apart."""
        if not isinstance(data, dict) or ("chunks" not in data and data.get("schedule") != "chunks"):
            return data
        chunks, kind = data.get("chunks", 2), data.get("schedule", "sequential")
        if kind in ("sequential", "two-batch"):
            kept = kind
        elif kind == "chunks":
            kept = f"chunks:{chunks}"
        else:
            raise ValueError(f"schedule {kind} says its chunks itself; leave the key chunks out")
        return {**{key: value for key, value in data.items() if key != "chunks"}, "schedule": kept}


class PlannedRequests(Spec):
    """The requests that a plan was for, and how soon their tokens were to come."""

    gpus: Ranks
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    ttft_seconds: float | None = Field(default=None, gt=0)
    tpot_seconds: float | None = Field(default=None, gt=0)


class Planned(Spec):
    """What the plan that wrote the file was to keep; it chose whatever is None here, and would choose it anew."""

    dispatcher: DispatcherKind | None = None
    expert_tensor_parallel: Ranks | None = None
    tokens_per_gpu: Tokens | None = None
    total_sequences: int | None = Field(default=None, ge=1, description="over all GPUs and groups")
    longest_step_seconds: float | None = Field(default=None, gt=0)
    experts_per_rank: int | None = Field(default=None, ge=1)
    redundant: int | None = Field(
        default=None, ge=0, description="slots beyond the experts, in all of a layer"
    )
    placement: PlacementSpec | None = None
    requests: PlannedRequests | None = Field(
        default=None, description="of a plan for requests: it is of all groups, and the file one of them"
    )


class Deployment(Spec):
    """What is to be predicted, or run."""

    schema_version: Literal[2] = 2
    model: ModelSpec
    cluster: Cluster
    workload: Workload
    placement: PlacementSpec
    options: Options = Options()
    checkpoint: str | None = Field(
        default=None,
        description="folder of the model's weights, where it was planned from one; from the file's folder",
    )
    planned: Planned | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranks = self.ranks
        slots = ranks * self.placement.experts_per_rank * self.model.layers
        if slots > MOST_SLOTS:
            raise ValueError(
                f"{ranks} ranks x {self.placement.experts_per_rank} slots in {self.model.layers} layers are "
                f"{slots:,} slots, more than {MOST_SLOTS:,}"
            )
        if ranks > self.cluster.gpus:
            raise ValueError(
                f"{ranks} ranks exceed the cluster's {self.cluster.gpus} GPUs; give it more nodes or use fewer ranks"
            )
        self._check_groups()
        self._check_streamed()
        self._check_parts()
        self._check_tried()
        self._check_spread()
        fullest = self.workload.spread_over(ranks).tokens_per_gpu
        if fullest != self.workload.tokens_per_gpu:
            raise ValueError(
                f"total_sequences {self.workload.total_sequences} on {ranks} ranks are {fullest} on the fullest: "
                f"tokens_per_gpu {self.workload.tokens_per_gpu} must say so"
            )
        context, longest = self.workload.context.mean_tokens, self.model.max_context
        if longest is not None and context > longest:
            raise ValueError(
                f"a context of {context:,} tokens is longer than the {longest:,} that {self.model.name} was made for; "
                "shorten it, or raise max_position_embeddings in its config.json"
            )
        return self

    def _check_groups(self) -> None:
        """Raise `ValueError` where attention or experts cannot be cut over as many ranks as asked."""
        ranks, cut = self.ranks, self.options.expert_tensor_parallel
        in_node = min(ranks, max(self.cluster.gpus_per_node, self.cluster.scale_up_domain_gpus))
        for name, group, parts, unit in (
            ("attention_ranks", self.options.attention_ranks, self.model.heads, "heads"),
            (
                "expert_tensor_parallel",
                cut,
                self.model.experts.intermediate,
                "values of an expert's inner width",
            ),
        ):
            # Across nodes only where the hidden states are the group's anyway: experts are cut, or summed, as far.
            whole_nodes = (cut > 1 or self.replicated) and group % in_node == 0
            if ranks % group or (in_node % group and not whole_nodes):
                raise ValueError(f"{name} {group} must divide the {ranks} ranks and the {in_node} of a node")
            if parts % group:
                raise ValueError(f"{name} {group} must divide the {parts} {unit}")

    def _check_streamed(self) -> None:
        """Raise `ValueError` where rows cannot return expert by expert, and are to."""
        kind = self.options.schedule
        if kind not in STREAMED:
            return
        if self.dispatcher is not DispatcherKind.FLAT:
            raise ValueError(
                f"schedule {kind}: a {self.dispatcher} dispatcher sums a token's rows before they return; use "
                "dispatcher flat, or schedule chunks:N"
            )
        if self.options.expert_tensor_parallel > 1:
            raise ValueError(
                f"schedule {kind}: experts cut over {self.options.expert_tensor_parallel} ranks are summed before "
                "their rows return; use expert_tensor_parallel 1, or schedule chunks:N"
            )

    def _check_tried(self) -> None:
        """Raise `ValueError` where tokens are to be tried ahead and nothing predicts them, or none is decoded."""
        tried = self.workload.mtp_tokens
        if tried and not self.model.mtp_layers:
            raise ValueError(
                f"mtp_tokens {tried}: {self.model.name} has no layer that predicts further tokens"
            )
        if tried and self.workload.phase != "decode":
            raise ValueError(f"mtp_tokens {tried}: a prefill tries no tokens ahead; leave it out")

    def _check_spread(self) -> None:
        """Raise `ValueError` where ranks are to have unlike numbers of tokens, and a trace says how many."""
        spread, routing = self.workload.tokens_spread, self.workload.routing
        if spread and isinstance(routing, RecordedRouting) and routing.trace is not None:
            raise ValueError(
                f"tokens_spread {spread:g}: {routing.trace} says on which rank each token lives; leave one out"
            )

    def _check_parts(self) -> None:
        """Raise `ValueError` where a part that the model lacks is asked for in a format of its own."""
        asked, lacking = self.workload.precision, {"dense": "dense MLPs", "shared": "shared experts"}
        for part in lacking.keys() - self.model.weighted_parts:
            if (given := getattr(asked, part)) not in (None, asked.attention, asked.experts):
                raise ValueError(f"precision {part}={given}: {self.model.name} has no {lacking[part]}")

    @property
    def ranks(self) -> int:
        """GPUs that form one deployment: EP size x ranks that share each expert."""
        return self.placement.ranks * self.options.expert_tensor_parallel

    @property
    def layout(self) -> str:
        """How experts are spread, in words: `EP 64`, `TP 16`, or `EP 8 x TP 2`."""
        groups, cut = self.placement.ranks, self.options.expert_tensor_parallel
        if cut == 1:
            return f"EP {groups}"
        return f"TP {cut}" if groups == 1 else f"EP {groups} x TP {cut}"

    @property
    def replicated(self) -> bool:
        """Whether all ranks hold all tokens: they share attention, and every expert, as one group.

        An engine whose ranks all share attention dispatches nothing either where there are groups of experts: each rank
        computes its own for all tokens, and their sums are reduced (SGLang and vLLM, without data-parallel attention).
        """
        options = self.options
        if not 1 < options.attention_ranks == self.ranks:
            return False
        return self.placement.ranks == 1 or options.engine is not EngineKind.NONE

    @property
    def fuses_sums(self) -> bool:
        """Whether an engine reduces sums by kernels of its own, which add the residual and take the norm as well.

        So do TensorRT-LLM (its tech blog 1: one-shot all-reduce, RMSNorm and quantising in one kernel), SGLang and vLLM
        in decode where all ranks hold all tokens.
        """
        engine = self.options.engine is not EngineKind.NONE
        return self.replicated and engine and self.workload.phase == "decode"

    @property
    def summing_ranks(self) -> int:
        """Neighbouring ranks whose experts' outputs are summed before a token has them back; 1: none but its own."""
        return self.ranks if self.replicated else self.options.expert_tensor_parallel

    @property
    def tokens(self) -> int:
        """Tokens of a step, over all ranks."""
        work = self.workload
        if work.total_sequences is None:
            return work.tokens_per_gpu * self.ranks * work.tried_per_sequence
        return work.total_sequences * work.tokens_per_sequence * work.tried_per_sequence

    @property
    def gained_tokens(self) -> float:
        """Tokens that a step gives in the mean: of those that are tried ahead, the accepted ones."""
        return self.tokens * self.workload.gained_per_sequence / self.workload.tried_per_sequence

    @property
    def sequences_R(self) -> NDArray[np.float64]:
        """Sequences of each rank; those that are counted in all are spread as evenly as whole ones can be."""
        work, ranks = self.workload, self.ranks
        if work.tokens_spread and work.total_sequences is None:
            return self._spread_R / (work.tokens_per_gpu / work.sequences_per_gpu)
        if work.total_sequences is None:
            return np.full(ranks, work.sequences_per_gpu)
        return np.diff(np.arange(ranks + 1) * work.total_sequences // ranks).astype(np.float64)

    @property
    def tokens_R(self) -> NDArray[np.float64]:
        """New tokens of each rank."""
        work = self.workload
        if work.tokens_spread and work.total_sequences is None:
            return self._spread_R * work.tried_per_sequence
        if work.total_sequences is None:
            return np.full(self.ranks, float(work.tokens_per_gpu * work.tried_per_sequence))
        return self.sequences_R * work.tokens_per_sequence * work.tried_per_sequence

    @property
    def _spread_R(self) -> NDArray[np.float64]:
        """New tokens of each rank, whole ones, where ranks have unlike numbers of them."""
        work, ranks = self.workload, self.ranks
        ends_R = np.rint(np.cumsum(work.rank_shares(ranks)) * work.tokens_per_gpu)
        ends_R[-1] = work.tokens_per_gpu * ranks
        return np.diff(ends_R, prepend=0.0)

    def of_attention_group(self, values_R: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each rank the sum over the ranks that share its attention."""
        group = self.options.attention_ranks
        return np.repeat(values_R.reshape(-1, group).sum(axis=1), group)

    @property
    def used_cluster(self) -> Cluster:
        """The part of the cluster that the ranks fill, with its kernels as the engine runs them."""
        part, engine = self.cluster.part(self.ranks), self.options.engine
        return part if engine is EngineKind.NONE else profile_of(engine).on(part)

    @property
    def precisions(self) -> Precisions:
        """What the step computes, keeps and sends in on the cluster's GPUs."""
        return self.workload.precisions(self.model, self.cluster.gpu)

    @property
    def dispatcher(self) -> DispatcherKind:
        """The one asked for, or the usual one of the phase."""
        if self.options.dispatcher is not None:
            return self.options.dispatcher
        return DispatcherKind.FLAT if self.workload.phase == "decode" else DispatcherKind.HIERARCHICAL

    @property
    def sending(self) -> DispatcherKind | None:
        """The dispatcher by which rows travel; None where all ranks share each expert or all tokens, or are one."""
        return None if self.ranks == self.summing_ranks else self.dispatcher

    def build_placement(self) -> Placement:
        """The placement of every MoE layer.

        Raises:
            InputError: it does not fit the model.
        """
        return self.placement.build(expert_shares(self.model, self.workload))

    def traffic(self, placement: Placement, load_LE: NDArray[np.float64]) -> LayerTraffic:
        """What one dispatch of every MoE layer sends in a step, in rows, between the groups that share experts.

        Counted token by token where the routing is a recorded trace, else expected.

        Args:
            placement: over the deployment's groups.
            load_LE: the step's tokens per (MoE layer, expert), where the routing is no trace.

        Raises:
            InputError: the trace is of another model.
        """
        routing, cut = self.workload.routing, self.options.expert_tensor_parallel
        cluster = plane_of(self.used_cluster, cut)
        # Tokens that no other group needs are gathered once, not once per expert.
        alone = cut > 1 and self.placement.ranks == 1
        dispatcher = DispatcherKind.DEDUPLICATED if alone else self.dispatcher
        trace = routing.tokens if isinstance(routing, RecordedRouting) else None
        if trace is None:
            from_R = self.tokens_R.reshape(-1, cut).sum(axis=1)
            demand = Demand(load_LE, Choice.of(self.model.experts))
            even = expected_traffic(placement.slots_LRS, demand, cluster, dispatcher)
            return even if (from_R == from_R[0]).all() else even.sent_from(from_R)
        fitting = _fit_trace(trace, self.model, self.ranks)
        if cut > 1:
            fitting = replace(fitting, home_rank_T=fitting.home_rank_T // cut, num_ranks=self.placement.ranks)
        counted = count_traffic(placement, fitting, cluster, dispatcher)
        return counted.scaled(self.tokens / trace.num_tokens)

    def build_schedule(self) -> Schedule:
        """The order of operations."""
        layers = Layers(
            count=self.model.layers,
            dense=self.model.layers_with(lambda kind: kind.dense is not None),
            moe=frozenset(self.model.moe_layers),
            mixing=self.model.layers_with(lambda kind: bool(kind.mixers)),
            shared_expert=self.model.experts.shared_intermediate > 0,
            shared_beside_dispatch=self.options.shared_beside_dispatch,
            tensor_parallel=self.options.attention_ranks > 1,
            expert_parallel=self.ranks > self.summing_ranks or self.ranks == 1,
            expert_tensor_parallel=self.summing_ranks > 1,
            replicated=self.replicated,
            drafts=self.workload.tried_per_sequence > 1 and self.model.mtp_layers > 0,
        )
        kind, chunks = parse_schedule(self.options.schedule)
        if kind in STREAMED and self.sending is not DispatcherKind.FLAT:
            # A prefill beside such a decode, of one group that serves: its rows are summed before they return.
            kind = ScheduleKind.SEQUENTIAL
        return schedule_of(kind, chunks, layers)


def _fit_trace(trace: RoutingTrace, model: ModelSpec, ranks: int) -> RoutingTrace:
    """The trace with as many layers, repeated in turn, with shared experts in slots, and its requests on the ranks."""
    layers, experts = len(model.moe_layers), model.experts
    if trace.num_layers != layers:
        repeated = np.arange(layers) % trace.num_layers
        trace = replace(trace, experts_TLK=trace.experts_TLK[:, repeated])
    if experts.shared_slots:
        shared = np.arange(experts.routed, experts.count, dtype=trace.experts_TLK.dtype)
        everyone = np.broadcast_to(shared, (*trace.experts_TLK.shape[:2], len(shared)))
        chosen = np.concatenate([trace.experts_TLK, everyone], axis=2)
        trace = replace(trace, experts_TLK=chosen, num_experts=experts.count)
    return trace if trace.num_ranks == ranks else spread_requests(trace, ranks)


def save_deployment(deployment: Deployment, path: Path) -> None:
    """Write the file; what is at its default is written too, so that a later default changes nothing.

    The checkpoint and the trace are named from the file's folder, so that all may be moved together.
    """
    written = _with_paths(deployment, lambda name: _from_folder(name, path))
    text = json_text(written.model_dump(mode="json"), indent=2)
    # One line per list of numbers: a layer's slots can be read and diffed.
    text = re.sub(r"\[[-\d.,e\s]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    write_text(path, text + "\n")


def is_deployment(text: str) -> bool:
    """Whether this names a deployment, by its file or as a published one, and no model."""
    if is_preset(text):
        return True
    try:
        data = json_value(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"model", "cluster", "workload"} <= data.keys()


def load_deployment(path: Path) -> Deployment:
    """Read a deployment file, or take a published deployment by its name.

    Raises:
        InputError: no such file, not JSON, another schema version, or a key or value that does not fit.
    """
    if is_preset(str(path)):
        return parse(Deployment, preset_values(str(path)), str(path))
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a deployment file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, found {type(data).__name__}")
    check_kind(data, str(path), "a deployment")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version {version!r} is not {SCHEMA_VERSION}; write the file with this version's `plan`"
        )
    read = parse(Deployment, data, str(path))
    return read_routing_trace(_with_paths(read, lambda name: str((path.parent / name).resolve())))


def _with_paths(deployment: Deployment, renamed: Callable[[str], str]) -> Deployment:
    """The deployment with other names of the files and folders that it names."""
    checkpoint, workload = deployment.checkpoint, deployment.workload
    if checkpoint is not None:
        deployment = deployment.model_copy(update={"checkpoint": renamed(checkpoint)})
    routing = workload.routing
    if isinstance(routing, RecordedRouting) and routing.trace is not None:
        same = routing.model_copy(update={"trace": renamed(routing.trace)})
        workload = workload.model_copy(update={"routing": same})
    return deployment.model_copy(update={"workload": workload})


def _from_folder(name: str, file: Path) -> str:
    """`name` as it is found from the file's folder; whole where the two share no folder, or the file is a stream."""
    target, folder = Path(name).resolve(), file.parent.resolve()
    apart = Path(os.path.commonpath([target, folder])) == Path(target.anchor)
    return str(target) if apart or is_stream(file) else os.path.relpath(target, folder)


def read_routing_trace(deployment: Deployment) -> Deployment:
    """Attach the trace of the deployment's routing, where it names one.

    Raises:
        InputError: the trace cannot be read, or is not the one that the loads were counted from.
    """
    routing = deployment.workload.routing
    if not isinstance(routing, RecordedRouting) or routing.trace is None:
        return deployment
    # Parquet's library takes longer to load than a prediction.
    from wingspan.routing.trace_file import read_trace

    read = routing.with_tokens(read_trace(Path(routing.trace)))
    workload = deployment.workload.model_copy(update={"routing": read})
    return deployment.model_copy(update={"workload": workload})


def differences(one: Deployment, two: Deployment) -> list[tuple[str, Any, Any]]:
    """Every key with unlike values, as (dotted key, first value, second value); explicit slots as one entry."""
    return list(_differences(one.model_dump(mode="json"), two.model_dump(mode="json"), ""))


def _differences(one: Any, two: Any, key: str) -> list[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(two, dict):
        found: list[tuple[str, Any, Any]] = []
        for name in [*one, *(n for n in two if n not in one)]:
            found += _differences(one.get(name), two.get(name), f"{key}.{name}" if key else name)
        return found
    return [] if one == two else [(key, one, two)]
