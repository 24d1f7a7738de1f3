"""Whatever a config says: it is a model within the limits, or one line; and nothing predicted of it overflows."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan import limits
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.simulate.memory import largest_batch, longest_context
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.families import model_from_config
from wingspan.specs.models import MODEL_PRESETS, model_presets
from wingspan.specs.reading import parse

CONFIGS = {name: json.loads((MODEL_PRESETS / f"{name}.json").read_text()) for name in model_presets()}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, 1, -1, 2**63, 10**9, 10**40, 1.5, float("inf"), float("nan"), "", "x", [], [1], {}, [[]]]
    ),
    st.integers(),
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_wrong_config_is_one_line(data):
    config = dict(CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))])
    for key in data.draw(st.lists(st.sampled_from([*config, *_MORE]), min_size=1, max_size=3)):
        config[key] = data.draw(ODD)
    try:
        model = model_from_config(config, "config.json")
    except InputError as error:
        said = str(error)
    else:
        said = ""
        assert 1 <= len(model.moe_layers) <= model.layers <= limits.MOST_LAYERS
        assert 0 < model.parameters.active <= model.parameters.total
    assert "\n" not in said


_MORE = (
    "moe_layer_freq", "moe_layers", "mlp_layer_types", "mlp_only_layers", "decoder_sparse_step", "layer_types",
    "sliding_window", "moe_layer_end_index", "shared_expert_intermediate_size", "n_group", "topk_group",
    "quantization_config", "num_key_value_heads", "use_bias", "text_config",
)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("n_routed_experts", 10**9),
        ("hidden_size", 10**12),
        ("vocab_size", 10**12),
        ("moe_intermediate_size", 10**12),
        ("num_attention_heads", 10**9),
    ],
)
def test_a_size_without_end_is_named_at_once(key, value):
    with pytest.raises(InputError, match=f"{key.removeprefix('num_attention_')}.* (is more|less) than"):
        model_from_config(CONFIGS["deepseek-v3"] | {key: value}, "config.json")


def _sizes(most: int) -> st.SearchStrategy[int]:
    """Small, large and the very largest that is taken."""
    return st.one_of(st.integers(1, 64), st.integers(1, most), st.just(most))


@st.composite
def deployments(draw) -> Deployment:
    """Any that is accepted, with few layers and ranks, so that each is predicted in milliseconds."""
    experts, layers = draw(st.integers(1, 16)), draw(st.integers(1, 3))
    heads = draw(_sizes(limits.MOST_HEADS))
    config = {
        "model_type": "mixtral", "name": "any", "num_hidden_layers": layers, "num_local_experts": experts,
        "num_experts_per_tok": draw(st.integers(1, experts)), "hidden_size": draw(_sizes(limits.MOST_WIDTH)),
        "intermediate_size": draw(_sizes(limits.MOST_WIDTH)), "vocab_size": draw(_sizes(limits.MOST_WIDTH)),
        "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": draw(_sizes(limits.MOST_HEADS)),
    }  # fmt: skip
    ranks, loads = draw(st.sampled_from([1, 2, 4, 8, 16])), st.floats(0, 1e18)
    recorded = {"kind": "recorded", "loads": [draw(st.lists(loads, min_size=experts, max_size=experts))]}
    precision = st.none() | st.sampled_from(["bf16", "fp8", "mxfp4", "fp32"])
    parts: dict[str, Any] = {
        "model": model_from_config(config, "any"),
        "cluster": load_cluster(draw(st.sampled_from(["h100-sxm", "seed-ideal"]))).with_gpus(ranks),
        "workload": {
            "phase": draw(st.sampled_from(["prefill", "decode"])),
            "tokens_per_gpu": draw(_sizes(limits.MOST_TOKENS)),
            "context": {"mean_tokens": draw(_sizes(limits.MOST_CONTEXT)), "spread": draw(st.floats(0, 3))},
            "routing": draw(
                st.sampled_from(
                    [
                        {"kind": "uniform"},
                        {"kind": "log_normal", "sigma": 4.0},
                        {"kind": "power_law", "exponent": 4.0},
                    ]
                )
                | st.just(recorded)
            ),
            "fluctuating": draw(st.booleans()),
            "precision": {"experts": draw(precision), "attention": draw(precision), "kv": draw(precision)},
        },
        "placement": {"ranks": ranks, "experts_per_rank": -(-experts // ranks)},
        "options": {"schedule": draw(st.sampled_from(["sequential", "chunks:2", "two-batch"]))},
    }
    return parse(Deployment, parts, "any")


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_nothing_that_is_accepted_overflows(data):
    try:
        deployment = data.draw(deployments())
        report = simulate(deployment)
    except InputError:
        return
    figures = list(_numbers(json.loads(report.model_dump_json())))
    assert all(math.isfinite(figure) for figure in figures)
    assert min(figures) >= 0
    assert report.step_seconds > 0
    assert min(report.peak_memory_bytes) > 0
    assert 0 <= largest_batch(deployment) <= limits.MOST_TOKENS
    assert 0 <= longest_context(deployment) <= limits.MOST_CONTEXT


def _numbers(value: Any):
    if isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
