"""What follows from the sizes of model and hardware alone: parameters, rates, memory."""

from __future__ import annotations

from collections.abc import Iterator

from wingspan.deployment import Options
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import CONTEXT
from wingspan.simulate.memory import largest_batch, longest_context, memory_use
from wingspan.simulate.scaling import (
    one_expert_per_gpu,
)
from wingspan.simulate.ways_out import ways_out
from wingspan.specs.cluster import Cluster
from wingspan.specs.memory import MemoryPart
from wingspan.specs.model import ModelSpec
from wingspan.specs.part_precision import AskedPrecision
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Context, Workload


def size_claims(plain: ModelSpec, gated: ModelSpec) -> Iterator[Claim]:
    """Sizes of an expert and of attention, and the number of layers."""
    bf16 = Precision.BF16.bytes
    expert, gated_expert = plain.parameters.expert * bf16, gated.parameters.expert * bf16
    yield Claim(
        "size of one expert",
        "58.72 MB",
        expert / 1e6,
        "MB",
        round(expert / 1e6, 2) == 58.72,
        [
            "two matrices (plain MLP) in BF16: holds",
            f"three matrices (gated): {gated_expert / 1e6:.2f} MB, does not hold",
        ],
    )
    dense, moe = len(plain.dense_layers), len(plain.moe_layers)
    yield Claim(
        "layers",
        "61 = 3 dense + 58 MoE",
        float(plain.layers),
        "layers",
        (plain.layers, dense, moe) == (61, 3, 58),
        [
            f"preset {plain.name}: {dense} dense, {moe} MoE; experts, top-k and vocabulary are this preset's choice"
        ],
    )
    attention = plain.parameters.attention * bf16
    yield Claim(
        "attention, 128 heads x 128",
        "939.5 MB a layer",
        attention / plain.layers / 1e6,
        "MB",
        round(attention / plain.layers / 1e6, 1) == 939.5,
        [f"replicated on each rank: {attention / 1e9:.2f} GB for {plain.layers} layers in BF16"],
    )


def hardware_claims(ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    """Sustained rates of arithmetic, memory and network."""
    sustained = ideal.gpu.sustained_flops(Precision.BF16)
    yield Claim(
        "practical performance per GPU",
        "240 TFLOPS",
        sustained / 1e12,
        "TFLOPS",
        abs(sustained / 1e12 - 240) < 0.5,
        [
            f"{ideal.name}: input, 400 TFLOPS x 60 % MFU",
            f"{real.name}: {real.gpu.sustained_flops(Precision.BF16) / 1e12:.0f} TFLOPS in BF16",
        ],
    )
    memory = ideal.gpu.sustained_memory_bytes_per_second
    yield Claim(
        "memory bandwidth, 80 % of 1.8 TB/s",
        "1.44 TB/s",
        memory / 1e12,
        "TB/s",
        abs(memory / 1e12 - 1.44) < 0.005,
        [f"{real.name}: {real.gpu.sustained_memory_bytes_per_second / 1e12:.2f} TB/s"],
    )
    network = real.scale_out.sustained_bytes_per_second
    yield Claim(
        "network bandwidth",
        "1.44 TB/s",
        network / 1e12,
        "TB/s",
        network >= 1.44e12,
        [
            f"{ideal.name}: {ideal.scale_out.sustained_bytes_per_second / 1e12:.2f} TB/s, holds by assumption "
            "(the claim takes the memory's figure)",
            f"{real.name}: {real.scale_up.sustained_bytes_per_second / 1e9:.0f} GB/s inside a node, "
            f"{network / 1e9:.0f} GB/s between nodes, per GPU and direction: does not hold",
        ],
    )


def memory_claims(model: ModelSpec, ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    """Memory per GPU and its use, with ways out where work does not fit."""
    work = Workload(
        tokens_per_gpu=1, context=Context(mean_tokens=1), precision=AskedPrecision(kv=Precision.BF16)
    )
    bare = one_expert_per_gpu(model, ideal, work, 64, Options(reserve_share=0.0))
    parts = {name: float(size.max()) for name, size in memory_use(bare).parts.items()}
    named = parts[MemoryPart.ATTENTION] + parts[MemoryPart.EXPERTS] + parts[MemoryPart.DENSE]
    weights = named + parts[MemoryPart.EMBEDDING_AND_HEAD] + parts[MemoryPart.ROUTERS_AND_NORMS]
    capacity = ideal.gpu.memory_bytes
    per_token = model.kv_values_per_token * Precision.BF16.bytes
    room = longest_context(bare)
    yield Claim(
        "peak memory per GPU",
        "<= 64 GB",
        named / 1e9,
        "GB",
        named <= capacity,
        [
            f"attention {parts[MemoryPart.ATTENTION] / 1e9:.2f} + experts {parts[MemoryPart.EXPERTS] / 1e9:.2f} "
            f"+ dense layers {parts[MemoryPart.DENSE] / 1e9:.2f} GB: holds for these weights alone",
            f"with embedding, head, routers and norms {weights / 1e9:.2f} GB: {(capacity - weights) / 1e9:.2f} GB left "
            f"for activations, buffers and a cache of {per_token / 1e6:.1f} MB a token: one sequence of {room} tokens",
            *_ways(model, ideal),
            f"{real.name} ({real.gpu.memory_bytes / 1e9:.0f} GB): {_room(model, real)}",
        ],
    )
    yield Claim(
        "memory utilisation",
        "> 95 %",
        named / capacity * 100,
        "%",
        named / capacity > 0.95,
        [
            f"of {capacity / 1e9:.0f} GB, by weights that are replicated; attention alone is "
            f"{parts[MemoryPart.ATTENTION] / capacity:.0%}",
            f"{real.name}: {named / real.gpu.memory_bytes:.0%} of {real.gpu.memory_bytes / 1e9:.0f} GB by weights",
        ],
    )


def _ways(model: ModelSpec, cluster: Cluster) -> list[str]:
    work = Workload(tokens_per_gpu=16, context=Context(mean_tokens=CONTEXT))
    wanted = one_expert_per_gpu(model, cluster, work, 64)
    return [
        f"16 sequences of {CONTEXT} tokens fit if: {way.text} ({way.peak_bytes / 1e9:.1f} GB)"
        for way in ways_out(wanted)
    ]


def _room(model: ModelSpec, cluster: Cluster) -> str:
    work = Workload(tokens_per_gpu=1, context=Context(mean_tokens=CONTEXT))
    return f"room for {largest_batch(one_expert_per_gpu(model, cluster, work, 64))} sequences of {CONTEXT} tokens"
