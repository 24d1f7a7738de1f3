"""Invariants of predictions on deployments drawn at random; `python -m benchmarks.invariants` checks many more."""

from benchmarks.invariants import broken_rules, in_words
from hypothesis import example, given, settings
from hypothesis import strategies as st


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
@example(998965)  # Experts that have rows nearly always, padded: once two tiles where one is full.
def test_no_prediction_breaks_a_rule(seed: int) -> None:
    for rule, made, broken in broken_rules(seed):
        assert broken is None, f"{rule}: {broken}: {in_words(made)}"
