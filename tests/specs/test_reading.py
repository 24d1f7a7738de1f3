"""Every way a spec can be wrong ends as one line with file, key, value and mend."""

from pathlib import Path

import pytest
from pydantic import Field

from wingspan.errors import InputError
from wingspan.specs.reading import Spec, near_name, parse, read_yaml


class Wheel(Spec):
    spokes: int = Field(ge=3)


class Bicycle(Spec):
    name: str
    front: Wheel
    back: Wheel | None = None


def message(data: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        parse(Bicycle, data, "bike.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_right_one_is_read():
    assert parse(Bicycle, {"name": "a", "front": {"spokes": 32}}, "bike.yaml").front.spokes == 32


def test_a_wrong_value_is_named_with_its_key_and_bound():
    text = message({"name": "a", "front": {"spokes": 2}})
    assert text.startswith("bike.yaml: front.spokes = 2:")
    assert "greater than or equal to 3" in text


def test_an_unknown_key_suggests_the_nearest_one_also_inside():
    assert "unknown key front.spoke; did you mean spokes?" in message({"name": "a", "front": {"spoke": 2}})
    assert "unknown key back.spok; did you mean" in message(
        {"name": "a", "front": {"spokes": 3}, "back": {"spokes": 3, "spok": 1}}
    )


def test_an_unknown_key_like_nothing_lists_what_is_known():
    text = message({"name": "a", "front": {"spokes": 3}, "engine": 1})
    assert "unknown key engine; known: name, front, back" in text


def test_a_missing_key_is_named():
    assert message({"front": {"spokes": 3}}) == "bike.yaml: key name is missing; add it"


def test_further_errors_are_counted():
    assert message({"front": {"spokes": 1}}).endswith("(and 1 more)")


def test_a_long_value_is_cut():
    assert len(message({"name": "a", "front": "x" * 500})) < 200


def test_not_a_number_is_refused():
    class Weight(Spec):
        grams: float

    with pytest.raises(InputError, match="grams = nan"):
        parse(Weight, {"grams": float("nan")}, "w")


@pytest.mark.parametrize(
    ("text", "complaint"), [("a: [1", "not YAML in line"), ("- 1\n- 2", "found list"), ("", "found NoneType")]
)
def test_a_file_that_holds_no_mapping(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_yaml(path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("clutser", "cluster"),
        ("gpus_per_nod", "gpus_per_node"),
        ("colour", None),
        ("x", None),
        ("cluster", "cluster"),
    ],
)
def test_only_a_near_name_is_suggested(name: str, meant: str | None):
    assert near_name(name, ["cluster", "gpus_per_node", "workload"]) == meant
