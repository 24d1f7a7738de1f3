"""The profile from which what was measured differs least, term by term as far as the measurements determine it.

Shapes: F figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wingspan.simulate.fitting.measurements import Measurement, Predictor, Quantity
from wingspan.simulate.fitting.solving import PRIMARY, Advance, Fitting, Slopes
from wingspan.simulate.fitting.terms import INSIDE, MISSING, TOO_LONG, Term
from wingspan.specs.engines import EngineKind, EngineProfile, profile_of

Array = NDArray[np.float64]

_LEAST_ERROR = 0.03
"""The least range of a fitted engine, however well its measurements agree: other steps were not measured."""


@dataclass(frozen=True)
class Fit:
    """A fitted profile, and each measurement beside its predictions.

    Args:
        profile: as fitted.
        terms: that were fitted.
        nothing: those of which nothing is missing: they would be below 0.
        left: those that the measurements do not tell apart from what was fitted.
        measured: what was measured.
        before: predicted with the engine that was given.
        after: with the profile.
        held_out: with one fitted on all other loads; None where too few were left.
    """

    profile: EngineProfile
    terms: list[Term]
    nothing: list[Term]
    left: list[Term]
    measured: Sequence[Measurement]
    before: list[dict[Quantity, float]]
    after: list[dict[Quantity, float]]
    held_out: list[dict[Quantity, float] | None]

    @property
    def figures(self) -> int:
        """How many figures were measured that each determine a term."""
        return len(errors(self, self.before))


def fit(predictor: Predictor, engine: EngineKind | EngineProfile, advance: Advance = lambda: None) -> Fit:
    """Fit as many terms as there are measurements to tell them by; one measurement determines one.

    Where several loads tell of first tokens, they also tell whether prompts are computed apart from the sequences that
    decode: the better of both fits is taken.

    Args:
        predictor: of what was measured.
        engine: whose other constants hold, and which is compared with.
        advance: told of every prediction.
    """
    served = sum(Quantity.TTFT in one.figures for one in predictor.measured)
    orders = (False, True) if served > 1 else (profile_of(engine).prompts_apart,)
    solved = [_solved(Fitting(predictor, engine, advance, apart=apart)) for apart in orders]
    best = min(solved, key=lambda one: one.off)
    fitting, named = best.fitting, best.fitting.terms
    return Fit(
        profile=fitting.profile(best.line.at_N),
        terms=[named[term] for term in best.terms],
        nothing=[named[term] for term in best.nothing],
        left=[named[term] for term in best.order if term not in (*best.terms, *best.nothing)],
        measured=predictor.measured,
        before=predictor.predicted(engine),
        after=_by_measurement(fitting, best.line.figures_F),
        held_out=[_held_out(best, number) for number in range(len(predictor.measured))],
    )


@dataclass(frozen=True)
class _Solved:
    """The terms that were solved for, by number."""

    fitting: Fitting
    order: list[int]
    terms: list[int]
    nothing: list[int]
    line: Slopes

    @property
    def off(self) -> float:
        return self.fitting.off(self.line.figures_F, self.fitting.every_F)


def _solved(fitting: Fitting) -> _Solved:
    """All but requests' own time, and from there that too: figures bend where requests come later or together."""
    line = fitting.line(fitting.start_N, range(len(fitting.terms)))
    tried = TOO_LONG if fitting.is_too_long(line) else INSIDE if fitting.inside else MISSING
    order = [fitting.terms.index(term) for term in tried]
    *others, request = order
    terms, nothing = fitting.needed(line, others, fitting.every_F)
    found = _Solved(fitting, order, terms, nothing, fitting.settled(line, terms, fitting.every_F))
    line = fitting.line(found.line.at_N, [*terms, request])
    terms, zero = fitting.needed(line, [*terms, request], fitting.every_F)
    if request not in terms:
        return replace(found, nothing=[*nothing, *(term for term in zero if term == request)])
    line = fitting.settled(line, terms, fitting.every_F)
    return min(found, _Solved(fitting, order, terms, [*nothing, *zero], line), key=lambda one: one.off)


def _held_out(solved: _Solved, number: int) -> dict[Quantity, float] | None:
    """One measurement, predicted with terms that are fitted on those of other loads."""
    fitting, line = solved.fitting, solved.line
    kept_F = ~fitting.like(number)
    if fitting.primary(kept_F).sum() < 2:
        return None
    terms_N = fitting.solved(line, fitting.chosen(line, solved.terms, kept_F), kept_F)
    return _by_measurement(fitting, fitting.figures(terms_N))[number]


def _by_measurement(fitting: Fitting, figures_F: Array) -> list[dict[Quantity, float]]:
    found: list[dict[Quantity, float]] = [{} for _ in range(fitting.rows[-1][0] + 1)]
    for (n, figure), value in zip(fitting.rows, figures_F.tolist(), strict=True):
        found[n][figure] = value
    return found


def errors(fit: Fit, predicted: Sequence[dict[Quantity, float] | None]) -> list[float]:
    """Relative errors of the figures that determine terms, in whatever order."""
    return [
        abs(values[figure] / one.figures[figure] - 1)
        for one, values in zip(fit.measured, predicted, strict=True)
        if values is not None
        for figure in one.figures
        if figure in PRIMARY
    ]


def described(fit: Fit, name: str) -> EngineProfile:
    """The profile with its name, what it was fitted on, and how far it may be off: as each was that was held out."""
    sources = ", ".join(dict.fromkeys(one.source for one in fit.measured))
    held_out = errors(fit, fit.held_out)
    error = max([_LEAST_ERROR, *held_out]) if held_out else fit.profile.relative_error
    count = len(fit.measured)
    return fit.profile.model_copy(
        update={
            "name": name,
            "source": f"measured: {sources}",
            "fitted_on": f"{count} measurement{'s' * (count > 1)} of one's own ({', '.join(fit.terms)})",
            "relative_error": round(error, 3),
        }
    )
