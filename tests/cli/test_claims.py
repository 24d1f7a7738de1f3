"""`wingspan claims --json`, in a process without torch."""

import json

import pytest

from tests.cli.without_torch import run_without_torch
from wingspan.simulate.claims import Claim


@pytest.fixture(scope="module")
def rows() -> dict[str, Claim]:
    done = run_without_torch("claims", "--json")
    assert done.returncode == 0, done.stderr
    return {row["claim"]: Claim(**row) for row in json.loads(done.stdout)}


def _row(rows: dict[str, Claim], start: str) -> Claim:
    return next(row for claim, row in rows.items() if claim.startswith(start))


def test_every_row_of_the_table_is_there(rows: dict[str, Claim]) -> None:
    starts = (
        "size of one expert", "layers", "attention, 128", "practical performance", "memory bandwidth",
        "network bandwidth", "peak memory", "memory utilisation", "communication overhead", "latency impact",
        "parallel efficiency", "token throughput", "latency consistent", "bottleneck",
        "several experts per GPU: diminishing", "one expert per GPU", "several experts per GPU: communication",
        "GPU utilisation",
    )  # fmt: skip
    for start in starts:
        assert _row(rows, start).conditions
    assert len(rows) == len(starts)


def test_arithmetic_of_the_seed(rows: dict[str, Claim]) -> None:
    assert _row(rows, "size of one expert").computed == pytest.approx(58.720256)
    assert "88.08" in " ".join(_row(rows, "size of one expert").conditions)
    assert _row(rows, "peak memory").computed == pytest.approx(60.89, abs=0.01)
    assert _row(rows, "memory utilisation").computed == pytest.approx(95.15, abs=0.01)
    assert _row(rows, "practical performance").computed == pytest.approx(240)


def test_the_network_decides(rows: dict[str, Claim]) -> None:
    """True on the ideal network, false on the real one without more."""
    assert not _row(rows, "network bandwidth").holds
    for start in ("communication overhead", "parallel efficiency"):
        row = _row(rows, start)
        assert row.holds
        ideal = [c for c in row.conditions if c.startswith("seed-ideal, uniform")]
        real = [c for c in row.conditions if c.startswith("h100-sxm, uniform")]
        assert "holds at all" in ideal[0]
        assert "holds at all" not in real[0]


def test_skew_breaks_linear_scaling_even_on_the_ideal_network(rows: dict[str, Claim]) -> None:
    conditions = _row(rows, "token throughput").conditions
    skewed = next(c for c in conditions if c.startswith("seed-ideal, skewed"))
    assert "prefill 4096" in skewed


def test_the_baseline_loses_at_small_batches_only(rows: dict[str, Claim]) -> None:
    conditions = _row(rows, "one expert per GPU").conditions
    verdicts = {c.partition(":")[0]: c.endswith(", holds") for c in conditions}
    assert verdicts["seed-ideal, decode of 4 sequences per GPU"]
    assert not verdicts["h100-sxm, prefill of 4096 tokens per GPU"]


SPEED = (
    "communication overhead", "parallel efficiency", "token throughput", "latency consistent", "bottleneck",
    "several experts per GPU: diminishing", "one expert per GPU", "several experts per GPU: communication",
    "GPU utilisation",
)  # fmt: skip


def test_speed_is_judged_where_memory_holds_it(rows: dict[str, Claim]) -> None:
    for start in SPEED:
        assert _row(rows, start).fits is True, start
    assert {row.fits for claim, row in rows.items() if not claim.startswith(SPEED)} == {None}


def test_the_documents_own_point_is_shown_beside_it_and_does_not_fit(rows: dict[str, Claim]) -> None:
    """Attention replicated takes 57.3 of 64 GB: there is no room for 128 sequences, or for one."""
    own = [row for row in rows.values() if row.own is not None]
    assert len(own) == len(SPEED) - 1
    assert {row.own_fits for row in own} == {False}


def test_points_that_do_not_fit_are_marked(rows: dict[str, Claim]) -> None:
    for start in ("communication overhead", "parallel efficiency", "GPU utilisation"):
        real = next(c for c in _row(rows, start).conditions if c.startswith("h100-sxm, uniform"))
        assert "9 fit" in real
        assert "decode 128*" in real
        assert "decode 8:" in real
    crossover = _row(rows, "several experts per GPU: diminishing").conditions[0]
    assert "32*" in crossover
    assert "8:" in crossover
