"""A deployment as a serving group: its step times are the step simulator's, its room is what memory leaves."""

from __future__ import annotations

import numpy as np
import pytest

from wingspan.deployment import Deployment, Options
from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec
from wingspan.simulate.memory import memory_use
from wingspan.simulate.serving.deployed import Caps, grid_times, group_of, kv_tokens_per_home, kv_transfer
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, Workload

CAPS = Caps(sequences_per_gpu=64, tokens_per_step=1024, longest_context=4096, mean_context=1000)


def deployment(
    attention_ranks: int = 1, phase: str = "decode", tokens: int = 1, context: int = 1000
) -> Deployment:
    model = load_model("mixtral-8x7b")
    return Deployment(
        model=model,
        cluster=load_cluster("h100-sxm").with_gpus(8),
        workload=Workload(
            phase=phase, tokens_per_gpu=tokens, context=Context(mean_tokens=context), fluctuating=False
        ),
        placement=PlacementSpec(ranks=8),
        options=Options(attention_ranks=attention_ranks),
    )


@pytest.mark.parametrize("group", [1, 4])
def test_on_the_grid_the_times_are_the_simulators_and_between_they_are_near(group: int) -> None:
    times = grid_times(deployment(group), CAPS)
    for sequences, context, tolerance in (
        (16, 4096, 1e-9),
        (16, 1024, 1e-9),
        (24, 2000, 0.05),
        (5, 700, 0.05),
    ):
        home = sequences * group
        given = float(times.decode_seconds(home, home, np.array([float(context)]))[0])
        assert given == pytest.approx(
            simulate(deployment(group, tokens=sequences, context=context)).step_seconds, rel=tolerance
        )


@pytest.mark.parametrize(("tokens", "prompt"), [(1024, 1024), (1024, 256), (512, 512), (256, 128)])
def test_prefill_of_whole_prompts_is_near_the_simulators(tokens: int, prompt: int) -> None:
    given = grid_times(deployment(), CAPS).prefill_seconds(tokens, tokens, prompt / 2)
    whole = simulate(deployment(phase="prefill", tokens=tokens, context=prompt)).step_seconds
    assert given == pytest.approx(whole, rel=0.05)


def test_a_chunk_far_into_a_prompt_costs_more_than_at_its_start() -> None:
    """By its pairs of tokens: twice the chunk, twice as much more."""
    times = grid_times(deployment(), CAPS)
    more = [
        times.prefill_seconds(size, size, 4000.0) - times.prefill_seconds(size, size, 500.0)
        for size in (256, 512)
    ]
    assert more[0] > 0
    assert more[1] == pytest.approx(2 * more[0])


def test_the_room_for_kv_is_what_the_largest_step_leaves() -> None:
    room = kv_tokens_per_home(deployment(), CAPS, decodes=True, prefills=False)
    step = deployment(tokens=CAPS.sequences_per_gpu)
    parts = memory_use(step).parts
    per_token = parts["kv cache"].max() / CAPS.sequences_per_gpu / (1000 + 1)
    free = 80e9 - sum(part.max() for name, part in parts.items() if name != "kv cache")
    assert room == pytest.approx(free / per_token, rel=1e-3)
    assert kv_tokens_per_home(deployment(), CAPS, decodes=True, prefills=True) < room


def test_a_home_of_several_ranks_has_the_room_and_budget_of_all() -> None:
    one = group_of(deployment(), CAPS, name="g", decodes=True, prefills=True)
    four = group_of(deployment(4), CAPS, name="g", decodes=True, prefills=True)
    assert (one.homes, four.homes) == (8, 2)
    assert four.sequences_per_home == 4 * one.sequences_per_home
    assert four.tokens_per_step == 4 * one.tokens_per_step
    assert four.kv_tokens_per_home > 3 * one.kv_tokens_per_home


def test_the_transfer_carries_the_models_kv_over_the_network_card() -> None:
    model = load_model("mixtral-8x7b")
    transfer = kv_transfer(deployment(), CAPS)
    assert transfer.bytes_per_token == pytest.approx(model.kv_values_per_token * 2, rel=1e-6)
    assert transfer.bytes_per_second == deployment().cluster.scale_out.sustained_bytes_per_second
    # Eight key-value heads over four ranks: each sends a quarter over its own card.
    assert kv_transfer(deployment(4), CAPS).bytes_per_token == pytest.approx(transfer.bytes_per_token / 4)


def test_no_room_for_kv_is_an_error_that_names_the_largest_parts() -> None:
    small = deployment().model_copy(
        update={"cluster": deployment().cluster.model_copy(
            update={"gpu": deployment().cluster.gpu.model_copy(update={"memory_bytes": 10e9})}
        )}
    )  # fmt: skip
    with pytest.raises(
        InputError, match=r"of 10\.0 GB are taken before any KV cache \(GB: (attention|experts)"
    ):
        kv_tokens_per_home(small, CAPS, decodes=True, prefills=True)
