"""Memory and time of training, against published figures and by hand."""

import pytest

from wingspan.simulate.training.layout import STATES, Recompute, TrainingLayout, layouts
from wingspan.simulate.training.memory import fullest, layer_bytes, stage_parameters, stages
from wingspan.simulate.training.planning import plan_training
from wingspan.specs.cluster import load_cluster
from wingspan.specs.model import LayerKind
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import WEIGHTS
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Context, Workload

_V3 = load_model("deepseek-v3")
_WORK = Workload(phase="prefill", tokens_per_gpu=4096, context=Context(mean_tokens=4096)).with_precision(
    **dict.fromkeys(WEIGHTS, Precision.BF16)
)


def _layout(pipeline: int = 4, data: int = 64, experts: int = 64, states: int = 1) -> TrainingLayout:
    return TrainingLayout(pipeline, data, experts, Recompute.NONE, STATES[states])


def test_published_memory_of_deepseek_v3() -> None:
    """arXiv:2603.07685, tables 3 and 4: a stage of 15 MoE layers, of PP 4 x EP 64 on 256 GPUs in BF16."""
    layout = _layout()
    stage = next(
        s
        for s in stages(_V3, layout, 64)
        if (len(s.kinds), s.beside) == (15, 0) and all(kind.experts for kind in s.kinds)
    )
    common, experts = stage_parameters(_V3, layout, stage)
    assert 6 * (common + experts) == pytest.approx(36.4e9, rel=0.02)
    assert 12 * (common / 64 + experts) == pytest.approx(32.1e9, rel=0.02)
    rows = 15 * 4 * 4096
    every, fewer = (layer_bytes(_V3, stage.kinds[0], r) * rows for r in (Recompute.NONE, Recompute.SELECTIVE))
    assert every == pytest.approx(131.0e9, rel=0.05)
    assert every - fewer == pytest.approx(42.4e9, rel=0.05)


def test_published_rate_of_deepseek_v3() -> None:
    """180,000 H800 hours for 1e12 tokens (arXiv:2412.19437, section 1), in FP8 on PP 16 x EP 64."""
    work = _WORK.with_precision(**dict.fromkeys(WEIGHTS, Precision.FP8))
    plan = plan_training(_V3, load_cluster("h800"), Workload.model_validate(work.model_dump()), 2048, 15360)
    theirs = [
        c for c in plan.choices if (c.layout.pipeline, c.layout.experts, c.layout.states.zero) == (16, 64, 1)
    ]
    assert plan.tokens_per_second_per_gpu(theirs[0]) == pytest.approx(1543, rel=0.35)


def test_stages_hold_all_layers_and_parameters() -> None:
    for pipeline in (1, 4, 7, 61):
        layout = TrainingLayout(pipeline, 64, 64, Recompute.NONE, STATES[0])
        found = stages(_V3, layout, 100)
        assert sum(len(s.kinds) for s in found) == 61
        held = sum(
            common + 64 * experts for common, experts in (stage_parameters(_V3, layout, s) for s in found)
        )
        assert held == pytest.approx(_V3.parameters.total)


def test_zero_divides_what_it_says() -> None:
    none, one, three = (fullest(_V3, _layout(1, 128, 64, states), 4096, 64, 0) for states in (0, 1, 2))
    assert none.optimizer > 2 * one.optimizer
    assert none.weights == one.weights > three.weights
    assert none.gradients == one.gradients > three.gradients
    assert none.activations == one.activations == three.activations


@pytest.mark.parametrize("kind", _V3.kinds, ids=["dense", "moe"])
def test_computing_more_again_keeps_less(kind: LayerKind) -> None:
    kept = [layer_bytes(_V3, kind, recompute) for recompute in Recompute]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 2 * _V3.hidden


def test_layouts_divide_gpus_experts_and_sequences() -> None:
    for layout in layouts(_V3, load_cluster("h100-sxm"), 128, 256):
        assert layout.pipeline * layout.data == 128
        assert layout.data % layout.experts == 0
        assert 256 % layout.experts == 256 % layout.data == 0
