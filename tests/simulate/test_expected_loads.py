"""Expected loads: an expert whose rows are an expectation is read in that share of steps in which it has any."""

from __future__ import annotations

import numpy as np
import pytest

from wingspan.deployment import Deployment
from wingspan.placement.spec import PlacementSpec
from wingspan.routing.draws import draw_choices
from wingspan.simulate.step import predict
from wingspan.simulate.work import active_slots
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, LogNormalRouting, Routing, UniformRouting, Workload
from wingspan.traffic.shares import expert_shares

_MODEL, _CLUSTER, _STEPS = load_model("qwen3-235b-a22b"), load_cluster("h100-sxm").with_gpus(16), 60


def deployment(tokens: int, routing: Routing, *, drawn: bool, seed: int = 0) -> Deployment:
    return Deployment(
        model=_MODEL,
        cluster=_CLUSTER,
        workload=Workload(
            tokens_per_gpu=tokens,
            context=Context(mean_tokens=1024),
            routing=routing,
            fluctuating=drawn,
            seed=seed,
        ),
        placement=PlacementSpec(ranks=16, experts_per_rank=8),
    )


@pytest.mark.parametrize("routing", [UniformRouting(), LogNormalRouting(sigma=1.0)])
@pytest.mark.parametrize("tokens", [1, 2, 6])
def test_as_many_experts_are_read_as_in_steps_of_sampled_tokens(tokens: int, routing: Routing) -> None:
    expected = deployment(tokens, routing, drawn=False)
    shares_LE = expert_shares(_MODEL, expected.workload)[:2]
    chosen_LNK = draw_choices(shares_LE, 16 * tokens * _STEPS, 8, 1)
    rows_LSE = np.zeros((2, _STEPS, 128))
    layer, step = np.arange(2)[:, None, None], np.arange(chosen_LNK.shape[1])[:, None] // (16 * tokens)
    np.add.at(rows_LSE, (layer, step, chosen_LNK), 1)
    read = (rows_LSE > 0).sum(axis=2).mean()
    # The choices' own frequencies: drawn without repetition, the hottest fall a little behind their shares.
    rows_PLRS = rows_LSE.mean(axis=1).reshape(1, 2, 16, 8)
    assert active_slots(expected, rows_PLRS).sum() / 2 == pytest.approx(read, rel=0.03)
    if tokens < 3:  # what counting each as always read would say
        assert np.minimum(rows_PLRS, 1.0).sum() / 2 > 1.1 * read


@pytest.mark.parametrize("tokens", [1, 4, 64])
def test_experts_take_the_mean_of_drawn_steps(tokens: int) -> None:
    drawn = [
        predict(deployment(tokens, UniformRouting(), drawn=True, seed=seed)).moe.experts_PLR.mean()
        for seed in range(5)
    ]
    expected = predict(deployment(tokens, UniformRouting(), drawn=False)).moe.experts_PLR.mean()
    assert expected == pytest.approx(np.mean(drawn), rel=0.04)
