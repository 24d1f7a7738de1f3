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
    """DESIGN.md section 4: true on the ideal network, false on the real one without more."""
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
    assert verdicts["seed-ideal, decode of 8 sequences per GPU"]
    assert not verdicts["h100-sxm, prefill of 4096 tokens per GPU"]
