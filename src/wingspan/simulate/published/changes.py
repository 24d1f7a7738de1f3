"""What one thing changes: pairs of a deployment's loads that differ in it alone, as published and as predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from wingspan.deployment_presets import Terms
from wingspan.simulate.published.atlas import AtlasRow

_ASPECTS: dict[str, Callable[[Terms], str | float]] = {
    "schedule": lambda terms: terms.schedule,
    "batch": lambda terms: terms.tokens_per_gpu,
    "context": lambda terms: terms.context,
    "balance": lambda terms: terms.balance or 1.0,
    "EP": lambda terms: terms.ranks,
}
"""What loads may differ in. An even router's balance is 1, but for chance; balancing shows in the balance it leaves."""


@dataclass(frozen=True)
class Change:
    """How many more tokens a second the second load gives than the first: 0.25 is a quarter more.

    Args:
        aspect: the one thing in which they differ.
        where: what both have in common, in words.
        names: of both loads, as commands take them.
        judged: constants were not fitted on both.
    """

    aspect: str
    where: str
    was: str
    now: str
    names: tuple[str, str]
    judged: bool
    published: float
    predicted: float

    @property
    def right(self) -> bool:
        """Whether the predicted change goes the published way."""
        return (self.published > 0) == (self.predicted > 0)

    @property
    def error(self) -> float:
        """Relative error of the ratio of the two loads."""
        return (1 + self.predicted) / (1 + self.published) - 1

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {**asdict(self), "right": self.right, "error": self.error}


def changes(rows: Sequence[AtlasRow]) -> list[Change]:
    """Pairs of a deployment's published loads that differ in one thing; of equal pairs the nearest in its file."""
    found: dict[tuple[str, ...], Change] = {}
    for _, members in groupby(rows, key=lambda row: row.name.partition(":")[0]):
        known = [row for row in members if row.published_per_gpu is not None]
        for distance in range(1, len(known)):
            for one, other in zip(known, known[distance:], strict=False):
                if (change := _change(one, other)) is not None:
                    found.setdefault((change.aspect, change.where, change.was, change.now), change)
    return sorted(found.values(), key=lambda change: list(_ASPECTS).index(change.aspect))


def _change(one: AtlasRow, other: AtlasRow) -> Change | None:
    unlike = [name for name, of in _ASPECTS.items() if of(one.terms) != of(other.terms)]
    if len(unlike) != 1:
        return None
    (aspect,) = unlike
    of = _ASPECTS[aspect]
    first, second = sorted((one, other), key=lambda row: of(row.terms))
    published = (second.published_per_gpu or 0.0) / (first.published_per_gpu or 1.0)
    return Change(
        aspect,
        _where(first, aspect),
        _text(of(first.terms)),
        _text(of(second.terms)),
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
        "batch": f"{terms.tokens_per_gpu:,} a GPU",
        "context": f"{terms.context:,} long",
    }
    where = row.name.partition(":")[0]
    return ", ".join([where, *(text for name, text in said.items() if name != aspect)])


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,.3f}".rstrip("0").rstrip(".")
