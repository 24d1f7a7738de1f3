"""Figures as straight lines in the terms: which terms they tell apart, and from which they differ least.

Shapes: F figures, N terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from wingspan.simulate.fitting.measurements import Predictor, Quantity
from wingspan.simulate.fitting.terms import OF_FIRST_TOKENS, Term, are_told_apart
from wingspan.specs.engines import EngineKind, EngineProfile, profile_of

Array = NDArray[np.float64]

Advance = Callable[[], None]

PRIMARY = (Quantity.TPOT, Quantity.STEP, Quantity.LAYERS)
"""Figures that each determine one term."""
_WEIGHTS = {
    Quantity.TPOT: 1.0,
    Quantity.STEP: 1.0,
    Quantity.LAYERS: 1.0,
    Quantity.TTFT: 0.1,
    Quantity.OUTPUT: 0.0,
}
"""A first token's time tells of prompts, and less steadily: others are waited for. Throughput follows from both."""
_TOO_LONG = 1.02
_PART = 0.05
"""By how much of a step a term is changed to see what it does."""
_COUNTED = {Term.SEQUENCE: 8, Term.TOKEN: 64, Term.LAYER: 32, Term.EXPERT: 128, Term.REQUEST: 2}
"""How often a step has what a term is counted by, about; others once."""
_NOTHING = 1e-6
"""A term below this share of what is missing is 0: a bound that is met is met nearly."""
_ROUNDS = 6
_SETTLED = 1e-4
_HALVINGS = 3

_NO_TIME = {"agreement_seconds": 0.0} | {
    term.value: 0.0 for term in Term if term not in (Term.LAYER, Term.COMPUTE)
}


@dataclass(frozen=True)
class Slopes:
    """Every figure as a straight line in the terms, around the point where it was computed."""

    at_N: Array
    figures_F: Array
    slopes_FN: Array

    def figures(self, terms_N: Array) -> Array:
        """On the line, where the terms are these."""
        predicted_F: Array = self.figures_F + self.slopes_FN @ (terms_N - self.at_N)
        return predicted_F


class Fitting:
    """One fit: figures in a row, terms in a row.

    Args:
        predictor: of what was measured.
        engine: whose other constants hold.
        advance: told of every prediction.
        apart: whether prompts are computed apart from the sequences that decode.
    """

    def __init__(
        self, predictor: Predictor, engine: EngineKind | EngineProfile, advance: Advance, *, apart: bool
    ) -> None:
        self._predictor, self._advance = predictor, advance
        measured = predictor.measured
        inside = any(Quantity.LAYERS in one.figures for one in measured)
        zero = _NO_TIME | {"compute": 1.0} | ({"layer_seconds": 0.0} if inside else {})
        self.start = profile_of(engine).model_copy(update=zero | {"prompts_apart": apart})
        self.inside = inside
        self.rows = [(n, figure) for n, one in enumerate(measured) for figure in one.figures]
        self.measured_F = np.array([measured[n].figures[figure] for n, figure in self.rows])
        self.every_F = np.ones(len(self.rows), dtype=np.bool_)
        self.weight_F = np.array([_WEIGHTS[figure] for _, figure in self.rows])
        self.terms = list(Term)
        self.start_N = np.array([getattr(self.start, term) for term in self.terms], dtype=np.float64)

    def profile(self, terms_N: Array) -> EngineProfile:
        """The engine with these terms."""
        values = zip(self.terms, terms_N.tolist(), strict=True)
        return self.start.model_copy(update=dict(values))

    def figures(self, terms_N: Array) -> Array:
        """Predicted with these terms, in a row."""
        found = self._predictor.predicted(self.profile(terms_N))
        self._advance()
        return np.array([found[n][figure] for n, figure in self.rows])

    def line(self, at_N: Array, terms: Sequence[int]) -> Slopes:
        """Computed at a point, and beside it once for each of these terms."""
        figures_F = self.figures(at_N)
        slopes_FN = np.zeros((len(self.rows), len(self.terms)))
        for term in terms:
            beside_N = at_N.copy()
            beside_N[term] += self._change(self.terms[term])
            slopes_FN[:, term] = (self.figures(beside_N) - figures_F) / (beside_N[term] - at_N[term])
        return Slopes(at_N, figures_F, slopes_FN)

    def _change(self, term: Term) -> float:
        """About as much of a step for each: what they are counted by differs."""
        if term is Term.COMPUTE:
            return _PART
        of_steps = [
            seconds for (_, f), seconds in zip(self.rows, self.measured_F, strict=True) if f in PRIMARY
        ]
        return _PART * float(np.mean(of_steps)) / _COUNTED.get(term, 1)

    def relative(self, line: Slopes, kept_F: NDArray[np.bool_]) -> Array:
        """Weighed slopes of the figures that are kept, relative to what was measured."""
        weight_F = self.weight_F[kept_F] / self.measured_F[kept_F]
        slopes_FN: Array = line.slopes_FN[kept_F] * weight_F[:, None]
        return slopes_FN

    def chosen(self, line: Slopes, order: Sequence[int], kept_F: NDArray[np.bool_]) -> list[int]:
        """The first of these terms that the kept figures tell apart: one for each that determines one."""
        steps_F = self.primary(kept_F)
        steps, firsts = int(steps_F.sum()), int((kept_F & ~steps_F & (self.weight_F > 0)).sum())
        chosen = list[int]()
        for term in order:
            of_first = self._of_first([*chosen, term])
            room = firsts - 1 if term in of_first else steps + len(of_first)
            had = len(of_first) - 1 if term in of_first else len(chosen)
            seen_F = kept_F if of_first else steps_F
            if had < room and are_told_apart(self.relative(line, seen_F)[:, [*chosen, term]]):
                chosen.append(term)
        return chosen

    def is_too_long(self, line: Slopes) -> bool:
        """Whether even without an engine something was predicted longer than it was measured."""
        long_F = line.figures_F > _TOO_LONG * self.measured_F
        return bool(long_F[self.primary(self.every_F)].any())

    def _of_first(self, terms: Sequence[int]) -> list[int]:
        """Those of which a first token's time tells."""
        return [term for term in terms if self.terms[term] in OF_FIRST_TOKENS]

    def needed(
        self, line: Slopes, order: Sequence[int], kept_F: NDArray[np.bool_]
    ) -> tuple[list[int], list[int]]:
        """The terms to fit, and those that would be 0 beside them: these make room for others."""
        nothing: list[int] = []
        while True:
            terms = self.chosen(line, [term for term in order if term not in nothing], kept_F)
            zero = [term for term in terms if self.solved(line, terms, kept_F)[term] == 0]
            if not zero or len(terms) == 1:
                return terms, nothing
            nothing.append(zero[0])

    def solved(self, line: Slopes, terms: Sequence[int], kept_F: NDArray[np.bool_]) -> Array:
        """The terms, none below 0, from which the line's figures differ least."""
        if not self._of_first(terms):
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

    def settled(self, line: Slopes, terms: Sequence[int], kept_F: NDArray[np.bool_]) -> Slopes:
        """The line where the terms are solved for: from line to line, as long as that brings the figures nearer."""
        for _ in range(_ROUNDS):
            solved_N = self.solved(line, terms, kept_F)
            change_F = line.figures(solved_N) - line.figures_F
            nearer_N = self._nearer(line, solved_N, terms, kept_F)
            if nearer_N is None:
                break
            line = self.line(nearer_N, terms)
            if (np.abs(change_F) <= _SETTLED * self.measured_F).all():
                break
        return line

    def _nearer(
        self, line: Slopes, solved_N: Array, terms: Sequence[int], kept_F: NDArray[np.bool_]
    ) -> Array | None:
        """The point, or one on the way to it where figures bend; None: the figures are nearer nowhere on it."""
        if not self._of_first(terms):
            kept_F = self.primary(kept_F)
        for halvings in range(_HALVINGS):
            at_N: Array = line.at_N + (solved_N - line.at_N) / 2**halvings
            if self.off(self.figures(at_N), kept_F) <= self.off(line.figures_F, kept_F):
                return at_N
        return None

    def off(self, figures_F: Array, kept_F: NDArray[np.bool_]) -> float:
        """How far the kept figures are from what was measured: the sum of weighed squares."""
        off_F = (self.weight_F * (figures_F / self.measured_F - 1))[kept_F]
        return float(off_F @ off_F)

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
        primary_F: NDArray[np.bool_] = np.array([figure in PRIMARY for _, figure in self.rows])
        return np.logical_and(kept_F, primary_F)
