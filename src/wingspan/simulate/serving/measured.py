"""Step times fitted to the steps that an engine took, to ask for those of another load.

The engine computes prompts in forwards of their own, before those that decode; each forward has a fixed cost, and one
that rises with what the ranks compute in it. Ranks may have cores of their own, or share some: so both count, the
fullest rank and the mean one, as the measured steps say.

Shapes: N steps, C costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from wingspan.errors import InputError
from wingspan.schedule.step_load import StepLoad

Array = NDArray[np.float64]

_ROWS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Sequences per rank between which a decode step's time is on a line."""
_TOKENS = (0.0, 32.0, 128.0, 512.0)
"""Columns per rank, padding counted, between which a prompt forward's time is on a line."""


@dataclass(frozen=True)
class MeasuredStep:
    """One step of an engine, and how long it was until the next could begin."""

    load: StepLoad
    seconds: float


@dataclass(frozen=True, eq=False)
class MeasuredTimes:
    """`StepTimes` that never fall: seconds of each kind of cost, see `_costs`."""

    alike: ClassVar[bool] = True
    seconds_C: Array

    def seconds(self, load: StepLoad) -> float:
        """See `StepTimes`."""
        return float(_costs(load) @ self.seconds_C)

    def slower(self, times: float) -> MeasuredTimes:
        """The same steps, each so many times as long."""
        return MeasuredTimes(self.seconds_C * times)

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        """See `StepTimes`."""
        fixed, by_context = _decode_costs(fullest_sequences, mean_sequences)
        decode_C = self.seconds_C[: len(fixed) + 1]
        seconds_P: Array = fixed @ decode_C[:-1] + by_context * decode_C[-1] * contexts_P
        return seconds_P


class RecordedTimes:
    """`StepTimes` of one run, in order: each step takes what that of the same number took.

    Args:
        seconds: of each step; beyond the last they take as long as that.
    """

    alike: ClassVar[bool] = False

    def __init__(self, seconds: Sequence[float]) -> None:
        self._left = deque(seconds)

    def seconds(self, load: StepLoad) -> float:
        """See `StepTimes`."""
        del load
        return self._next()

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        """See `StepTimes`; one step is asked for."""
        del fullest_sequences, mean_sequences, contexts_P
        return np.array([self._next()])

    def _next(self) -> float:
        return self._left.popleft() if len(self._left) > 1 else self._left[0]


def fitted(steps: Sequence[MeasuredStep]) -> MeasuredTimes:
    """The costs, none below 0, from which the measured steps differ least, relative to their length.

    Raises:
        InputError: too few steps to tell.
    """
    if len(steps) < len(_costs(steps[0].load)) if steps else True:
        raise InputError(f"step times: {len(steps)} measured steps are too few; send more requests")
    costs_NC = np.array([_costs(step.load) for step in steps])
    seconds_N = np.array([step.seconds for step in steps])
    seconds_C = np.zeros(costs_NC.shape[1])
    weight_N = 1 / seconds_N
    for _ in range(_ROUNDS):
        # Weighed by what a step is expected to take: by what it took, short ones would count too much.
        seconds_C, _ = nnls(costs_NC * weight_N[:, None], seconds_N * weight_N)
        weight_N = 1 / np.maximum(costs_NC @ seconds_C, seconds_N.min())
    return MeasuredTimes(seconds_C)


_ROUNDS = 5


def _costs(load: StepLoad) -> Array:
    """What a step has of each kind of cost: of its decode forward, then of its prompts' forwards."""
    homes = len(load.decoding_H)
    fixed, by_context = _decode_costs(*load.decoding)
    decode = [*fixed, by_context * load.mean_context]
    prompts = np.zeros(2 * (len(_TOKENS) - 1) + 3)
    for forward in load.prompt_forwards:
        columns = [len(pieces) * max(piece.tokens for piece in pieces) for pieces in forward]
        prompts[0] += 1
        prompts[1] += sum(map(len, forward))
        prompts[2] += sum(piece.attended_pairs for pieces in forward for piece in pieces)
        prompts[3:] += [*_parts(max(columns), _TOKENS), *_parts(sum(columns) / homes, _TOKENS)]
    return np.array([*decode, *prompts])


def _decode_costs(fullest: float, mean: float) -> tuple[Array, float]:
    """What of a decode forward no context changes; and that by which its mean context counts."""
    return np.array([float(fullest > 0), *_parts(fullest, _ROWS), *_parts(mean, _ROWS)]), mean


def _parts(value: float, knots: Sequence[float]) -> list[float]:
    """How much of a value lies between each knot and the next; beyond the last, all of it."""
    ends = (*knots[1:-1], np.inf)
    return [min(max(value - low, 0.0), high - low) for low, high in zip(knots[:-1], ends, strict=True)]
