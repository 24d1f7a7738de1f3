"""Small deployments for the tests."""

from __future__ import annotations

from typing import Any

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.families import model_from_config
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import Workload

CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": 1000,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "moe_intermediate_size": 512,
    "num_hidden_layers": 5,
    "first_k_dense_replace": 1,
    "num_attention_heads": 16,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "q_lora_rank": 256,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
}


def model(**changes: Any) -> ModelSpec:
    return model_from_config({**CONFIG, **changes}, "test model")


def cluster(name: str = "h100-sxm", gpus: int = 64, **changes: Any) -> Cluster:
    return load_cluster(name).with_gpus(gpus).model_copy(update=changes)


def deployment(
    ranks: int = 32,
    on: Cluster | None = None,
    of: ModelSpec | None = None,
    options: dict[str, Any] | None = None,
    placement: dict[str, Any] | None = None,
    **work: Any,
) -> Deployment:
    of = of or model()
    work = {"tokens_per_gpu": 64, "context": 512, **work}
    layout = {"ranks": ranks, "experts_per_rank": -(-of.experts.count // ranks), **(placement or {})}
    return Deployment(
        model=of,
        cluster=on or cluster(gpus=max(ranks, 8) if ranks > 8 else ranks),
        workload=Workload.model_validate(work),
        placement=PlacementSpec.model_validate(layout),
        options=Options.model_validate(options or {}),
    )
