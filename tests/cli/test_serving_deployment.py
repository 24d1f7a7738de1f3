"""`wingspan simulate-serving` of a deployment's file: served as it says, and nothing beside it says otherwise."""

from __future__ import annotations

import json

import pytest

REQUESTS = (
    "--rate", "20", "--num-requests", "20", "--prompt-tokens", "200", "--output-tokens", "20", "--max-sequences", "8",
    "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("given") / "d.json"


def _described(wingspan, file, *options):
    usual = ("simulate", "mixtral-8x7b", "--ranks", "8", "--out", str(file))
    assert wingspan(*usual, *options).code == 0


def _served(wingspan, *words):
    done = wingspan("simulate-serving", *words, *REQUESTS)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_file_is_served_as_the_same_options_are(wingspan, file):
    _described(wingspan, file)
    of_file = _served(wingspan, str(file))
    assert of_file["points"] == _served(wingspan, "mixtral-8x7b", "--ranks", "8")["points"]
    assert of_file["groups"][0]["ranks"] == 8


def test_its_placement_and_schedule_count(wingspan, file):
    _described(wingspan, file, "--schedule", "chunks:2", "--routing", "power-law:1.2")
    skewed = _served(wingspan, str(file))
    assert skewed["conditions"]["Step"] == "chunks:2 schedule, power-law routing"
    _described(
        wingspan, file, "--schedule", "chunks:2", "--routing", "power-law:1.2", "--experts-per-rank", "3",
        "--placement", "balanced",
    )  # fmt: skip
    placed = _served(wingspan, str(file))
    # More slots hold more weights, which a step of few tokens reads.
    assert placed["points"][0]["tpot_seconds"]["p50"] > skewed["points"][0]["tpot_seconds"]["p50"]


@pytest.mark.parametrize(
    "option",
    [("--ranks", "4"), ("--cluster", "h800"), ("--schedule", "chunks:2"), ("--separate-prefill", "4")],
)
def test_what_the_file_says_is_refused_beside_it(wingspan, file, option):
    _described(wingspan, file)
    done = wingspan("simulate-serving", str(file), *option)
    assert done.code == 2
    assert f"{option[0]} {option[1]}" in done.err
    assert done.err.count("\n") == 1
