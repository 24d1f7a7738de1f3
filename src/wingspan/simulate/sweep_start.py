"""Where a sweep starts: the setting that its axes change, and what is alike at all points, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wingspan.deployment import Options
from wingspan.errors import InputError
from wingspan.schedule.sweep_result import Value
from wingspan.simulate.sweep import Axis, Setting
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.engines import engine_of
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import AskedPrecision
from wingspan.specs.precision_text import with_precision
from wingspan.specs.reading import parse
from wingspan.specs.workload import Workload, phase_named

_USUAL_CONTEXT = 4096
_OPEN_EXPERTS = ("seed", "seed-gated", "seed-small")
"""The reference model leaves the number of experts open: one for each GPU."""


def start(
    model: str,
    cluster: str | Cluster,
    *,
    gpus: int | None = None,
    phase: str = "decode",
    attention_ranks: int = 1,
    precision: str | None = None,
    mtp_tokens: int | None = None,
    acceptance: float | None = None,
    engine: str | None = None,
    seed: int = 0,
    scale_experts: bool | None = None,
) -> Setting:
    """A setting with one token per GPU and of context, which axes change.

    Args:
        model: a preset's name, a config.json or its folder.
        cluster: or its preset or file.
        gpus: all that work (default: as many as the cluster says).
        phase: prefill or decode.
        attention_ranks: ranks of a node that share attention.
        mtp_tokens: tokens that each sequence tries ahead in a decode step (default 0).
        acceptance: share of them that are right (default as `Workload` has it).
        precision: a preset and parts, as `with_precision` reads it (default: as published).
        engine: whose work beside its kernels is counted (default: none's).
        seed: of all draws.
        scale_experts: as many experts as GPUs (default: for models that leave their number open).

    Raises:
        InputError: an unknown preset or file, or a value that is none.
    """
    work = {"phase": phase_named(phase, "`phase`"), "tokens_per_gpu": 1, "context": 1, "seed": seed}
    tried = {"mtp_tokens": mtp_tokens, "acceptance": acceptance}
    tried = {name: value for name, value in tried.items() if value is not None}
    asked = AskedPrecision()
    if precision is not None:
        asked = with_precision(asked, precision, "`precision`")
    options = {"attention_ranks": attention_ranks, "engine": engine_of(engine or "none", "`engine`")}
    found = cluster if isinstance(cluster, Cluster) else load_cluster(cluster)
    return Setting(
        model=load_model(model),
        cluster=found,
        gpus=gpus or found.gpus,
        workload=parse(Workload, work | tried | {"precision": asked}, "workload"),
        options=parse(Options, options, "options"),
        scale_experts=model in _OPEN_EXPERTS if scale_experts is None else scale_experts,
    )


def usual_sizes(
    phase: str,
    batches: Sequence[int] | None,
    contexts: Sequence[int] | None,
    longest: int | None,
    *,
    whole: bool = False,
) -> tuple[list[int], list[int]]:
    """Batches and contexts, as given or as usual.

    Args:
        phase: prefill or decode.
        batches: tokens per GPU; None: the usual ones.
        contexts: tokens; None: the usual ones.
        longest: the most context that the model takes.
        whole: whether sequences are counted over all GPUs, so that any prompt fits.

    Raises:
        InputError: a step cannot hold a prompt.
    """
    prefill = phase == "prefill"
    batches = list(batches or [4096 if prefill else 64])
    usual = min(_USUAL_CONTEXT, longest or _USUAL_CONTEXT)
    contexts = list(contexts or [min(usual, *batches) if prefill else usual])
    if prefill and max(contexts) > min(batches) and not whole:
        raise InputError(
            f"a prefill of {min(batches):,} tokens per GPU cannot hold a prompt of {max(contexts):,}: raise "
            "`tokens_per_gpu` or lower `context`"
        )
    return batches, contexts


def settle(base: Setting, axes: Iterable[Axis]) -> tuple[Setting, list[Axis], dict[str, str]]:
    """Put what has one value into the base.

    Returns:
        The base, the axes that are left, and the conditions of all points in words.
    """
    model, shared, axes = base.model, base.options.attention_ranks, list(axes)
    conditions = {
        "Model": f"{model.name}: {model.layers} layers, top-{model.experts.per_token} of "
        + ("as many experts as GPUs" if base.scale_experts else f"{model.experts.count} experts"),
        "Phase": base.workload.phase,
        "Precision": _precision(base, axes),
    }
    if base.workload.tried_per_sequence > 1:
        conditions["Tried ahead"] = (
            f"{base.workload.mtp_tokens} a sequence and step, {base.workload.acceptance:.0%} of them right: "
            f"{base.workload.gained_per_sequence:.2f} tokens a step"
        )
    if model.remarks:
        conditions["Sizes"] = "; ".join(model.remarks)
    if shared > 1:
        conditions["Attention"] = f"tensor-parallel over {shared} ranks of a node"
    varied = []
    several = any(len(axis.choices) > 1 for axis in axes)
    for axis in axes:
        # Of one point the last axis, its EP size, heads the table.
        if len(axis.choices) > 1 or (axis is axes[-1] and not several):
            varied.append(axis)
        else:
            base = axis.choices[0].apply(base)
            conditions[axis.label[0].upper() + axis.label[1:]] = _text(axis.choices[0].shown)
    return base, varied, conditions


def _precision(base: Setting, axes: list[Axis]) -> str:
    """The formats of all points; where GPUs compute in other ones, those of each cluster."""
    clusters = [choice.apply(base).cluster for axis in axes for choice in axis.choices]
    words = {
        cluster.name: base.workload.precisions(base.model, cluster.gpu).described for cluster in clusters
    }
    alike = set(words.values())
    return alike.pop() if len(alike) == 1 else "; ".join(f"{name}: {text}" for name, text in words.items())


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
