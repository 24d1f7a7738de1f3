"""Drawing tokens: as by hand, as often as their chances say, a function of seed, stream and position alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.plain import SAMPLINGS, by_hand
from wingspan.errors import InputError
from wingspan.runtime.generation.requests import Length
from wingspan.runtime.generation.sampling import Draw, Sampling, choose

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.none() | st.floats(0.05, 1.0),
    seed=st.integers(),
    min_p=st.none() | st.floats(0.0, 1.0),
)


@settings(max_examples=60)
@given(st.lists(samplings, min_size=1, max_size=6), st.integers(0, 2**32))
def test_sequences_of_one_step_draw_as_each_would_alone_and_by_hand(several, number):
    logits_PV = 3 * torch.randn(
        len(several), 30, generator=torch.Generator().manual_seed(number), dtype=torch.float32
    )
    draws = [Draw(sampling, stream=n, position=number + n) for n, sampling in enumerate(several)]
    chosen = choose(logits_PV, draws).tolist()
    assert chosen == [int(choose(row[None], [draw])) for row, draw in zip(logits_PV, draws, strict=True)]
    assert chosen == [
        by_hand(row.double().numpy(), d.sampling, d.stream, d.position)
        for row, d in zip(logits_PV, draws, strict=True)
    ]


def test_tokens_come_as_often_as_their_chances_say():
    logits_V = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    draws = [Draw(Sampling(temperature=1.0), stream=0, position=p) for p in range(4000)]
    counts = np.bincount(choose(logits_V.expand(4000, 5), draws).numpy(), minlength=5) / 4000
    assert np.abs(counts - logits_V.softmax(-1).numpy()).max() < 0.025
    assert counts[4] == 0


@pytest.mark.parametrize("sampling", SAMPLINGS[1:])
def test_another_seed_stream_or_position_draws_otherwise(sampling):
    def drawn(seed=0, stream=0, begin=0):
        some = Sampling(sampling.temperature, seed=seed)
        return choose(torch.zeros(20, 1000), [Draw(some, stream, begin + p) for p in range(20)]).tolist()

    assert drawn() == drawn()
    assert len({tuple(d) for d in (drawn(), drawn(seed=1), drawn(stream=1), drawn(begin=20))}) == 4
    assert drawn(begin=5)[:15] == drawn()[5:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": 0},
        {"top_k": 5.0}, {"seed": 0.5},
        {"top_p": 0.0}, {"top_p": 1.1}, {"top_p": float("nan")}, {"min_p": -0.1}, {"min_p": 2.0},
    ],
)  # fmt: skip
def test_a_value_outside_its_range_is_named(wrong):
    ((field, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{field} is {value}"):
        Sampling(**wrong)


def test_whole_numbers_are_temperatures_and_shares_too():
    logits_PV = torch.tensor([[0.0, 1.0, 2.0]])
    chosen = choose(logits_PV, [Draw(Sampling(temperature=1, top_p=1, min_p=0), 0, 5)])
    assert chosen == choose(logits_PV, [Draw(Sampling(temperature=1.0), 0, 5)])


@pytest.mark.parametrize("number", [0, -3, 2.5])
def test_an_answer_without_tokens_is_refused(number):
    with pytest.raises(InputError, match=f"max_new_tokens is {number}"):
        Length(number)


@pytest.mark.parametrize("wrong", [5, (1.5,), ("a",)])
def test_end_tokens_are_whole_numbers(wrong):
    with pytest.raises(InputError, match="end_ids is"):
        Length(end_ids=wrong)


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-40, 1e-3])
def test_the_colder_the_likelier_the_largest_down_to_the_smallest_number_above_0(temperature):
    logits_PV = torch.tensor([[-80.0, 3.0, 2.0], [500.0, -500.0, 0.0]])
    some = Sampling(temperature=temperature, top_k=2, top_p=0.9)
    assert choose(logits_PV, [Draw(some, stream, 7) for stream in range(2)]).tolist() == [1, 0]
