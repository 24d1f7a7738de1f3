"""The kinds of synthetic trace, each a function of the shape, a seed and its own knobs.

Distributions: uniform, power-law, log-normal, communities, source-affine. Imbalances: balanced, hot-set, hot-rank,
spread-hot, source-ragged, zero, rotating, burst. A new kind is one function here and its name in `KINDS`.

Shapes: L MoE layers, E logical experts, R home ranks, C classes of tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.routing.synthetic import Dealt, SyntheticWorkload, TraceShape, Weighted

Weights = NDArray[np.floating]
"""Relative weights of experts: (classes, layers, experts)."""


def uniform(shape: TraceShape, seed: int) -> SyntheticWorkload:  # noqa: ARG001 - all kinds take a seed
    """Every expert equally likely."""
    return SyntheticWorkload(Weighted(_ones(shape), shape.top_k))


def power_law(shape: TraceShape, seed: int, exponent: float = 1.0) -> SyntheticWorkload:
    """The n-th likeliest expert has weight n^-exponent, in an order of its own in each layer."""
    weight_E = np.arange(1, shape.experts + 1, dtype=np.float64) ** -exponent
    return SyntheticWorkload(Weighted(_shuffled(weight_E, shape, seed), shape.top_k))


def log_normal(shape: TraceShape, seed: int, sigma: float = 1.0) -> SyntheticWorkload:
    """Weights exp(sigma x normal), drawn anew in each layer."""
    normal_LE = _rng(seed).standard_normal((shape.layers, shape.experts))
    return SyntheticWorkload(Weighted(np.exp(sigma * normal_LE)[None].astype(np.float32), shape.top_k))


def communities(shape: TraceShape, seed: int, groups: int = 4, noise: float = 0.1) -> SyntheticWorkload:
    """Each request keeps to one group of experts (`planted_groups`), but for a share of noise.

    Args:
        shape: of the trace.
        seed: of the groups.
        groups: number of groups.
        noise: share of (token, layer) choices that are uniform over all experts.
    """
    weight_CLE = _group_weights(shape, seed, groups)
    request_group_N = _rng(seed, 1).integers(0, groups, shape.requests)
    return SyntheticWorkload(
        Weighted(
            weight_CLE, shape.top_k, lambda tokens: request_group_N[tokens.request_T], _share("noise", noise)
        )
    )


def source_affine(shape: TraceShape, seed: int, groups: int = 4, noise: float = 0.1) -> SyntheticWorkload:
    """Tokens of neighbouring ranks (`groups` blocks of ranks, such as nodes) keep to one group of experts.

    Args:
        shape: of the trace.
        seed: of the groups.
        groups: number of blocks of ranks, and of groups of experts.
        noise: share of (token, layer) choices that are uniform over all experts.
    """
    if groups > shape.ranks:
        raise InputError(f"source-affine: {groups} groups need as many ranks, there are {shape.ranks}")
    weight_CLE = _group_weights(shape, seed, groups)
    return SyntheticWorkload(
        Weighted(
            weight_CLE,
            shape.top_k,
            lambda tokens: tokens.home_rank_T * groups // shape.ranks,
            _share("noise", noise),
        )
    )


def planted_groups(shape: TraceShape, seed: int, groups: int) -> NDArray[np.int64]:
    """The group of each expert that `communities` and `source_affine` plant: (L, E), groups of equal size."""
    if not 1 <= groups * shape.top_k <= shape.experts:
        raise InputError(
            f"{groups} groups of {shape.experts} experts leave fewer than top-{shape.top_k} in a group; "
            f"use at most {shape.experts // shape.top_k} groups"
        )
    group_E = np.arange(shape.experts) * groups // shape.experts
    return _rng(seed).permuted(np.tile(group_E, (shape.layers, 1)), axis=1)


def balanced(shape: TraceShape, seed: int) -> SyntheticWorkload:  # noqa: ARG001
    """Every expert exactly equally often, in ever new company."""
    return SyntheticWorkload(Dealt(shape.layers, shape.experts, shape.top_k))


def hot_set(shape: TraceShape, seed: int, hot_share: float = 0.5) -> SyntheticWorkload:
    """A sixteenth of the experts, others in each layer, has `hot_share` of the weight."""
    return SyntheticWorkload(
        Weighted(_shuffled(_hot(shape, _sixteenth(shape), hot_share), shape, seed), shape.top_k)
    )


def hot_rank(shape: TraceShape, seed: int, hot_share: float = 0.5) -> SyntheticWorkload:  # noqa: ARG001
    """The experts that a linear placement gives to rank 0 have `hot_share` of the weight, in all layers."""
    held = max(1, shape.experts // shape.ranks)
    return SyntheticWorkload(
        Weighted(_all_layers(_hot(shape, np.arange(held), hot_share), shape), shape.top_k)
    )


def spread_hot(shape: TraceShape, seed: int, hot_share: float = 0.5) -> SyntheticWorkload:  # noqa: ARG001
    """Make as many experts hot as `hot_set` does, evenly spaced, so that a linear placement spreads them over ranks."""
    count = len(_sixteenth(shape))
    spaced = np.arange(count) * shape.experts // count
    return SyntheticWorkload(Weighted(_all_layers(_hot(shape, spaced, hot_share), shape), shape.top_k))


def source_ragged(shape: TraceShape, seed: int, exponent: float = 1.5) -> SyntheticWorkload:
    """Uniform experts, but requests crowd on few ranks: the n-th rank has weight n^-exponent, the last one none."""
    weight_R = np.arange(1, shape.ranks + 1, dtype=np.float64) ** -exponent
    if shape.ranks > 1:
        weight_R[-1] = 0.0
    return SyntheticWorkload(Weighted(_ones(shape), shape.top_k), _rng(seed).permuted(weight_R))


def zero(shape: TraceShape, seed: int) -> SyntheticWorkload:
    """Idle parts: rank 0 is nobody's home and its experts under a linear placement are never picked."""
    idle = min(max(1, shape.experts // shape.ranks), shape.experts - shape.top_k)
    weight_E = np.ones(shape.experts)
    weight_E[:idle] = 0.0
    home_R = np.ones(shape.ranks)
    home_R[0] = 0.0 if shape.ranks > 1 else 1.0
    del seed
    return SyntheticWorkload(Weighted(_all_layers(weight_E, shape), shape.top_k), home_R)


def rotating(shape: TraceShape, seed: int, hot_share: float = 0.5, turns: int = 8) -> SyntheticWorkload:
    """A hot set that moves: `turns` stretches of time, each with a sixteenth of the experts of its own.

    Args:
        shape: of the trace.
        seed: of the order in which experts become hot.
        hot_share: share of the weight on the hot ones.
        turns: stretches of time.
    """
    hot = len(_sixteenth(shape))
    order_LE = _rng(seed).permuted(np.tile(np.arange(shape.experts), (shape.layers, 1)), axis=1)
    weight_CLE = np.empty((turns, shape.layers, shape.experts), dtype=np.float32)
    for turn in range(turns):
        place_E = (np.arange(shape.experts) + turn * hot) % shape.experts
        weight_CLE[turn] = _hot(shape, np.flatnonzero(place_E < hot), hot_share)[order_LE]
    return SyntheticWorkload(
        Weighted(weight_CLE, shape.top_k, lambda tokens: tokens.request_T * turns // shape.requests)
    )


def burst(shape: TraceShape, seed: int, hot_share: float = 0.8, every: int = 8) -> SyntheticWorkload:
    """Calm and uniform, but each `every`-th step all tokens crowd on a sixteenth of the experts.

    Args:
        shape: of the trace.
        seed: of which experts.
        hot_share: share of the weight on them in those steps.
        every: steps from one burst to the next.
    """
    hot_1LE = _shuffled(_hot(shape, _sixteenth(shape), hot_share), shape, seed)
    weight_CLE = np.concatenate([_ones(shape), hot_1LE])
    return SyntheticWorkload(
        Weighted(
            weight_CLE, shape.top_k, lambda tokens: (tokens.step_T % every == every - 1).astype(np.int64)
        )
    )


KINDS: dict[str, Callable[..., SyntheticWorkload]] = {
    "uniform": uniform,
    "power-law": power_law,
    "log-normal": log_normal,
    "communities": communities,
    "source-affine": source_affine,
    "balanced": balanced,
    "hot-set": hot_set,
    "hot-rank": hot_rank,
    "spread-hot": spread_hot,
    "source-ragged": source_ragged,
    "zero": zero,
    "rotating": rotating,
    "burst": burst,
}


_STEEPEST = 8
"""Largest exponent or sigma: beyond it the least likely experts have no weight that a float32 holds."""


_SPREAD = {"power-law": "exponent", "log-normal": "sigma", "source-ragged": "exponent"}
"""The one number of a kind, that stands behind its name: `log-normal:0.6`."""


def workload(kind: str, shape: TraceShape, seed: int, **knobs: float) -> SyntheticWorkload:
    """The workload of this name.

    Args:
        kind: one of `KINDS`; of those with a spread, it may stand behind the name, as in `log-normal:0.6`.
        shape: of the trace.
        seed: of all draws.
        knobs: the kind's own.

    Raises:
        InputError: an unknown kind, or a knob that it does not have.
    """
    name, colon, number = kind.partition(":")
    if name not in KINDS:
        raise InputError(f"synthetic trace {kind!r} is unknown; known: {', '.join(KINDS)}")
    if colon:
        knobs[_spread(name)] = _number(kind, number)
    known = list(inspect.signature(KINDS[name]).parameters)[2:]
    for knob in knobs:
        if knob not in known:
            takes = ", ".join(f"`{k}`" for k in known if k != _SPREAD.get(name)) or "no option of its own"
            raise InputError(f"`{knob}` does nothing for {name}, which takes {takes}")
    for knob in ("groups", "turns", "every"):
        if knobs.get(knob, 1) < 1:
            raise InputError(f"`{knob}` {knobs[knob]:g}: use 1 or more")
    for knob in ("exponent", "sigma"):
        if not 0 <= knobs.get(knob, 0) <= _STEEPEST:
            raise InputError(f"{name}:{knobs[knob]:g}: use a number from 0 to {_STEEPEST}")
    return KINDS[name](shape, seed, **knobs)


def _spread(name: str) -> str:
    if name not in _SPREAD:
        raise InputError(
            f"synthetic trace {name!r} has no number of its own; only {', '.join(_SPREAD)} have one"
        )
    return _SPREAD[name]


def _number(kind: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        name = kind.partition(":")[0]
        raise InputError(f"synthetic trace {kind!r}: {name} needs a number, as in {name}:0.8") from None


def _rng(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0, *stream])


def _ones(shape: TraceShape) -> Weights:
    return np.ones((1, shape.layers, shape.experts), dtype=np.float32)


def _all_layers(weight_E: NDArray[np.float64], shape: TraceShape) -> Weights:
    return np.tile(weight_E.astype(np.float32), (1, shape.layers, 1))


def _shuffled(weight_E: NDArray[np.float64], shape: TraceShape, seed: int) -> Weights:
    """The weights in an order of its own in each layer."""
    shuffled_1LE: Weights = _rng(seed).permuted(_all_layers(weight_E, shape), axis=2)
    return shuffled_1LE


def _sixteenth(shape: TraceShape) -> NDArray[np.int64]:
    return np.arange(max(1, shape.experts // 16))


def _hot(shape: TraceShape, hot: NDArray[np.int64], hot_share: float) -> NDArray[np.float64]:
    """Weights (E,) that sum to 1, `hot_share` of it on the hot experts."""
    share = _share("hot_share", hot_share)
    if share == 1 and len(hot) < shape.top_k:
        raise InputError(
            f"`hot_share` 1 leaves {len(hot)} experts for top-{shape.top_k} of {shape.experts}; use less than 1"
        )
    if len(hot) == shape.experts:
        return np.full(shape.experts, 1 / shape.experts)
    weight_E = np.full(shape.experts, (1 - share) / (shape.experts - len(hot)))
    weight_E[hot] = share / len(hot)
    return weight_E


def _group_weights(shape: TraceShape, seed: int, groups: int) -> Weights:
    group_LE = planted_groups(shape, seed, groups)
    weight_CLE: Weights = (group_LE[None] == np.arange(groups)[:, None, None]).astype(np.float32)
    return weight_CLE


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"`{name}` {value:g}: use a share from 0 to 1")
    return value
