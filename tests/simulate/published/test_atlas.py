"""The atlas: published deployments are predicted as near, and ranked as well, as docs/atlas.md says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples
from scipy.stats import kendalltau

from wingspan.deployment_presets import deployment_presets
from wingspan.report.atlas_page import atlas_page
from wingspan.report.page import render
from wingspan.simulate.published.atlas import AtlasRow, atlas_rows, ranked
from wingspan.simulate.published.changes import changes
from wingspan.simulate.published.rank_correlation import kendall


@given(pairs=lists(tuples(integers(0, 9), integers(0, 9)), min_size=3, max_size=12))
def test_the_rank_correlation_is_scipys(pairs: list[tuple[int, int]]):
    one, other = (list(values) for values in zip(*pairs, strict=True))
    known = kendalltau(one, other).statistic
    assert kendall(one, other) == pytest.approx(0.0 if math.isnan(known) else known)


@pytest.fixture(scope="module")
def rows() -> list[AtlasRow]:
    return atlas_rows(deployment_presets())


def _of(rows: list[AtlasRow], name: str) -> list[AtlasRow]:
    return [row for row in rows if row.name.startswith(name)]


def test_one_expert_a_die_at_three_batches_within_a_fifth(rows: list[AtlasRow]):
    batches = [row for row in _of(rows, "cloudmatrix-ep320-decode") if ":batch-" in row.name]
    assert [row.load.value for row in batches] == [49.4, 24.6, 14.9]
    predicted = [row.predicted or 0.0 for row in batches]
    assert predicted == sorted(predicted, reverse=True)
    assert max(abs(row.error or 1.0) for row in batches) < 0.2
    assert not any(row.load.fitted for row in batches)


def test_groups_are_ranked_as_they_were_measured(rows: list[AtlasRow]):
    orders = {order.what: order for order in ranked(rows)}
    assert {
        "SGLang decode",
        "SGLang prefill",
        "SGLang and vLLM, decode",
        "SGLang and vLLM, prefill",
    } <= orders.keys()
    assert all(order.kendall >= 0.8 for order in orders.values())


def test_bars_hold_what_was_not_fitted_on(rows: list[AtlasRow]):
    judged = [row for row in rows if row.held is not None and not row.load.fitted]
    assert sum(bool(row.held) for row in judged) / len(judged) >= 0.9


def test_what_one_thing_changes_goes_the_published_way(rows: list[AtlasRow]):
    found = changes(rows)
    assert {change.what.split()[0] for change in found} == {"schedule", "batch", "context", "balance"}
    engines = [change for change in found if "cloudmatrix" not in change.what]
    assert all(change.right for change in engines)
    small = [change for change in engines if change.what.startswith("schedule")]
    assert len(small) == 4
    assert all(abs(change.error) < 0.15 for change in small)


def test_a_change_is_of_one_thing_alone(rows: list[AtlasRow]):
    by_name = {row.name: row for row in rows}
    for change in changes(rows):
        one, other = (by_name[name] for name in change.ids)
        assert one.preset is other.preset
        assert one.published_per_gpu is not None
        assert other.published_per_gpu is not None
        assert 1 + change.published == pytest.approx(other.published_per_gpu / one.published_per_gpu)
    assert changes([row for row in rows if row.load.value is None]) == []


def test_the_page_shows_every_load_and_its_pictures(rows: list[AtlasRow]):
    page = atlas_page(rows, ranked(rows), changes(rows))
    drawn = [section for section in page.sections if section.figure is not None]
    assert [section.title for section in drawn] == [
        "Predicted and published",
        "One thing changed",
        "Schedules against the batch",
    ]
    table = page.sections[-1].table
    assert table is not None
    assert [row[0] for row in table.rows] == [row.name for row in rows]
    unpublished = [row for row in rows if row.load.value is None]
    assert render(atlas_page(unpublished, [], []))


def test_a_published_time_becomes_a_rate_and_chance_only_slows(rows: list[AtlasRow]):
    for row in rows:
        assert row.chance_seconds >= 0
        if row.load.value is None:
            assert row.published_per_gpu is None
            continue
        assert row.error is not None
        assert row.published_per_gpu == pytest.approx(row.tokens_per_second_per_gpu * (1 + row.error))
