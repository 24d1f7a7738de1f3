"""Which deployment a published row ran: model, machine, layout, work and routing, as far as its text says them.

What a row leaves open is assumed, and said (`PublishedSetup.assumed`). A row that the model has no prediction for is
refused with the reason, never skipped without a word.

Shapes: L MoE layers, E logical experts, R ranks.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from wingspan.deployment import Deployment, Options
from wingspan.errors import InputError
from wingspan.interop.published.rows import PublishedRow
from wingspan.placement.at_balance import AtBalance
from wingspan.placement.spec import PlacementSpec
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.engines import EngineKind
from wingspan.specs.models import load_model, model_presets
from wingspan.specs.workload import Workload

_CLUSTERS = (
    ("GB300", "gb300-nvl72"),
    ("GB200", "gb200-nvl72"),
    ("B300", "b300"),
    ("B200", "b200"),
    ("H200", "h200"),
    ("H20", "h20"),
    ("H800", "h800"),
    ("H100", "h100-sxm"),
    ("MI300X", "mi300x"),
    ("MI355X", "mi355x"),
    ("910C", "cloudmatrix384"),
    ("ConnectX-7", "h200"),
)
"""The preset that a machine's name means; the first that is found. The last is of rows that name a network alone."""
_MODELS = (
    ("Qwen3-235B", "qwen3-235b-a22b"),
    ("DeepSeek-R1", "deepseek-v3"),
    ("DeepSeek R1", "deepseek-v3"),
    ("DSv3", "deepseek-v3"),
)
"""Models that go by another name than their preset."""
_ENGINES = (
    ("SGLang", EngineKind.SGLANG),
    ("vLLM", EngineKind.VLLM),
    ("TRT-LLM", EngineKind.TRTLLM),
    ("TensorRT-LLM", EngineKind.TRTLLM),
)
_LIBRARIES = (
    ("OneSided", "trtllm-one-sided"),
    ("one-sided", "trtllm-one-sided"),
    ("Hybrid-EP", "hybrid-ep"),
    ("UCCL-EP", "uccl-ep"),
    ("pplx-kernels", "pplx-kernels"),
)
"""The variant of a cluster that has the constants of a library's own exchanges."""
_REDUNDANT = 32
"""Slots beyond the experts where an engine balances and does not say how many: DeepSeek-V3, arXiv:2412.19437, 3.4."""
_BALANCED_AT = {8: 0.944, 16: 0.902, 32: 0.80, 72: 0.857}
_UNBALANCED_AT = {8: 0.674, 16: 0.614, 32: 0.551, 64: 0.478}
"""Mean / max of the GPUs' load by EP size, with and without balancing: lmsys.org, "Deploying DeepSeek with PD
Disaggregation and Large-Scale Expert Parallelism on 96 H100 GPUs", May 2025, figures on EPLB."""
_PREFILL_TOKENS = 16384
_PREFILL_PROMPT = 4096
"""Prefill rows that say neither: what the same post uses."""
_MOST_BATCHED_TOKENS = 8192
"""vLLM's usual `max_num_batched_tokens` on GPUs of 80 GB and more, where prompts come without end."""


@dataclass(frozen=True, eq=False)
class PublishedSetup:
    """The deployment of a row.

    Args:
        deployment: what to predict.
        placement_balance: mean / max of the ranks' load that the row is known to have; None: an even router.
        assumed: what the row does not say, in a few words each.
    """

    deployment: Deployment
    placement_balance: float | None
    assumed: tuple[str, ...]


def setup_of(row: PublishedRow) -> PublishedSetup:
    """The deployment that a row ran.

    Raises:
        InputError: the row is of something that is not predicted; the line says what.
    """
    if row.phase not in ("prefill", "decode"):
        raise InputError(f"{row.id}: {row.phase or 'no phase'} is no step of an engine")
    if row.ep is None:
        raise InputError(f"{row.id}: of no one EP size")
    assumed: list[str] = []
    model = load_model(_model(row))
    cluster = cluster_of(row)
    tokens, context = _work(row, assumed)
    goal = _balance(row, assumed)
    redundant = _redundant(row, goal)
    in_all = round(tokens * row.ep) if tokens % 1 else None
    tokens = -(-in_all // row.ep) if in_all else round(tokens)
    slots = -(-(model.experts.count + redundant) // row.ep)
    tensor_parallel = re.search(r"\bTP(\d+)\b", f"{row.system} {row.overlap}")
    workload = Workload.model_validate(
        {
            "phase": row.phase,
            "tokens_per_gpu": tokens,
            "total_sequences": in_all,
            "context": context,
            "precision": _precision(row),
            **_tried(row, assumed),
        }
    )
    placement = PlacementSpec(ranks=row.ep, experts_per_rank=slots)
    if goal is not None:
        nodes = max(1, row.ep // cluster.scale_up_domain_gpus)
        of = AtBalance(len(model.moe_layers), model.experts, row.ep, slots, nodes, tokens * row.ep)
        placement, routing = of.planned(goal) if _balances(row) else of.unplanned(goal)
        workload = workload.model_copy(update={"routing": routing})
    deployment = Deployment(
        model=model,
        cluster=cluster.with_gpus(row.ep),
        workload=workload,
        placement=placement,
        options=Options(
            schedule=_schedule(row, assumed),
            engine=_engine(row),
            attention_ranks=int(tensor_parallel[1]) if tensor_parallel else 1,
        ),
    )
    return PublishedSetup(deployment, goal, tuple(assumed))


def _model(row: PublishedRow) -> str:
    """The preset whose name the row's text has, the longest one; else what it is called otherwise."""
    text = row.model.lower().replace(" ", "-")
    own = max((name for name in model_presets() if name in text), key=len, default=None)
    return own or named(row.model, _MODELS, "model", row.id)


def named(text: str, known: tuple[tuple[str, str], ...], what: str, where: str) -> str:
    """The preset that the text names; raises `InputError` where it names none."""
    for word, preset in known:
        if word in text:
            return preset
    raise InputError(f"{where}: no preset of the {what} {text or '(none)'}")


def cluster_of(row: PublishedRow) -> Cluster:
    """The machine that a row's text names, with its network, exchange library and as many cards."""
    hardware = row.system if row.hardware == "-" else row.hardware
    name = named(hardware, _CLUSTERS, "hardware", row.id)
    if "EFA" in f"{row.hardware} {row.system}".replace("EFA / ", ""):
        name += "+efa"
    name += "".join(f"+{variant}" for word, variant in _LIBRARIES if word in row.system)
    cards = re.search(r"\b(\d+)x400Gb NIC/node", row.hardware)
    if cards:
        name += f"+gpus-per-network-card={load_cluster(name).gpus_per_node // int(cards[1])}"
    return load_cluster(name)


def _precision(row: PublishedRow) -> dict[str, str]:
    """What the row says otherwise than published: its experts' format, and attention in FP8 with its cache.

    Ant Group's post (lmsys.org, September 2025) says FP8 of attention: its baseline is "BF16 + MTP".
    """
    experts = {"experts": "nvfp4"} if "NVFP4" in row.precision else {}
    attention = "FP8 attn" in row.precision or ("Ant Group" in row.system and "FP8" in row.precision)
    return {**experts, **({"kv": "fp8", "core": "fp8"} if attention else {})}


def _tried(row: PublishedRow, assumed: list[str]) -> dict[str, float]:
    """Tokens tried ahead, and the share of them that is right, where the row says so.

    SGLang counts draft tokens, of which the first is the sequence's next one (`--speculative-num-draft-tokens`).
    """
    if row.phase != "decode" or not row.says("MTP"):
        return {}
    text = f"{row.precision} {row.overlap} {row.notes}"
    count, right = re.search(r"MTP\((\d+)\)", text), re.search(r"MTP (\d+)% accept", text)
    certain = 1 if "SGLang" in row.system else 0
    tried = {"mtp_tokens": float(int(count[1]) - certain) if count else 1.0}
    if right:
        return {**tried, "acceptance": int(right[1]) / 100}
    assumed.append("the usual share of tokens tried ahead is right")
    return tried


def _engine(row: PublishedRow) -> EngineKind:
    for word, engine in _ENGINES:
        if word in row.system:
            return engine
    return EngineKind.NONE


def _work(row: PublishedRow, assumed: list[str]) -> tuple[float, int]:
    """New tokens per GPU, and tokens of context (of a prompt, in prefill)."""
    lengths = row.numbers_of_seq
    if row.phase == "decode":
        if row.batch is None or not lengths:
            raise InputError(f"{row.id}: says no batch or no context")
        answered = lengths[1] // 2 if len(lengths) > 1 else 0
        return row.batch, lengths[0] + answered
    tokens = row.batch
    if tokens is None:
        tokens = _MOST_BATCHED_TOKENS if row.system.startswith("vLLM") else _PREFILL_TOKENS
        assumed.append(f"{tokens:,} tokens per GPU and step")
    if not lengths:
        assumed.append(f"prompts of {_PREFILL_PROMPT:,}")
    return tokens, min(lengths[0] if lengths else _PREFILL_PROMPT, math.floor(tokens))


def _schedule(row: PublishedRow, assumed: list[str]) -> str:
    if row.says("no TBO", "no DBO"):
        return "sequential"
    if row.says("TBO", "DBO", "two micro-batches", "two-batch"):
        return "two-batch"
    fused = row.says("Mega MoE", "MegaMoE")
    if not fused and not row.says("SBO", "overlapped with down"):
        return "sequential"
    if row.phase == "decode":
        return "fused" if fused else "single-batch"
    assumed.append("nothing hides the combine")
    return "sequential"


def _balances(row: PublishedRow) -> bool:
    return not row.says("no EPLB", "without EPLB")


def _balance(row: PublishedRow, assumed: list[str]) -> float | None:
    """Mean / max of the ranks' load, as published; None for routers that are even by construction."""
    stated = re.search(r"balancedness (0\.\d+)", row.metric)
    if stated:
        return float(stated[1])
    # vLLM's benchmark and DeepSeek's profile set routing to random and to even (their own posts).
    if row.says("random", "uniform", "perfect router") or row.system.startswith(("vLLM", "DeepSeek profile")):
        return None
    known = _BALANCED_AT if _balances(row) else _UNBALANCED_AT
    sizes = np.log2(sorted(known))
    found = float(np.interp(np.log2(row.ep or 1), sizes, [known[size] for size in sorted(known)]))
    if "SGLang" not in row.system or row.ep not in known:
        assumed.append(f"balance {found:.2f}")
    return found


def _redundant(row: PublishedRow, goal: float | None) -> int:
    stated = re.search(r"\((\d+) redundant\)", row.overlap)
    if stated:
        return int(stated[1])
    return _REDUNDANT if goal is not None and _balances(row) else 0
