"""The profile from which what was measured differs least, term by term as far as the measurements determine it.

Shapes: F figures, N terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from wingspan.simulate.fitting.measurements import Measurement, Predictor, Quantity
from wingspan.simulate.fitting.terms import INSIDE, MISSING, TOO_LONG, Term, are_told_apart
from wingspan.specs.engines import EngineKind, EngineProfile, profile_of

Array = NDArray[np.float64]

_WEIGHTS = {
    Quantity.TPOT: 1.0,
    Quantity.STEP: 1.0,
    Quantity.LAYERS: 1.0,
    Quantity.TTFT: 0.1,
    Quantity.OUTPUT: 0.0,
}
"""A first token's time tells of prompts, and less steadily: others are waited for. Throughput follows from both."""
_PRIMARY = (Quantity.TPOT, Quantity.STEP, Quantity.LAYERS)
"""Figures that each determine one term."""
_TOO_LONG = 1.02
_PART = 0.05
"""By how much of a step a term is changed to see what it does."""
_ROUNDS = 6
_SETTLED = 1e-4
_NOTHING = 1e-6
"""A term below this share of what is missing is 0: a bound that is met is met nearly."""
_LEAST_ERROR = 0.03
"""The least range of a fitted engine, however well its measurements agree: other steps were not measured."""

_NO_TIME = dict.fromkeys(("step_seconds", "sequence_seconds", "token_seconds", "expert_seconds"), 0.0)

Advance = Callable[[], None]


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


@dataclass(frozen=True)
class _Line:
    """Every figure as a straight line in the terms, around the point where it was computed."""

    at_N: Array
    figures_F: Array
    slopes_FN: Array

    def figures(self, terms_N: Array) -> Array:
        predicted_F: Array = self.figures_F + self.slopes_FN @ (terms_N - self.at_N)
        return predicted_F


class _Fitting:
    """One fit: figures in a row, terms in a row."""

    def __init__(self, predictor: Predictor, engine: EngineKind | EngineProfile, advance: Advance) -> None:
        self._predictor, self._advance = predictor, advance
        measured = predictor.measured
        inside = any(Quantity.LAYERS in one.figures for one in measured)
        zero = _NO_TIME | {"compute": 1.0} | ({"layer_seconds": 0.0} if inside else {})
        self.start = profile_of(engine).model_copy(update=zero)
        self.inside = inside
        self.rows = [(n, figure) for n, one in enumerate(measured) for figure in one.figures]
        self.measured_F = np.array([measured[n].figures[figure] for n, figure in self.rows])
        self.weight_F = np.array([_WEIGHTS[figure] for _, figure in self.rows])
        self.terms = list(Term)
        self.start_N = np.array([getattr(self.start, term) for term in self.terms], dtype=np.float64)

    def profile(self, terms_N: Array) -> EngineProfile:
        values = zip(self.terms, terms_N.tolist(), strict=True)
        return self.start.model_copy(update=dict(values))

    def figures(self, terms_N: Array) -> Array:
        found = self._predictor.predicted(self.profile(terms_N))
        self._advance()
        return np.array([found[n][figure] for n, figure in self.rows])

    def line(self, at_N: Array, terms: Sequence[int]) -> _Line:
        """Computed at a point, and beside it once for each of these terms."""
        figures_F = self.figures(at_N)
        slopes_FN = np.zeros((len(self.rows), len(self.terms)))
        for term in terms:
            beside_N = at_N.copy()
            beside_N[term] += self._change(self.terms[term])
            slopes_FN[:, term] = (self.figures(beside_N) - figures_F) / (beside_N[term] - at_N[term])
        return _Line(at_N, figures_F, slopes_FN)

    def _change(self, term: Term) -> float:
        """About as much of a step for each: what they are counted by differs."""
        if term is Term.COMPUTE:
            return _PART
        of_steps = [
            seconds for (_, f), seconds in zip(self.rows, self.measured_F, strict=True) if f in _PRIMARY
        ]
        counted = {Term.SEQUENCE: 8, Term.TOKEN: 64, Term.LAYER: 32, Term.EXPERT: 128}.get(term, 1)
        return _PART * float(np.mean(of_steps)) / counted

    def relative(self, line: _Line, kept_F: NDArray[np.bool_]) -> Array:
        """Weighed slopes of the figures that are kept, relative to what was measured."""
        weight_F = self.weight_F[kept_F] / self.measured_F[kept_F]
        slopes_FN: Array = line.slopes_FN[kept_F] * weight_F[:, None]
        return slopes_FN

    def chosen(self, line: _Line, order: Sequence[int], kept_F: NDArray[np.bool_]) -> list[int]:
        """The first of these terms that the kept figures tell apart: one for each that determines one."""
        steps_F = self.primary(kept_F)
        token, chosen = self.terms.index(Term.TOKEN), list[int]()
        for term in order:
            seen_F = kept_F if token in (*chosen, term) else steps_F
            if len(chosen) < steps_F.sum() and are_told_apart(
                self.relative(line, seen_F)[:, [*chosen, term]]
            ):
                chosen.append(term)
        return chosen

    def needed(
        self, line: _Line, order: Sequence[int], kept_F: NDArray[np.bool_]
    ) -> tuple[list[int], list[int]]:
        """The terms to fit, and those that would be 0 beside them: these make room for others."""
        nothing: list[int] = []
        while True:
            terms = self.chosen(line, [term for term in order if term not in nothing], kept_F)
            zero = [term for term in terms if self.solved(line, terms, kept_F)[term] == 0]
            if not zero or len(terms) == 1:
                return terms, nothing
            nothing.append(zero[0])

    def solved(self, line: _Line, terms: Sequence[int], kept_F: NDArray[np.bool_]) -> Array:
        """The terms, none below 0, from which the line's figures differ least."""
        if self.terms.index(Term.TOKEN) not in terms:
            kept_F = self.primary(kept_F)
        weight_F = self.weight_F[kept_F] / self.measured_F[kept_F]
        missing_F = (self.measured_F - line.figures(self._without(terms)))[kept_F] * weight_F
        slopes_FN = self.relative(line, kept_F)[:, terms]
        size_N = np.linalg.norm(slopes_FN, axis=0)
        low_N = np.array([1e-3 if self.terms[n] is Term.COMPUTE else 0.0 for n in terms]) * size_N
        found = lsq_linear(slopes_FN / size_N, missing_F, (low_N, np.inf))
        solved_N = self.start_N.copy()
        solved_N[list(terms)] = np.where(found.x > _NOTHING * np.abs(missing_F).max(), found.x, 0.0) / size_N
        return solved_N

    def _without(self, terms: Sequence[int]) -> Array:
        """Where these terms are 0 and others as at the start: what is missing there, these make up."""
        at_N = self.start_N.copy()
        at_N[list(terms)] = 0.0
        return at_N

    def like(self, number: int) -> NDArray[np.bool_]:
        """Which figures are of the load of one measurement, measured once or several times."""
        load = self._predictor.measured[number].described
        return np.array([self._predictor.measured[n].described == load for n, _ in self.rows])

    def primary(self, kept_F: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of these figures determine a term."""
        primary_F: NDArray[np.bool_] = np.array([figure in _PRIMARY for _, figure in self.rows])
        return np.logical_and(kept_F, primary_F)


def fit(predictor: Predictor, engine: EngineKind | EngineProfile, advance: Advance = lambda: None) -> Fit:
    """Fit as many terms as there are measurements to tell them by; one measurement determines one.

    Args:
        predictor: of what was measured.
        engine: whose other constants hold, and which is compared with.
        advance: told of every prediction.
    """
    fitting = _Fitting(predictor, engine, advance)
    every = range(len(fitting.terms))
    all_F = np.ones(len(fitting.rows), dtype=np.bool_)
    line = fitting.line(fitting.start_N, every)
    primary_F = fitting.primary(all_F)
    too_long = (line.figures_F > _TOO_LONG * fitting.measured_F)[primary_F].any()
    tried = TOO_LONG if too_long else INSIDE if fitting.inside else MISSING
    order = [fitting.terms.index(term) for term in tried]
    terms, nothing = fitting.needed(line, order, all_F)
    for _ in range(_ROUNDS):
        solved_N = fitting.solved(line, terms, all_F)
        change_F = line.figures(solved_N) - line.figures_F
        line = fitting.line(solved_N, terms)
        if (np.abs(change_F) <= _SETTLED * fitting.measured_F).all():
            break
    held_out = [_held_out(fitting, line, terms, number) for number in range(len(predictor.measured))]
    return Fit(
        profile=fitting.profile(line.at_N),
        terms=[fitting.terms[term] for term in terms],
        nothing=[fitting.terms[term] for term in nothing],
        left=[fitting.terms[term] for term in order if term not in (*terms, *nothing)],
        measured=predictor.measured,
        before=predictor.predicted(engine),
        after=_by_measurement(fitting, line.figures_F),
        held_out=held_out,
    )


def _held_out(
    fitting: _Fitting, line: _Line, terms: Sequence[int], number: int
) -> dict[Quantity, float] | None:
    """One measurement, predicted with terms that are fitted on those of other loads."""
    kept_F = ~fitting.like(number)
    if fitting.primary(kept_F).sum() < 2:
        return None
    chosen = fitting.chosen(line, terms, kept_F)
    predicted_F = line.figures(fitting.solved(line, chosen, kept_F))
    return _by_measurement(fitting, predicted_F)[number]


def _by_measurement(fitting: _Fitting, figures_F: Array) -> list[dict[Quantity, float]]:
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
        if figure in _PRIMARY
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
