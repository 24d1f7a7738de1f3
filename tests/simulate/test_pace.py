"""A paced rank computes as long as the prediction says that it does."""

from __future__ import annotations

import pytest

from wingspan.deployment import Deployment
from wingspan.placement.spec import PlacementSpec
from wingspan.schedule.result import Operation
from wingspan.simulate import pace
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, Workload


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_experts_and_attention_take_what_the_prediction_says(phase):
    deployment = Deployment(
        model=load_model("seed"),
        cluster=load_cluster("h100-sxm").with_gpus(64),
        workload=Workload(phase=phase, tokens_per_gpu=64, context=Context(mean_tokens=64), fluctuating=False),
        placement=PlacementSpec(ranks=64),
    )
    report = simulate(deployment)
    found = pace.ModelledPace(deployment, 1, 0)
    rows = 64 * deployment.model.experts.per_token
    layers = len(deployment.model.moe_layers)
    experts = layers * found.experts_seconds(deployment.model.moe_layers[0], [rows])
    assert experts == pytest.approx(report.operation_seconds[Operation.EXPERT][0], rel=0.01)
    attention = deployment.model.layers * found.seconds(Operation.ATTENTION, 0)
    assert attention == pytest.approx(report.operation_seconds[Operation.ATTENTION][0], rel=0.01)
