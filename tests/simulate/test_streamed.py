"""A layer whose rows go expert by expert, beside what authors of such kernels printed."""

from __future__ import annotations

import numpy as np
import pytest

from wingspan.deployment import Deployment, Options
from wingspan.deployment_presets import preset_values
from wingspan.placement.spec import PlacementSpec
from wingspan.schedule.result import Operation
from wingspan.simulate.step import predict, simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.reading import parse
from wingspan.specs.workload import Workload

_TOKENS = (8, 32, 128, 512, 2048, 8192)
_FUSED_US = {
    "deepseek-v4-flash": (225.0, 253.1, 265.1, 413.4, 959.1, 3269.0),
    "deepseek-v4-pro": (636.6, 822.9, 871.6, 1004.5, 2405.7, 7939.0),
}
"""Mega MoE on 8 H200, by tokens a GPU, experts in FP8: deepseek-ai/DeepGEMM, pull request 383, July 2026."""


def _layer_us(name: str, tokens: int) -> float:
    """From the dispatch to the combine of one layer without a shared expert."""
    whole = load_model(name)
    model = whole.with_experts(whole.experts.model_copy(update={"shared_intermediate": 0}))
    work = {"phase": "decode", "tokens_per_gpu": tokens, "context": 1024, "precision": {"experts": "fp8"}}
    made = Deployment(
        model=model.with_layers(model.moe_layers[:3]),
        cluster=load_cluster("h200").with_gpus(8),
        workload=Workload.model_validate(work),
        placement=PlacementSpec(ranks=8, experts_per_rank=model.experts.count // 8),
        options=Options(schedule="fused"),
    )
    timeline = predict(made).timeline
    of = {task.operation: number for number, task in enumerate(timeline.schedule.tasks) if task.layer == 1}
    ended = timeline.ends_NR[of[Operation.COMBINE]].max()
    return float(ended - timeline.starts_NR[of[Operation.DISPATCH]].min()) * 1e6


def test_a_fused_layer_takes_what_was_printed() -> None:
    errors = [
        _layer_us(name, tokens) / published - 1
        for name, figures in _FUSED_US.items()
        for tokens, published in zip(_TOKENS, figures, strict=True)
    ]
    assert np.median(np.abs(errors)) < 0.08
    assert np.max(np.abs(errors)) < 0.3


@pytest.mark.parametrize(("sequences", "least", "most"), [(32, 1.07, 1.11), (4, 1.0, 1.05)])
def test_rows_that_return_beside_the_down_product_give_h20_what_was_printed(
    sequences: int, least: float, most: float
) -> None:
    """8 to 10 % at 20 to 56 sequences a GPU, less at small ones: lmsys.org, Serving DeepSeek-R1 on H20-96G, 2025."""
    made = parse(Deployment, preset_values("sglang-h20-ep16-decode"), "H20")
    work = made.workload.model_copy(update={"tokens_per_gpu": sequences})
    returning = made.model_copy(update={"workload": work})
    options = made.options.model_copy(update={"schedule": "sequential"})
    plain = returning.model_copy(update={"options": options})
    assert least <= simulate(plain).step_seconds / simulate(returning).step_seconds <= most
