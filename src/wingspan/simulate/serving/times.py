"""How long a step of a group takes: the protocol the serving simulator asks, and a grid that answers it.

A step's load is given twice: on the fullest home and on the mean home. Experts are paced by the mean (every
home's tokens are spread over all ranks), everything else by the fullest home (it attends and sends alone).

Shapes: N grid loads (sequences, or tokens), C grid contexts, P points asked for at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.schedule.step_load import StepLoad

Array = NDArray[np.float64]


class StepTimes(Protocol):
    """Duration of steps."""

    alike: ClassVar[bool]
    """Steps of one load take equally long; otherwise each is asked for by itself, in order."""

    def seconds(self, load: StepLoad) -> float:
        """A step that computes prompts, and may decode beside."""
        ...

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        """Steps that only decode, one for each mean context length: (points,). Never falls in any argument."""
        ...


class PhaseTimes(Protocol):
    """Duration of steps of one phase, never falling in any argument."""

    def prefill_seconds(self, fullest_tokens: float, mean_tokens: float, attended_tokens: float) -> float:
        """A step that only prefills; a prompt token attends to `attended_tokens` earlier ones in the mean."""
        ...

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        """Steps that only decode, one for each mean context length: (points,)."""
        ...


def step_seconds(
    times: PhaseTimes,
    decoding: tuple[float, float],
    context_tokens: float,
    computing: tuple[float, float],
    attended_tokens: float,
) -> float:
    """A step that decodes and prefills at once, as one batch of tokens.

    Such a batch runs as a prefill does: no graph of it is recorded, its kernels and its dispatch are those for many
    tokens, and the decoded ones read their cache beside. Nor is it shorter than the decode step and what as many more
    tokens add to a prefill step.

    Args:
        decoding: sequences that decode, on the fullest home and in the mean.
        context_tokens: their mean context length.
        computing: all tokens of the step, decoded and prefilled, on the fullest home and in the mean.
        attended_tokens: mean number of earlier tokens that a prefilled token attends to.
    """
    whole = times.prefill_seconds(*computing, attended_tokens)
    if not decoding[0]:
        return whole
    decode_P = times.decode_seconds(*decoding, np.array([1.0, max(1.0, context_tokens)]))
    bare, decode = float(decode_P[0]), float(decode_P[1])
    more = whole - times.prefill_seconds(*decoding, attended_tokens)
    return max(decode + max(0.0, more), whole + decode - bare)


def apart_seconds(
    times: PhaseTimes,
    decoding: tuple[float, float],
    context_tokens: float,
    prompts: tuple[float, float],
    attended_tokens: float,
) -> float:
    """A step that computes its prompts first, in a forward of their own, and then decodes.

    Args:
        decoding, context_tokens, attended_tokens: see `step_seconds`.
        prompts: tokens of prompts, on the fullest home and in the mean.
    """
    seconds = times.prefill_seconds(*prompts, attended_tokens)
    if not decoding[0]:
        return seconds
    return seconds + float(times.decode_seconds(*decoding, np.array([max(1.0, context_tokens)]))[0])


def one_batch_seconds(times: PhaseTimes, load: StepLoad) -> float:
    """A step whose prompts and decoded tokens are one batch, as `step_seconds` has it."""
    return step_seconds(times, load.decoding, load.mean_context, load.computing, load.attended_tokens)


@dataclass(frozen=True, eq=False)
class Surface:
    """Step time over load and context, linear between grid points and never falling.

    Args:
        load_N: rising loads per home, all above 0.
        context_C: rising context lengths in tokens.
        expert_seconds_NC: the experts' part of each step.
        other_seconds_NC: the rest of it.

    Below the grid the nearest value holds (a step has fixed costs); above it the last slope goes on.

    Raises:
        InputError: shapes that do not fit, unordered axes, or times that are negative or not finite.
    """

    load_N: Array
    context_C: Array
    expert_seconds_NC: Array
    other_seconds_NC: Array

    def __post_init__(self) -> None:
        shape = (len(self.load_N), len(self.context_C))
        for name, axis in (("load", self.load_N), ("context", self.context_C)):
            if not len(axis) or axis[0] <= 0 or (np.diff(axis) <= 0).any():
                raise InputError(f"step times: the {name} axis must rise and be above 0, got {axis.tolist()}")
        for field in ("expert_seconds_NC", "other_seconds_NC"):
            grid = np.asarray(getattr(self, field), dtype=np.float64)
            if grid.shape != shape:
                raise InputError(f"step times: {field} has shape {grid.shape}, the axes say {shape}")
            if not (np.isfinite(grid).all() and (grid >= 0).all()):
                raise InputError(f"step times: {field} holds a time that is negative or not finite")
            rising = np.maximum.accumulate(np.maximum.accumulate(grid, axis=0), axis=1)
            object.__setattr__(self, field, rising)

    def seconds(self, fullest: float, mean: float, contexts_P: Array) -> Array:
        """Step time at the given loads, for each context: (points,)."""
        row_C = _at(self.load_N, self.expert_seconds_NC, mean) + _at(
            self.load_N, self.other_seconds_NC, fullest
        )
        inside: Array = np.interp(contexts_P, self.context_C, row_C)
        if len(self.context_C) == 1 or contexts_P[-1] <= self.context_C[-1]:
            return inside
        slope = (row_C[-1] - row_C[-2]) / (self.context_C[-1] - self.context_C[-2])
        beyond: Array = inside + slope * np.maximum(0.0, contexts_P - self.context_C[-1])
        return beyond


def _at(axis_N: Array, values_NC: Array, load: float) -> Array:
    if len(axis_N) == 1 or load <= axis_N[0]:
        first: Array = values_NC[0]
        return first
    right = min(int(np.searchsorted(axis_N, load)), len(axis_N) - 1)
    share = (load - axis_N[right - 1]) / (axis_N[right] - axis_N[right - 1])
    row: Array = values_NC[right - 1] + share * (values_NC[right] - values_NC[right - 1])
    return row


@dataclass(frozen=True, eq=False)
class GridTimes:
    """Both protocols from two surfaces: decode over (sequences, context), prefill over (tokens, attended).

    Prompts are computed apart from the sequences that decode, or all tokens are one batch.
    """

    alike: ClassVar[bool] = True
    decode: Surface
    prefill: Surface
    prompts_apart: bool = False

    def seconds(self, load: StepLoad) -> float:
        """See `StepTimes`."""
        if not self.prompts_apart:
            return one_batch_seconds(self, load)
        return apart_seconds(self, load.decoding, load.mean_context, load.prompt_tokens, load.attended_tokens)

    def prefill_seconds(self, fullest_tokens: float, mean_tokens: float, attended_tokens: float) -> float:
        """See `PhaseTimes`."""
        return float(self.prefill.seconds(fullest_tokens, mean_tokens, np.array([attended_tokens]))[0])

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        """See `StepTimes`."""
        return self.decode.seconds(fullest_sequences, mean_sequences, contexts_P)
