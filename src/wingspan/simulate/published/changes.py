"""What one thing changes: pairs of a deployment's loads that differ in it alone, as published and as predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from wingspan.deployment_presets import Terms
from wingspan.simulate.published.atlas import AtlasRow
from wingspan.simulate.published.judge import Trend

_ASPECTS: dict[str, Callable[[Terms], Any]] = {
    "schedule": lambda terms: terms.schedule,
    "batch": lambda terms: terms.sequences_per_gpu,
    "context": lambda terms: terms.context,
    "balance": lambda terms: terms.balance or 1.0,
    "EP": lambda terms: terms.ranks,
}
"""What loads may differ in. An even router's balance is 1, but for chance; balancing shows in the balance it leaves."""


def changes(rows: Sequence[AtlasRow]) -> list[Trend]:
    """Pairs of a deployment's published loads that differ in one thing; of equal pairs the nearest in its file.

    Of loads that differ in the same thing, neighbours by its size are paired: a change over several is theirs together.
    """
    found: dict[str, Trend] = {}
    for _, members in groupby(rows, key=lambda row: row.name.partition(":")[0]):
        known = [row for row in members if row.published_per_gpu is not None]
        for distance in range(1, len(known)):
            for one, other in zip(known, known[distance:], strict=False):
                aspect = _aspect(one, other)
                if aspect is not None and not _between(one, other, aspect, known):
                    change = _change(one, other, aspect)
                    found.setdefault(change.what, change)
    return sorted(found.values(), key=lambda change: list(_ASPECTS).index(change.what.partition(" ")[0]))


def _aspect(one: AtlasRow, other: AtlasRow) -> str | None:
    """The one thing in which two loads differ; None: none, or several."""
    if _kind(one.terms) != _kind(other.terms):
        return None
    unlike = [name for name, of in _ASPECTS.items() if of(one.terms) != of(other.terms)]
    return unlike[0] if len(unlike) == 1 else None


def _kind(terms: Terms) -> tuple[object, ...]:
    """What loads of one deployment are never compared across."""
    layout = (terms.attention, terms.expert_tensor_parallel, terms.dispatcher)
    return (terms.model, terms.cluster, terms.phase, terms.precision, terms.mtp_tokens, *layout)


def _between(one: AtlasRow, other: AtlasRow, aspect: str, known: Sequence[AtlasRow]) -> bool:
    """Whether a third load lies between two in what they differ in."""
    of = _ASPECTS[aspect]
    low, high = sorted((of(one.terms), of(other.terms)))
    return any(low < of(row.terms) < high for row in known if _aspect(one, row) == aspect)


def _change(one: AtlasRow, other: AtlasRow, aspect: str) -> Trend:
    of = _ASPECTS[aspect]
    first, second = sorted((one, other), key=lambda row: of(row.terms))
    published = (second.published_per_gpu or 0.0) / (first.published_per_gpu or 1.0)
    return Trend(
        f"{aspect} {_text(of(first.terms))} to {_text(of(second.terms))}: {_where(first, aspect)}",
        (first.name, second.name),
        not (first.load.fitted and second.load.fitted),
        published - 1,
        second.tokens_per_second_per_gpu / first.tokens_per_second_per_gpu - 1,
    )


def _where(row: AtlasRow, aspect: str) -> str:
    """What both loads have in common, as far as others of the deployment differ in it."""
    terms = row.terms
    said = {
        "schedule": terms.schedule,
        "batch": f"{_text(terms.sequences_per_gpu)} a GPU",
        "context": f"{terms.context:,} long",
    }
    where = row.name.partition(":")[0]
    return ", ".join([where, *(text for name, text in said.items() if name != aspect)])


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,.3f}".rstrip("0").rstrip(".")
