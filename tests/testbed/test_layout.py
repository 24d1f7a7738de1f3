"""A layout's words become numbers and names, or one clear line."""

from __future__ import annotations

import pytest

from wingspan.errors import InputError
from wingspan.testbed.layout import make_layout, parse_rate, part_of, show_rate


@pytest.mark.parametrize(
    ("text", "bits"),
    [("400mbit", 400_000_000), ("1.5gbit", 1_500_000_000), ("64kbit", 64_000), ("9600bit", 9600)],
)
def test_rates(text, bits):
    assert parse_rate("link_rate", text) == bits
    assert parse_rate("link_rate", show_rate(bits)) == bits


def test_names_lead_back_to_their_testbed():
    layout = make_layout("a_b", 3, 2, "1gbit")
    for namespace in (layout.switch, layout.node(2)):
        part = part_of(namespace)
        assert part is not None
        assert part.testbed == "a_b"


@pytest.mark.parametrize(
    "foreign", ["cni-1234", "wingspan-x", "wingspan-a-node", "wingspan-a-node1-x", "wingspan"]
)
def test_foreign_namespaces_are_nobodys(foreign):
    assert part_of(foreign) is None


def test_groups_hang_on_their_leaf():
    layout = make_layout("a", 4, 1, "1gbit", "500mbit", 2)
    assert layout.groups == 2
    assert [layout.bridge_of(i) for i in range(4)] == ["leaf0", "leaf0", "leaf1", "leaf1"]
    assert make_layout("a", 4, 1, "1gbit").bridge_of(3) == "switch"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("UP", 4, 4, "1gbit"), "`name` UP"),
        (("a", 4, 4, "fast"), "`link_rate` fast"),
        (("a", 0, 4, "1gbit"), "nodes = 0"),
        (("a", 251, 4, "1gbit"), "nodes = 251"),
        (("a", 4, 0, "1gbit"), "ranks_per_node = 0"),
        (("a", 4, 4, "1gbit", "1gbit"), "`nodes_per_group` go together"),
        (("a", 4, 4, "1gbit", "1gbit", 3), "`nodes_per_group` 3"),
        (("a", 4, 4, "1gbit", "slow", 2), "`group_uplink` slow"),
    ],
)
def test_what_does_not_fit_is_named(arguments, named):
    with pytest.raises(InputError, match=named):
        make_layout(*arguments)
