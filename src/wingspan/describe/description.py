"""What is asked for, as options or a Python caller say it, and what its source is: a model or a deployment's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wingspan.deployment_presets import deployment_presets, is_preset
from wingspan.errors import InputError
from wingspan.reading import json_value
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.cluster_files import has_any_size
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model, model_presets
from wingspan.specs.reading import near_name

_USUAL_CLUSTER = "h100-sxm"


@dataclass(frozen=True)
class Description:
    """What is asked for; None = the deployment file's value, or the default.

    Args:
        source: a model, or by name: a preset, a config.json or its folder, or a deployment file, whose values the
            others then change.
        cluster: or its preset or file (default h100-sxm).
        ranks: GPUs that hold one copy of the experts: the EP size, times `expert_tensor_parallel` (default: a rank per
            expert, in whole nodes; with `expert_tensor_parallel` so many).
        experts_per_rank: slots per (layer, rank) (default: as few as hold all experts).
        placement: `linear` (default), `round-robin`, `random`, `balanced`, or a placement's JSON file.
        phase: `prefill` or `decode` (default).
        tokens_per_gpu: new tokens per GPU and step (default 64; in prefill 4096, or one prompt).
        total_sequences: sequences of a step over all GPUs, instead of `tokens_per_gpu`; with fewer than GPUs some wait.
        tokens_spread: standard deviation / mean of the GPUs' tokens (default 0).
        context: mean tokens of context per sequence; in prefill, of a prompt (default 4096, or the most that fits).
        context_spread: standard deviation / mean of contexts (default 0).
        routing: as `parse_routing` reads it (default `uniform`).
        expected_loads: loads exactly as the routing's shares, not one draw of them.
        schedule: `sequential` (default), `chunks:N`, `two-batch`, `single-batch` or `fused`.
        dispatcher: `flat` (default in decode), `deduplicated` or `hierarchical` (default in prefill).
        attention_ranks: GPUs of a node that share attention (default 1); beyond a node where experts are cut too.
        expert_tensor_parallel: neighbouring GPUs over which every expert's width is cut (default 1).
        from_weights: count the model's sizes from its tensors, as those of a type that is not known are anyway.
        mtp_tokens: tokens that each sequence tries ahead in a decode step (default 0).
        acceptance: share of them that are right, where all before are (default 0.85).
        precision: a preset and parts, as `with_precision` reads it (default: as published).
        engine: whose work beside its kernels is counted: `none` (default), `sglang`, `vllm` or `trtllm`.
        seed: of all draws (default 0).
        shared_in_slots: shared experts lie in slots as the others do, and every token sends a row to a copy.
        redundant: slots beyond the experts, in all of a layer; says `experts_per_rank` otherwise.
    """

    source: str | ModelSpec
    cluster: str | Cluster | None = None
    ranks: int | None = None
    experts_per_rank: int | None = None
    placement: str | None = None
    phase: str | None = None
    tokens_per_gpu: int | None = None
    total_sequences: int | None = None
    tokens_spread: float | None = None
    context: int | None = None
    context_spread: float | None = None
    routing: str | None = None
    expected_loads: bool = False
    schedule: str | None = None
    dispatcher: str | None = None
    attention_ranks: int | None = None
    expert_tensor_parallel: int | None = None
    from_weights: bool = False
    mtp_tokens: int | None = None
    acceptance: float | None = None
    precision: str | None = None
    engine: str | None = None
    seed: int | None = None
    shared_in_slots: bool = False
    redundant: int | None = None


def model_of(said: Description) -> ModelSpec:
    """The model, where the source is none in a deployment file.

    Raises:
        InputError: as `load_model`; or its shared experts are to lie in slots and cannot.
    """
    if isinstance(said.source, ModelSpec):
        model = said.source
    else:
        _check_slip(said.source)
        model = load_model(said.source, from_weights=said.from_weights)
    return model.with_shared_in_slots() if said.shared_in_slots else model


def _check_slip(source: str) -> None:
    """Raise `InputError` where neither a model nor a file is named, but nearly a published deployment."""
    meant = near_name(source.partition(":")[0], deployment_presets())
    if meant and source not in model_presets() and not Path(source).exists():
        raise InputError(f"{source}: no such deployment; did you mean {meant}?")


def cluster_of(said: Description) -> Cluster:
    """The cluster, or the usual one, as large as it says.

    Raises:
        InputError: as `load_cluster`.
    """
    return said.cluster if isinstance(said.cluster, Cluster) else load_cluster(said.cluster or _USUAL_CLUSTER)


def file_of(said: Description) -> Path | None:
    """The deployment that is the source, as its file or its preset's name; None: a model is."""
    if isinstance(said.source, ModelSpec):
        return None
    path = Path(said.source)
    if is_preset(said.source):
        return path
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return path if isinstance(data, dict) and "schema_version" in data and "slots" not in data else None


def name_of(said: Description) -> str:
    """The source in a word, for errors."""
    return said.source.name if isinstance(said.source, ModelSpec) else said.source


def asked_cluster(said: Description) -> Cluster | None:
    """The cluster that is asked for, as large as it says; None: the deployment file's."""
    if said.cluster is None and file_of(said) is not None:
        return None
    return cluster_of(said)


def is_open(said: Description) -> bool:
    """Whether the cluster has as many nodes as the ranks need: a preset has, what a file describes has its own."""
    if said.cluster is None:
        return file_of(said) is None
    name = said.cluster.name if isinstance(said.cluster, Cluster) else said.cluster
    return has_any_size(name)
