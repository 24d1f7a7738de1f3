import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.specs.stored_placement import StoredPlacement, shown_layers


@given(
    numbers=st.none() | st.sets(st.integers(0, 80), min_size=3, max_size=3).map(lambda s: tuple(sorted(s))),
    above=st.none() | st.integers(81, 200),
    ranks_per_node=st.none() | st.integers(1, 72),
)
def test_a_file_gives_back_what_was_written(numbers, above, ranks_per_node):
    stored = StoredPlacement(linear(3, 4, 4), numbers, above, ranks_per_node)
    assert StoredPlacement.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


def test_a_file_of_the_version_before_says_nothing_of_the_model():
    placement = linear(3, 4, 4)
    assert StoredPlacement.from_dict(placement.to_dict()) == StoredPlacement(placement)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"moe_layers": [0, 1]}, "3 MoE layers, but numbers of 2"),
        ({"moe_layers": [0, 2, 1]}, "rising numbers"),
        ({"moe_layers": [0, 1, "2"]}, "whole numbers"),
        ({"moe_layers": [1, 2, 3], "hidden_layers": 3}, "3 hidden layers leave out MoE layer 3"),
        ({"hidden_layers": 2}, "2 hidden layers leave out MoE layer 2"),
        ({"hidden_layers": True}, "whole number"),
        ({"ranks_per_node": 0}, "use 1 or more"),
        ({"schema_version": 3}, "reads 1 and 2"),
        ({"slots": [[[2**70]]]}, "not a placement object"),
    ],
)
def test_what_cannot_be_is_named(changed, message):
    with pytest.raises(InputError, match=message):
        StoredPlacement.from_dict(linear(3, 4, 4).to_dict() | changed)


@pytest.mark.parametrize(("numbers", "text"), [((3,), "3"), ((3, 4, 5, 6), "3-6"), ((1, 3, 4, 7), "1,3-4,7")])
def test_layer_numbers_are_shown_shortly(numbers, text):
    assert shown_layers(numbers) == text
